"""The house: which rooms there are, and that each imports only rooms below it.

A room is a folder of the package, or a module at its top; one that only forwards old import paths
is none. Its floor is the longest chain of imports below it. ``pytest -s tests/test_rooms.py``
prints both.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import effattack
from effattack.moved import MOVED

PACKAGE = Path(effattack.__file__).parent
MOST_ROOMS, MOST_FLOORS = 24, 12
ORDER = [
    ["__main__", "suites"],
    ["cli", "pytest_plugin"],
    ["reporting"],
    ["models_zoo"],
    ["runs"],
    ["hardening", "certify"],
    ["cells"],
    ["attacks"],
    ["results"],
    ["threats", "measure"],
    ["inputs"],
    ["victim"],
    ["counting"],
    ["tasks"],
    ["domains"],
    ["registry"],
    ["budgets", "streams"],
    ["errors"],
    ["__init__"],
    ["moved"],
]
"""From the top of the house to its ground; what stands in one row does not import each other."""
TORCH_FREE = {
    *("__init__", "budgets", "errors", "moved", "registry.__init__", "registry.borders", "streams")
}


def modules() -> dict[str, Path]:
    """Every module of the package, by its name below it."""
    found = {}
    for folder, _, files in os.walk(PACKAGE, followlinks=True):
        for path in (Path(folder) / name for name in files if name.endswith(".py")):
            parts = path.relative_to(PACKAGE).with_suffix("").parts
            if "shims" not in parts:
                found[".".join(parts)] = path
    return dict(sorted(found.items()))


def named(dotted: str, known: dict[str, Path]) -> str | None:
    """The module of a dotted name below the package: itself, or the package that holds the name."""
    for name in (dotted, f"{dotted}.__init__".removeprefix(".")):
        if name in known:
            return name
    return named(dotted.rpartition(".")[0], known) if dotted else None


@cache
def imports() -> dict[str, set[str]]:
    """Module -> modules that it imports, anywhere in it."""
    known = modules()
    return {
        name: {found for dotted in dotted_imports(path) if (found := named(dotted, known))} - {name}
        for name, path in known.items()
    }


def dotted_imports(path: Path) -> Iterator[str]:
    """Below the package; relative ones are not used here."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} imports relatively"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] == "effattack":
                yield name.partition(".")[2]


def room(module: str) -> str:
    return module.split(".")[0]


def arrows() -> dict[str, set[str]]:
    """Room -> rooms that it imports."""
    found: dict[str, set[str]] = {room(name): set() for name in modules()}
    for module, others in imports().items():
        found[room(module)] |= {room(other) for other in others} - {room(module)}
    return found


def floors(graph: dict[str, set[str]]) -> dict[str, int]:
    floor: dict[str, int] = {}
    for name in TopologicalSorter(graph).static_order():
        floor[name] = 1 + max((floor[other] for other in graph[name]), default=0)
    return floor


def test_every_room_imports_only_rooms_below_it() -> None:
    height = {name: -row for row, names in enumerate(ORDER) for name in names}
    upwards = [
        f"{module} imports {other}"
        for module, others in sorted(imports().items())
        for other in sorted(others)
        if room(module) != room(other) and height[room(other)] >= height[room(module)]
    ]
    assert not upwards


def test_no_module_imports_itself_by_way_of_others() -> None:
    TopologicalSorter(imports()).prepare()


def test_the_house_stays_small() -> None:
    floor = floors(arrows())
    del floor["moved"]
    for name in sorted(floor, key=lambda name: (-floor[name], name)):
        print(f"{floor[name]:3} {name}")
    print(f"{len(floor)} rooms on {max(floor.values())} floors")
    assert len(floor) <= MOST_ROOMS
    assert max(floor.values()) <= MOST_FLOORS


def test_the_leaves_are_free_of_torch() -> None:
    for name in TORCH_FREE:
        tree = ast.parse(modules()[name].read_text(encoding="utf-8"))
        direct = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                direct |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                direct.add(node.module.split(".")[0])
        assert not {"torch", "numpy", "pandas"} & direct, name
        assert all(other in TORCH_FREE for other in imports()[name]), name


def test_rooms_that_are_planned_are_in_the_order() -> None:
    assert {room(name) for name in modules()} <= {name for row in ORDER for name in row}


def test_old_paths_lead_to_modules_that_exist() -> None:
    known = modules()
    missing = [
        f"{old} -> {new}"
        for old, places in MOVED.items()
        for new in places
        if new not in known and f"{new}.__init__" not in known
    ]
    assert not missing
    assert not [old for old in MOVED if old in known or f"{old}.__init__" in known]


def test_the_order_would_catch_a_circle() -> None:
    with pytest.raises(CycleError):
        floors({"a": {"b"}, "b": {"a"}})
