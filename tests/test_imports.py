"""The map of the design, executed: imports go one way, the few doors stay the only ones, `__all__` is true."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = "synccontrol"
LAYERS = (
    {"errors"},
    {"spec"},
    {"io"},
    {"canvas"},
    {"sampling"},
    {"families"},
    {"models"},
    {"pipeline"},
    {"batch", "evaluate"},
    {"cli"},
    {"studio"},
    {"__main__"},
)
LEVEL = {module: level for level, modules in enumerate(LAYERS) for module in modules}
LONGEST_FUNCTION = 50  # lines
MOST_AT_THE_TOP, MOST_MODULES = 6, 150
MOST_PARAMETERS = 7
CONTRACT = {"Montage", "SamplingConfig", "SyncConfig", "WindowConfig"}


def sources(folder: str) -> list[Path]:
    """Returns the Python files of a package of the repository."""
    return sorted((ROOT / folder).rglob("*.py"))


def dotted(path: Path) -> str:
    """Returns the import name of a file of the repository."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[str]:
    """Yields the dotted names that a file imports, inside functions too: `from a import b` gives a.b."""
    package = dotted(path).split(".")
    package = package if path.name == "__init__.py" else package[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def module_of(name: str) -> str | None:
    """Returns which entry of the design's map a dotted name of the package belongs to; none for other packages."""
    parts = name.split(".")
    if parts[-1] == "__main__":
        return "__main__"
    return parts[1] if parts[0] == PACKAGE and len(parts) > 1 else None


MODULES = [path for path in sources(PACKAGE) if path.parent != ROOT / PACKAGE or path.name != "__init__.py"]


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_imports_go_one_way(path: Path) -> None:
    own = module_of(dotted(path))
    assert own in LEVEL, f"{dotted(path)} has no place in LAYERS: give it one"
    for name in imports(path):
        other = module_of(name)
        if other in LEVEL and other != own:
            assert LEVEL[other] < LEVEL[own], f"{dotted(path)} imports {name}, which stands beside or above it"


@pytest.mark.parametrize("path", sources(f"{PACKAGE}/families"), ids=dotted)
def test_families_never_import_each_other(path: Path) -> None:
    modules = sources(f"{PACKAGE}/families")
    families = {dotted(module) for module in modules if "\nPIPELINES = " in module.read_text(encoding="utf-8")}
    others = families - {dotted(path)} if dotted(path) in families else set()
    assert not [name for name in imports(path) if any(name.startswith(other) for other in others)]


@pytest.mark.parametrize("path", sources("preprocess"), ids=dotted)
def test_preprocess_stands_alone(path: Path) -> None:
    own = (f"{PACKAGE}.preprocess", f"{PACKAGE}.preprocess.")
    assert not [name for name in imports(path) if name.split(".")[0] == PACKAGE and not (name + ".").startswith(own[1])]


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_the_doors_are_the_only_ones(path: Path) -> None:
    own = dotted(path)
    text = path.read_text(encoding="utf-8")
    if own != "synccontrol.sampling.sync":
        assert "autograd.grad" not in text and ".backward(" not in text, "only sync.py takes gradients"
    for name in imports(path):
        if name.startswith(("diffusers.schedulers", "diffusers.")) and "cheduler" in name:
            assert own == "synccontrol.sampling.schedulers", "only schedulers.py knows diffusers' schedulers"


def test_the_contract_is_exported() -> None:
    package = importlib.import_module(PACKAGE)
    assert set(package.__all__) >= CONTRACT
    assert list(package.__all__) == sorted(package.__all__)


@pytest.mark.parametrize("name", [PACKAGE, "preprocess"])
def test_all_is_true(name: str) -> None:
    package = importlib.import_module(name)
    assert all(hasattr(package, exported) for exported in package.__all__)


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_functions_of_the_algorithm_fit_on_a_screen(path: Path) -> None:
    if module_of(dotted(path)) not in ("canvas", "sampling", "families"):
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            given = [argument for argument in arguments if argument.arg not in ("self", "cls")]
            assert len(given) <= MOST_PARAMETERS, node.name
            assert node.end_lineno is not None and node.end_lineno - node.lineno < LONGEST_FUNCTION, node.name


def test_few_files_at_the_top_and_few_modules() -> None:
    assert len([path for path in (ROOT / PACKAGE).iterdir() if path.is_file()]) <= MOST_AT_THE_TOP
    assert len(sources(PACKAGE)) + len(sources("preprocess")) <= MOST_MODULES
