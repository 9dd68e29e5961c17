"""What ``tox.ini`` runs agrees with what ``pyproject.toml`` declares."""

from __future__ import annotations

import re
import tomllib
from configparser import ConfigParser
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TOX = ConfigParser(interpolation=None)
TOX.read(ROOT / "tox.ini")
MATRIX = "testenv:{,py311-,py312-,py313-,py314-}pytest{8,9}"
MINORS = [int(minor) for minor in re.findall(r"py3(\d+)", MATRIX)]


def test_lowest_is_what_is_declared() -> None:
    pins = TOX["testenv:lowest"]["deps"].split("\n")[2:]
    assert pins == [each.replace(">=", "==") for each in PROJECT["dependencies"]]


def test_the_matrix_begins_at_the_oldest_python_that_is_declared() -> None:
    assert PROJECT["requires-python"] == f">=3.{MINORS[0]}"
    assert [*range(MINORS[0], MINORS[-1] + 1)] == MINORS
    claimed = re.findall(r"Python :: 3\.(\d+)", "\n".join(PROJECT["classifiers"]))
    assert {*map(int, claimed)} <= {*MINORS}
    assert TOX["testenv:lowest"]["base_python"] == f"python3.{MINORS[0]}"


@pytest.mark.parametrize("environment", [MATRIX, "testenv:lowest"])
def test_the_matrix_runs_tests_that_are_there(environment: str) -> None:
    assert "{[matrix]tests}" in TOX[environment]["commands"]
    assert all((ROOT / path).exists() for path in TOX["matrix"]["tests"].split())


def test_plain_tox_is_one_interpreter() -> None:
    assert TOX["tox"]["env_list"] == "lint, types, py"


def test_ci_runs_the_matrix() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    matrix = workflow["jobs"]["matrix"]["strategy"]["matrix"]
    assert [int(python.partition(".")[2]) for python in matrix["python"]] == MINORS
    asked = {*matrix["environment"], *(one["environment"] for one in matrix["include"])}
    assert asked == {"pytest8", "pytest9", "lowest", "torch28", "coverage"}
