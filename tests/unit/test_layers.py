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
    ("doctor", "testing"),
    ("client",),
    ("engine",),
    ("network", "storage", "runtime", "streams"),
    ("store", "lowlevel"),
    ("kernel",),
    ("model",),
    ("undo", "trace", "files"),
    ("errors",),
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


# What of the kernel package may be imported above it: values and bytes. Whatever asks the kernel is a
# call of `Kernel`, so that a fake can answer it; the shim's client sends its frames itself.
BESIDE_THE_DOOR = {
    "Kernel", "LinuxKernel", "Pending", "frame", "Frame", "netlink", "nfnetlink", "pidfd",
    "conntrack.Flow", "interfaces.Address", "interfaces.Link", "interfaces.Route",
    "lib.shim_path", "mount.MS_PRIVATE", "nfnetlink.Message", "operations", "process.ProcessIdentity",
    "process.Recorded", "process.recorded",
}  # fmt: skip
PURE = (
    "frame",
    "netlink",
    "nfnetlink",
    "operations",
)  # anything of these; what asks is named below
ASKS = {
    "netlink": {"open_socket", "get", "dump", "send", "receive", "answer_to"},
    "nfnetlink": {"nft_transaction", "nft_dump", "transact", "dump"},
    "pidfd": {"send_signal", "exit_code", "stat_fields"},
}
IDENTITY = {"lives", "is_ending"}  # methods of a ProcessIdentity that ask
BEHIND_THE_DOOR = ("engine", "network", "storage", "client", "streams")
# unpacking makes thousands of files below one descriptor, with no more rights than it is given
ASKS_ITSELF = {"storage/unpack.py": {"mount.open_in_root"}}


def test_the_kernel_is_asked_through_its_door():
    beside = []
    for module in (m for m in MODULES if part_of(m) in BEHIND_THE_DOOR):
        where = str(module.relative_to(PACKAGE))
        allowed = BESIDE_THE_DOOR | ASKS_ITSELF.get(where, set())
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level and node.module:
                package, _, inner = node.module.partition(".")
                if package != "kernel":
                    continue
                for alias in node.names:
                    name = f"{inner}.{alias.name}".lstrip(".")
                    if alias.name in ASKS.get(inner, ()) or (
                        name not in allowed and inner not in PURE
                    ):
                        beside.append(f"{where} imports {name}")
            elif isinstance(node, ast.Attribute):
                owner = node.value.id if isinstance(node.value, ast.Name) else ""
                module_name = {"nf": "nfnetlink", "pidfds": "pidfd"}.get(owner, owner)
                if node.attr in ASKS.get(module_name, ()) or (
                    node.attr in IDENTITY and owner not in ("engine", "self")
                ):
                    beside.append(f"{where}:{node.lineno} {owner}.{node.attr}")
    assert not beside


def test_a_status_follows_the_table():
    """Nobody sets a status but `State.become`, which knows what may follow what."""
    found = []
    for module in (m for m in MODULES if part_of(m) in ("engine", "client", "cli")):
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Call) and any(k.arg == "status" for k in node.keywords):
                found.append(f"{module.relative_to(PACKAGE)}:{node.lineno}")
    assert not found
