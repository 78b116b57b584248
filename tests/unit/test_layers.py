"""Which package may import which, and rules about our own Python that no linter has."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_PACKAGES = ("api", "archive", "cni", "netlink", "shim", "ttrpc", "vminitd")
# What each may import of the others. `api` is generated upon ttrpc; ttrpc, archive, cni and netlink are libraries that
# know none of us.
_MAY_IMPORT = {
    "ttrpc": set(),
    "cni": set(),
    "netlink": set(),
    "archive": set(),
    "api": {"ttrpc"},
    "shim": {"api", "archive", "cni", "netlink", "ttrpc"},
    "vminitd": {"api", "archive", "netlink", "ttrpc"},
}
_LINES_MAX = 400
_NAMES_WITHOUT_MEANING = ("utils", "util", "helpers", "helper", "common", "manager", "misc")
_GENERATED = ("_pb2.py", "_ttrpc.py")


def _own_files() -> list[Path]:
    """Every Python file that people write and read."""
    found = [
        path
        for folder in (*_PACKAGES, "deploy", "initrd", "kernel", "tests")
        for path in (_ROOT / folder).rglob("*.py")
        if not path.name.endswith(_GENERATED)
    ]
    return sorted(found)


def _imports(path: Path) -> Iterator[tuple[int, str]]:
    """The line and the full name of everything that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, item.name) for item in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            yield node.lineno, node.module or ""
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in (
            "import_module",
            "importlib.import_module",
            "__import__",
        ):
            for argument in node.args[:1]:
                if isinstance(argument, ast.Constant):
                    yield node.lineno, str(argument.value)


def _name(path: Path) -> str:
    return str(path.relative_to(_ROOT))


@pytest.mark.parametrize("package", _PACKAGES)
def test_layers_point_one_way(package: str) -> None:
    files = sorted((_ROOT / package).rglob("*.py"))
    assert files, f"{package}/ is not there"
    forbidden = set(_PACKAGES) - {package} - _MAY_IMPORT[package] | {"tests", "deploy", "initrd", "kernel"}
    wrong = [
        f"{_name(path)}:{line} imports {name}"
        for path in files
        for line, name in _imports(path)
        if name.partition(".")[0] in forbidden
    ]
    assert wrong == []


def test_ttrpc_uses_protobuf_and_the_standard_library_alone() -> None:
    assert _foreign("ttrpc") <= {"google", "ttrpc"}


@pytest.mark.parametrize("library", ["archive", "cni", "netlink"])
def test_these_use_the_standard_library_alone(library: str) -> None:
    assert _foreign(library) <= {library}


def test_api_uses_protobuf_and_ttrpc_alone() -> None:
    assert _foreign("api") <= {"google", "ttrpc", "api", "grpc_tools"}  # grpc_tools: api/generate.py runs protoc
    wrong = [
        _name(path)
        for path in (_ROOT / "api").rglob("*.py")
        if path.name != "generate.py" and any(name.startswith("grpc") for _, name in _imports(path))
    ]
    assert wrong == []


def test_the_guest_uses_protobuf_and_the_standard_library_alone() -> None:
    """Whatever vminitd imports is in every guest's image and every guest's memory."""
    assert _foreign("vminitd") <= {"google", "archive", "netlink", "ttrpc", "api", "vminitd"}


def _foreign(package: str) -> set[str]:
    found = {name.partition(".")[0] for path in (_ROOT / package).rglob("*.py") for _, name in _imports(path)}
    return found - sys.stdlib_module_names - {"_typeshed"}  # that one is for type checkers alone


def test_module_names_mean_something() -> None:
    wrong = [
        _name(path)
        for path in _own_files()
        if set(path.stem.removeprefix("test_").split("_")) & set(_NAMES_WITHOUT_MEANING)
    ]
    assert wrong == []


def test_files_are_short() -> None:
    lengths = {_name(path): len(path.read_text().splitlines()) for path in _own_files()}
    assert {name: length for name, length in lengths.items() if length > _LINES_MAX} == {}


def test_no_exception_is_swallowed_whole() -> None:
    """`except Exception: pass`, however it is written; what is narrower names what it passes over."""
    wrong = [
        f"{_name(path)}: {ast.unparse(node)}"
        for path in _own_files()
        for node in ast.walk(ast.parse(path.read_text()))
        if _swallows_all(node)
    ]
    assert wrong == []


def _swallows_all(node: ast.AST) -> bool:
    if isinstance(node, ast.ExceptHandler):
        names = {"BaseException"} if node.type is None else set(ast.unparse(node.type).strip("()").split(", "))
        return bool(names & {"Exception", "BaseException"}) and all(isinstance(item, ast.Pass) for item in node.body)
    if isinstance(node, ast.Call) and ast.unparse(node.func) in ("suppress", "contextlib.suppress"):
        return bool({ast.unparse(argument) for argument in node.args} & {"Exception", "BaseException"})
    return False


@pytest.mark.parametrize(
    ("text", "swallows"),
    [
        ("try: f()\nexcept Exception: pass", True),
        ("try: f()\nexcept: pass", True),
        ("try: f()\nexcept (ValueError, BaseException): pass", True),
        ("with contextlib.suppress(Exception): f()", True),
        ("try: f()\nexcept ValueError: pass", False),
        ("try: f()\nexcept Exception as error: print(error)", False),
        ("with suppress(OSError): f()", False),
    ],
)
def test_the_rule_against_swallowing(text: str, swallows: bool) -> None:
    assert any(_swallows_all(node) for node in ast.walk(ast.parse(text))) == swallows


def test_every_module_says_what_it_is_for() -> None:
    wrong = [
        _name(path)
        for path in _own_files()
        if path.stat().st_size and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert wrong == []


def test_no_test_is_skipped() -> None:
    """What cannot run here says so and fails."""
    words = (
        "pytest.mark.skip",
        "pytest.mark.skipif",
        "pytest.mark.xfail",
        "pytest.skip",
        "pytest.xfail",
        "pytest.importorskip",
    )
    wrong = [
        f"{_name(path)}:{node.lineno}: {ast.unparse(node)}"
        for path in _own_files()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in words
    ]
    assert wrong == []
