"""JSON documents as they come from files and from plugins: as strict as Go's decoder, and never an odd exception."""

import json
from collections.abc import Mapping

Json = dict[str, "JsonValue"]
JsonValue = str | int | float | bool | None | list["JsonValue"] | Json


class DocumentError(ValueError):
    """It is no JSON document of the wanted shape; the text says why and where."""


def loads(data: bytes) -> JsonValue:
    """The value of one JSON text in UTF-8. Raises DocumentError.

    Unlike `json.loads` it takes no NaN, no other encoding and no byte order mark, and survives any nesting.
    """
    try:
        value: JsonValue = json.loads(data.decode(), parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise DocumentError(f"byte {error.start} is not UTF-8") from error
    except RecursionError as error:
        raise DocumentError("it is nested too deeply") from error
    except json.JSONDecodeError as error:
        raise DocumentError(f"line {error.lineno}, column {error.colno}: {error.msg}") from error
    except ValueError as error:  # a number of more digits than int() takes
        raise DocumentError(str(error)) from error
    return value


def load_object(data: bytes) -> Json:
    """As `loads`, for what must be an object."""
    value = loads(data)
    if not isinstance(value, dict):
        raise DocumentError(f"it is {kind(value)}, and must be an object")
    return value


def dumps(document: Mapping[str, object]) -> bytes:
    """Compact JSON, all of it ASCII: a lone surrogate that came in as an escape goes out as one."""
    return json.dumps(document, separators=(",", ":"), allow_nan=False).encode()


def text(holder: Json, key: str, *, where: str = "") -> str:
    """A text, empty where there is none. Raises DocumentError for anything else."""
    value = holder.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DocumentError(f"{where}{key} is {kind(value)}, and must be a text")
    return value


def texts(holder: Json, key: str, *, where: str = "") -> tuple[str, ...]:
    """A list of texts, empty where there is none. Raises DocumentError for anything else."""
    value = holder.get(key)
    if value is None:
        return ()
    found = [item for item in value if isinstance(item, str)] if isinstance(value, list) else None
    if found is None or not isinstance(value, list) or len(found) != len(value):
        raise DocumentError(f"{where}{key} must be a list of texts")
    return tuple(found)


def number(holder: Json, key: str, *, where: str = "") -> int | None:
    """A whole number that is not negative, None where there is none. Raises DocumentError for anything else."""
    value = holder.get(key)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise DocumentError(f"{where}{key} is {kind(value)}, and must be a whole number that is not negative")
    return value


def mapping(holder: Json, key: str, *, where: str = "") -> Json:
    """An object, empty where there is none. Raises DocumentError for anything else."""
    value = holder.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise DocumentError(f"{where}{key} is {kind(value)}, and must be an object")
    return value


def objects(holder: Json, key: str, *, where: str = "") -> list[Json]:
    """A list of objects, empty where there is none. Raises DocumentError for anything else."""
    value = holder.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise DocumentError(f"{where}{key} is {kind(value)}, and must be a list")
    found: list[Json] = []
    for index, item in enumerate(value):
        if not isinstance(item, dict):
            raise DocumentError(f"{where}{key}[{index}] is {kind(item)}, and must be an object")
        found.append(item)
    return found


def kind(value: JsonValue) -> str:
    """What it is, for a message; scalars with their value, cut short."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    shown = json.dumps(value)
    return shown if len(shown) <= 80 else f"{shown[:80]}…"


def _no_constant(name: str) -> float:
    raise DocumentError(f"{name} is not JSON")
