"""Imports point one way, and importing the package is cheap."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import effattack

PACKAGE = Path(effattack.__file__).parent
OUTSIDE = ("models_zoo", "suites")
CORE = sorted(
    path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).parts[0] not in OUTSIDE
)


def imported(path: Path) -> Iterator[str]:
    """Full names of all modules that a file imports, anywhere in it."""
    package = ("effattack", *path.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            anchor = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*anchor, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", CORE, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_core_never_imports_what_builds_on_it(path: Path) -> None:
    assert not [
        name for name in imported(path) if name.removeprefix("effattack.").startswith(OUTSIDE)
    ]


def test_the_core_was_found() -> None:
    names = {str(path.relative_to(PACKAGE)) for path in CORE}
    assert {"victim/contract.py", "attacks/base.py", "counting/macs.py"} <= names


def test_the_zoo_would_be_caught() -> None:
    zoo = next((PACKAGE / "models_zoo").glob("embedded.py"))
    assert "effattack.models_zoo.digits" in set(imported(zoo))


@pytest.mark.parametrize("module", ["effattack", "effattack.pytest_plugin.hooks"])
def test_import_leaves_torch_alone(module: str) -> None:
    code = f"import sys, {module}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_command_line_helps_without_heavy_packages() -> None:
    """They take ten times as long to load as help takes to be printed."""
    code = "import sys; from effattack.cli import parser; parser(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"numpy", "pandas", "pyarrow", "scipy", "torch"} & set(done.stdout.split())


def test_names_load_on_first_use() -> None:
    assert "audit" in dir(effattack)
    assert effattack.Victim.__module__ == "effattack.victim.contract"
    with pytest.raises(AttributeError, match="no attribute 'victims'"):
        effattack.victims  # noqa: B018
