"""The recipes of ``docs/ci``: their steps run as they stand, as far as that needs no service.

A step is checked by bash, and its commands run in this process.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from xml.etree import ElementTree

import pytest
from projects import QUICK

from effattack.cells import by_name
from effattack.cli import main

yaml = pytest.importorskip("yaml")

DOCS = Path(__file__).parent.parent / "docs"
MODELS = """
from toys import LinearSaver, grey_images

def build():
    return LinearSaver(seed=1)

def data():
    images = grey_images(24)
    return images, LinearSaver(seed=1)(images).argmax(1)
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A user's project."""
    pytester.mkpydir("mypackage")
    (pytester.path / "mypackage" / "models.py").write_text(MODELS)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "step-summary.md")
    monkeypatch.setattr("sys.path", [str(pytester.path), *sys.path])
    for name in ("mypackage", "mypackage.models"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return pytester


def play(project: pytest.Pytester, script: str, *extra: str) -> tuple[int, str]:
    """Run the lines of a script until one fails; exit code and what it printed."""
    subprocess.run(["bash", "-n", "-c", script], check=True)
    code, told = 0, ""
    for line in script.replace("\\\n", " ").strip().splitlines():
        words = shlex.split(os.path.expandvars(line))
        target = words[words.index(">>" if ">>" in words else ">") + 1] if ">" in line else ""
        words = [word for word in words if word not in (">", ">>", target)]
        if words[0] == "pytest":
            result = project.runpytest_inprocess(*QUICK, *words[1:], *extra)
            code, told = int(result.ret), str(result.stdout)
        elif words[0] == "effattack":
            with redirect_stdout(StringIO()) as printed:
                code = main(words[1:])
            told = printed.getvalue()
        else:
            assert words[0] == "cat"
            told = Path(words[1]).read_text()
        if target:
            with open(target, "a") as file:
                file.write(told)
        if code:
            break
    return code, told


def steps(recipe: str, job: str) -> dict[str, str]:
    """Name -> script of the steps of a GitHub workflow that run a script."""
    workflow = yaml.safe_load((DOCS / "ci" / recipe).read_text())
    found = {step["name"]: step["run"] for step in workflow["jobs"][job]["steps"] if "run" in step}
    return found


def test_github_goes_red_and_explains_itself(project: pytest.Pytester) -> None:
    script = steps("github.yml", "effattack")
    assert set(script) == {"install", "test", "summary"}
    code, told = play(project, script["test"], "-k", "TestCascades and limit")
    assert code == 1
    assert "toy: savings retained is 0.158, below the limit 0.6: Slowdown" in told
    assert play(project, script["summary"])[0] == 0
    told = (project.path / "step-summary.md").read_text()
    assert "| `toy` | **16" in told
    assert "<details><summary>All scores" in told
    assert len(told.encode()) < 1024**2
    assert (project.path / "summary.md").read_text() == told
    assert (project.path / "effattack-report" / "report.html").exists()
    replayed = steps("github.yml", "replay")["replay"]
    code, told = play(project, replayed, "-k", "TestCascades and limit")
    assert code == 1
    assert "toy: savings retained is 0.158, below the limit 0.6: replayed" in told
    assert "replayed, not attacked" in told


def test_gitlab_gets_a_junit_file(project: pytest.Pytester) -> None:
    job = yaml.safe_load((DOCS / "ci" / "gitlab.yml").read_text())["effattack"]
    assert play(project, job["script"][0], "-k", "TestCascades and limit")[0] == 1
    found = ElementTree.parse(project.path / job["artifacts"]["reports"]["junit"])
    assert found.find(".//failure") is not None
    names = {node.get("name") for node in found.iterfind(".//property")}
    assert "effattack.toy.savings_retained" in names


def test_the_release_gate_holds_what_was_there(project: pytest.Pytester) -> None:
    script = steps("release.yml", "gate")
    gate = script["gate"].replace("--quiet", "--quiet --attack Slowdown")
    assert play(project, gate.replace("--compare", "--save"))[0] == 0
    assert play(project, gate) == (0, "")
    models = project.path / "mypackage" / "models.py"
    models.write_text(MODELS.replace("return LinearSaver(", "return LinearSaver(4.0, "))
    del sys.modules["mypackage.models"]
    by_name._kept.clear()  # as in a process of its own
    code, told = play(project, gate)
    assert code == 1
    assert re.search(r"worse than release: toy under clean: macs .* \(interval ×", told)
    assert play(project, script["card"])[0] == 0
    assert "## Robustness of efficiency" in (project.path / "step-summary.md").read_text()
