"""Which Python modules the guest needs: everything that can be reached by imports from vminitd, and no more.

The guest's image holds no Python library as a whole. This walks the import statements of the sources,
wherever they stand (a function that imports lazily counts), from the entry module on, and names the file
of each module. It never runs what it reads, so the answer depends on the sources alone.

What must hold: a module that our own packages (vminitd, netlink, ttrpc, api) import by name and that the image would
not have is an error now, not in the guest. Names computed at run time cannot be seen: `contents.EXTRA_MODULES`.
"""

import ast
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

# Modules without a file of their own: another one puts itself into sys.modules under this name.
ALIASES = {"collections.abc": "_collections_abc", "os.path": "posixpath"}


def imported_names(source: bytes, module: str, is_package: bool) -> Iterator[tuple[str, bool]]:
    """Yields the absolute names that the source of `module` imports, with whether each must be a module.

    `from a import b` yields "a" and, as possibly no module but an attribute, "a.b". What stands under
    `if TYPE_CHECKING:` is never run and does not count.
    """
    pending: list[ast.AST] = [ast.parse(source)]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and _is_type_checking(node.test):
            pending.extend(node.orelse)
            continue
        pending.extend(ast.iter_child_nodes(node))
        if isinstance(node, ast.Import):
            yield from ((alias.name, True) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node.module, node.level, module, is_package)
            yield base, True
            yield from ((f"{base}.{alias.name}", False) for alias in node.names if alias.name != "*")


def _is_type_checking(test: ast.expr) -> bool:
    name = test.attr if isinstance(test, ast.Attribute) else test.id if isinstance(test, ast.Name) else ""
    return name == "TYPE_CHECKING"


def _absolute(target: str | None, level: int, module: str, is_package: bool) -> str:
    """Resolves a relative import as the language reference has it: one dot is the package itself."""
    if not level:
        return target or ""
    parts = module.split(".")
    drop = level - 1 if is_package else level
    parts = parts[: len(parts) - drop]
    return ".".join([*parts, target] if target else parts)


def find_module(name: str, roots: Sequence[Path]) -> Path | None:
    """The file of a module below one of the roots: a package's __init__.py, a source or an extension module."""
    relative = Path(*name.split("."))
    for root in roots:
        if (package := root / relative / "__init__.py").is_file():
            return package
        if (source := (root / relative).with_suffix(".py")).is_file():
            return source
        extensions = sorted((root / relative.parent).glob(f"{relative.name}.*.so"))
        if extensions:
            return extensions[0]
    return None


def closure(
    entries: Sequence[str], roots: Sequence[Path], own: frozenset[str], excluded: frozenset[str]
) -> dict[str, Path]:
    """Maps every module that can be reached from `entries` to its file, parents of submodules included.

    `own` names the top-level packages whose imports must all be found. `excluded` names modules that are left
    out with all below them, for imports that nobody but the libraries themselves asks for. Raises
    ModuleNotFoundError for an entry that is not there, and for a module that an own one imports and that is
    not there or excluded.
    """
    found: dict[str, Path] = {}
    pending = [(entry, True, "the image") for entry in entries]
    while pending:
        name, must_exist, importer = pending.pop()
        name = ALIASES.get(name, name)
        if name in found or name.partition(".")[0] in sys.builtin_module_names:
            continue
        path = None if _is_below(name, excluded) else find_module(name, roots)
        if path is None:
            if must_exist and (importer == "the image" or importer.partition(".")[0] in own):
                why = "the image leaves it out" if _is_below(name, excluded) else "it is nowhere"
                raise ModuleNotFoundError(f"{importer} imports {name}: {why}", name=name)
            continue
        found[name] = path
        if "." in name:
            pending.append((name.rpartition(".")[0], False, name))
        if path.suffix == ".py":
            names = imported_names(path.read_bytes(), name, path.name == "__init__.py")
            pending.extend((target, definite, name) for target, definite in names)
    return dict(sorted(found.items()))


def _is_below(name: str, excluded: frozenset[str]) -> bool:
    parts = name.split(".")
    return any(".".join(parts[:end]) in excluded for end in range(1, len(parts) + 1))
