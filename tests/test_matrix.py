"""What ``tox.ini`` runs agrees with what ``pyproject.toml`` declares."""

from __future__ import annotations

import re
import tomllib
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TOX = ConfigParser(interpolation=None)
TOX.read(ROOT / "tox.ini")
MATRIX = "testenv:{py311,py312,py313,py314}-pytest{8,9}"


def test_lowest_is_what_is_declared() -> None:
    pins = TOX["testenv:lowest"]["deps"].split("\n")[2:]
    assert pins == [each.replace(">=", "==") for each in PROJECT["dependencies"]]


def test_the_matrix_begins_at_the_oldest_python_that_is_declared() -> None:
    minors = [int(minor) for minor in re.findall(r"py3(\d+)", MATRIX)]
    assert PROJECT["requires-python"] == f">=3.{minors[0]}"
    assert minors == [*range(minors[0], minors[-1] + 1)]
    claimed = re.findall(r"Python :: 3\.(\d+)", "\n".join(PROJECT["classifiers"]))
    assert {*map(int, claimed)} <= {*minors}
    assert TOX["testenv:lowest"]["base_python"] == f"python3.{minors[0]}"


@pytest.mark.parametrize("environment", [MATRIX, "testenv:lowest"])
def test_the_matrix_runs_tests_that_are_there(environment: str) -> None:
    assert "{[matrix]tests}" in TOX[environment]["commands"]
    assert all((ROOT / path).exists() for path in TOX["matrix"]["tests"].split())


def test_plain_tox_is_one_interpreter() -> None:
    assert TOX["tox"]["env_list"] == "lint, types, py"
