"""Which modules go into the guest's image: what vminitd reaches by imports, no more, and never too little unsaid."""

from pathlib import Path

import pytest

from initrd.closure import closure, find_module, imported_names

OWN = frozenset({"app"})
NOTHING: frozenset[str] = frozenset()


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def names(source: str, module: str = "pkg.mod", is_package: bool = False) -> set[str]:
    return {name for name, _ in imported_names(source.encode(), module, is_package)}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import a.b, c", {"a.b", "c"}),
        ("from a import b as x, c", {"a", "a.b", "a.c"}),
        ("from a import *", {"a"}),
        ("def f():\n    import late", {"late"}),
        ("try:\n    import fast\nexcept ImportError:\n    import slow", {"fast", "slow"}),
        ("if TYPE_CHECKING:\n    import never\nelse:\n    import really", {"really"}),
        ("import typing\nif typing.TYPE_CHECKING:\n    import never", {"typing"}),
        ("from . import sibling", {"pkg", "pkg.sibling"}),
        ("from .sibling import x", {"pkg.sibling", "pkg.sibling.x"}),
        ("from ..other import x", {"other", "other.x"}),
    ],
)
def test_every_form_of_import_is_seen(source: str, expected: set[str]) -> None:
    assert names(source) == expected


def test_one_dot_in_a_package_is_the_package_itself() -> None:
    assert names("from . import part", module="pkg", is_package=True) == {"pkg", "pkg.part"}


def test_whether_a_name_must_be_a_module() -> None:
    assert dict(imported_names(b"from a import b", "m", False)) == {"a": True, "a.b": False}


def test_packages_sources_and_extension_modules_are_found(tmp_path: Path) -> None:
    root = tree(tmp_path, {"p/__init__.py": "", "s.py": "", "p/c.cpython-313-x86_64-linux-gnu.so": ""})
    assert find_module("p", [root]) == root / "p/__init__.py"
    assert find_module("s", [root]) == root / "s.py"
    assert find_module("p.c", [root]) == root / "p/c.cpython-313-x86_64-linux-gnu.so"
    assert find_module("nowhere", [root]) is None


def test_the_first_root_wins(tmp_path: Path) -> None:
    first, second = tree(tmp_path / "1", {"m.py": ""}), tree(tmp_path / "2", {"m.py": ""})
    assert find_module("m", [first, second]) == first / "m.py"


def test_what_is_reached_goes_in_with_its_parents_and_nothing_else(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "app/__init__.py": "",
            "app/main.py": "from lib import deep\nfrom lib.deep import CONSTANT\n",
            "lib/__init__.py": "",
            "lib/deep/__init__.py": "from . import leaf\n",
            "lib/deep/leaf.py": "",
            "lib/unused.py": "",
        },
    )
    assert list(closure(["app.main"], [root], OWN, NOTHING)) == ["app", "app.main", "lib", "lib.deep", "lib.deep.leaf"]


def test_imports_in_a_circle_end(tmp_path: Path) -> None:
    root = tree(tmp_path, {"app/__init__.py": "import b", "b.py": "import app"})
    assert list(closure(["app"], [root], OWN, NOTHING)) == ["app", "b"]


def test_what_a_library_alone_asks_for_can_be_left_out(tmp_path: Path) -> None:
    root = tree(tmp_path, {"app/__init__.py": "import lib", "lib.py": "import test.support", "test/support.py": ""})
    assert list(closure(["app"], [root], OWN, frozenset({"test"}))) == ["app", "lib"]


def test_a_library_may_look_for_what_is_not_there(tmp_path: Path) -> None:
    root = tree(tmp_path, {"app/__init__.py": "import lib", "lib.py": "try:\n import winreg\nexcept ImportError: pass"})
    assert list(closure(["app"], [root], OWN, NOTHING)) == ["app", "lib"]


@pytest.mark.parametrize(
    ("source", "excluded", "message"),
    [
        ("import left_out", frozenset({"left_out"}), "app imports left_out: the image leaves it out"),
        ("import absent", NOTHING, "app imports absent: it is nowhere"),
        ("from app import part\nimport app.part", NOTHING, "app imports app.part: it is nowhere"),
    ],
)
def test_our_own_code_cannot_import_what_the_image_will_not_have(
    tmp_path: Path, source: str, excluded: frozenset[str], message: str
) -> None:
    root = tree(tmp_path, {"app/__init__.py": source, "left_out.py": ""})
    with pytest.raises(ModuleNotFoundError, match=message):
        closure(["app"], [root], OWN, excluded)


def test_an_entry_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ModuleNotFoundError, match=r"the image imports app\.main: it is nowhere"):
        closure(["app.main"], [tmp_path], OWN, NOTHING)


def test_modules_without_a_file_of_their_own(tmp_path: Path) -> None:
    root = tree(tmp_path, {"app/__init__.py": "import sys\nimport os.path", "posixpath.py": "", "os.py": ""})
    assert list(closure(["app"], [root], OWN, NOTHING)) == ["app", "posixpath"]
