"""The hooks of a specification, and the state that they are told. Pure."""

import json
from typing import Final

from shim.errors import SpecError, UnsupportedError
from shim.hooks.hook import Hook
from shim.spec import HOOKS_IN_THE_CONTAINER, Json, JsonValue, objects, section

ON_THE_HOST: Final = ("prestart", "createRuntime", "poststart", "poststop")


def read(document: Json) -> dict[str, list[Hook]]:
    """The hooks that run on the host, by moment, in their order.

    Raises SpecError for one that is none, UnsupportedError for a moment that there is not.
    """
    hooks = section(document, "hooks")
    if objects(hooks, "createContainer"):
        raise UnsupportedError(
            "the specification has hooks.createContainer: such a program lies on the host and runs in the container's"
            " namespaces, which are in a virtual machine",
            hint="use createRuntime, or startContainer with a program of the image",
        )
    for hook in objects(hooks, HOOKS_IN_THE_CONTAINER):
        _hook(HOOKS_IN_THE_CONTAINER, hook)
    return {moment: [_hook(moment, hook) for hook in objects(hooks, moment)] for moment in ON_THE_HOST}


def state(document: Json, *, container_id: str, bundle: str, status: str, pid: int = 0) -> bytes:
    """The container's state as JSON (runtime-spec, runtime.md, State). There is no pid once it is stopped."""
    told: Json = {"ociVersion": document.get("ociVersion", ""), "id": container_id, "status": status}
    if pid:
        told["pid"] = pid
    told["bundle"] = bundle
    if annotations := section(document, "annotations"):
        told["annotations"] = annotations
    return json.dumps(told, separators=(",", ":")).encode()


def _hook(moment: str, document: Json) -> Hook:
    path, timeout_s = document.get("path"), document.get("timeout")
    if not isinstance(path, str) or not path.startswith("/") or "\0" in path:
        raise SpecError(f"a {moment} hook has the path {path!r}: it must be absolute")
    if timeout_s is not None and (isinstance(timeout_s, bool) or not isinstance(timeout_s, int) or timeout_s <= 0):
        raise SpecError(f"the {moment} hook {path} has the timeout {timeout_s!r}: it must be a whole number of seconds")
    env = _words(moment, path, "env", document)
    if wrong := [entry for entry in env if "=" not in entry]:
        raise SpecError(f"the {moment} hook {path} has {wrong[0]!r} in its environment: it must be NAME=VALUE")
    args = _words(moment, path, "args", document)
    return Hook(path, args or [path], env, timeout_s or 0)


def _words(moment: str, path: str, key: str, document: Json) -> list[str]:
    value: JsonValue = document.get(key)
    if value is None:
        return []
    words = [word for word in value if isinstance(word, str) and "\0" not in word] if isinstance(value, list) else []
    if not isinstance(value, list) or len(words) != len(value):
        raise SpecError(f"the {moment} hook {path} has {value!r} as {key}: it must be a list of texts")
    return words
