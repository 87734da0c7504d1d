"""Imports point down only: the picture in docs/architecture.md, proved from the source."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "pynetns"

# From the top down; packages on one line never import each other.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("__main__",),
    ("cli",),
    ("doctor",),
    ("client",),
    ("engine",),
    ("network", "storage", "runtime", "streams"),
    ("store", "lowlevel"),
    ("kernel",),
    ("model",),
    ("undo", "trace", "files"),
    ("locks",),
    ("forks", "errors"),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")


def part_of(module: Path) -> str:
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_parts(module: Path) -> set[str]:
    """The parts of the package that a module imports, anywhere in its text."""
    found = set()
    here = ["pynetns", *module.relative_to(PACKAGE).parent.parts]
    for node in ast.walk(ast.parse(module.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            prefix = ".".join([*base, *(node.module or "").split(".")]).strip(".")
            names = [f"{prefix}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "pynetns" and len(parts) > 1:
                found.add(parts[1])
    return found


def test_every_part_has_a_place():
    assert {part_of(m) for m in MODULES} <= set(LEVEL)


@pytest.mark.parametrize("module", MODULES, ids=lambda m: str(m.relative_to(PACKAGE)))
def test_imports_point_down(module):
    mine = part_of(module)
    for other in imported_parts(module) - {mine, "__version__", "_core"}:
        if other in LEVEL:
            assert LEVEL[other] > LEVEL[mine], f"{mine} imports {other}"


def module_name(module: Path) -> str:
    parts = list(module.relative_to(PACKAGE.parent).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {module_name(m) for m in [*MODULES, PACKAGE / "__init__.py"]}


def imported_modules(module: Path) -> set[str]:
    """The modules of the package that a module imports by name, also for types only."""
    found = set()
    here = list(module.relative_to(PACKAGE.parent).parent.parts)
    for node in ast.walk(ast.parse(module.read_text())):
        if not isinstance(node, ast.ImportFrom):
            continue
        base = here[: len(here) - node.level + 1] if node.level else []
        source = ".".join([*base, *filter(None, [node.module])])
        for alias in node.names:
            inner = f"{source}.{alias.name}"
            found.add(inner if inner in NAMES else source)
    return (found & NAMES) - {module_name(module)}


def find_circle(imports: dict[str, set[str]]) -> list[str]:
    """The modules that are left when whatever imports none of the others has been taken away."""
    left = dict(imports)
    while free := [name for name, used in left.items() if not used & left.keys()]:
        for name in free:
            del left[name]
    return sorted(left)


def test_no_circle_of_modules():
    assert find_circle({module_name(m): imported_modules(m) for m in MODULES}) == []


def test_a_circle_would_be_found():
    assert find_circle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["a", "b", "c"]


@pytest.mark.parametrize("module", MODULES, ids=lambda m: str(m.relative_to(PACKAGE)))
def test_no_import_is_hidden_in_a_function(module):
    """But for the command line, where a verb must not pay for what another one needs, and doctor,
    which tries what can be imported."""
    if part_of(module) in ("cli", "doctor", "__main__"):
        return
    hidden = [
        f"line {node.lineno}"
        for function in ast.walk(ast.parse(module.read_text()))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert not hidden


def test_the_compiled_module_has_one_importer():
    importers = {str(m.relative_to(PACKAGE)) for m in MODULES if "_core" in imported_parts(m)}
    assert importers == {"kernel/lib.py"}


@pytest.mark.parametrize("module", MODULES, ids=lambda m: str(m.relative_to(PACKAGE)))
def test_files_say_what_they_own_and_stay_short(module):
    text = module.read_text()
    assert ast.get_docstring(ast.parse(text)), "the first lines say what the file owns"
    assert text.count("\n") <= 400
