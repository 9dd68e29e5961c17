"""User code that would end the process, and where it is imported from."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from toys import LinearSaver, grey_images

import effattack
from effattack.cli import main
from effattack.errors import CellError, ExitError, UsageError
from effattack.registry import import_factory
from effattack.registry.borders import staying
from effattack.runs.evaluate import evaluate
from effattack.runs.executors.workers import Workers
from effattack.runs.sweep import Sweep
from effattack.victim import load_victim

ENDINGS = {
    "sys.exit(0)": "called sys.exit(0)",
    "sys.exit('told')": "called sys.exit('told')",
    "exit()": "called sys.exit(None)",
    "os._exit(0)": "called os._exit(0)",
    "os.execve('/x', ['x'], {})": "called os.execve('/x', ['x'], {})",
    "raise GeneratorExit": "raised GeneratorExit",
    "argparse.ArgumentParser().parse_args(['--what'])": "called sys.exit(2)",
}
MODULE = """import argparse, os, sys
import torch
from toys import LinearSaver, grey_images

class Leaving(LinearSaver):
    def forward(self, images):
        {forward}
        return super().forward(images)

class Images:
    def __len__(self): return 4
    def __getitem__(self, index):
        {item}
        return grey_images(4)[index], 0

def build():
    {build}
    return Leaving()

def data():
    {data}
    return Images()

{module}
"""
PLACES = ("module", "build", "data", "item", "forward")


def written(folder: Path, **code: str) -> None:
    (folder / "mine.py").write_text(
        MODULE.format(**{**dict.fromkeys(PLACES, "pass"), **code}), encoding="utf-8"
    )


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("mine", "dependency"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "ending", ["sys.exit(0)", "sys.exit(1)", "os._exit(0)", "os.execv('/bin/true', ['true'])"]
)
def test_no_user_code_ends_a_run(
    place: str, ending: str, project: Path, capsys: pytest.CaptureFixture
) -> None:
    written(project, **{place: ending})
    options = ["--victim", "mine:build", "--data", "mine:data", "--attack", "noise"]
    assert main(["run", *options]) == 3
    told = capsys.readouterr().err
    assert f"called {ending} at mine.py, line " in told
    assert told.startswith("effattack: mine")


@pytest.mark.parametrize("ending", ENDINGS)
def test_whatever_ends_a_process_is_named(ending: str, project: Path) -> None:
    written(project, build=ending)
    with pytest.raises(ExitError) as told:
        load_victim("mine:build")
    assert str(told.value).startswith(f"mine:build {ENDINGS[ending]} at mine.py, line 17: ")


def test_a_factory_that_needs_arguments_is_told_which(project: Path) -> None:
    (project / "mine.py").write_text("def build(model, *, threshold, name=''): ...\n")
    with pytest.raises(UsageError, match=r"^mine:build needs arguments \(model, threshold\)"):
        load_victim("mine:build")


def test_in_the_middle_of_a_cell() -> None:
    class Leaving(LinearSaver):
        calls = 0

        def forward(self, images: Tensor) -> Tensor:
            Leaving.calls += 1
            if Leaving.calls > 40:
                sys.exit(0)
            return super().forward(images)

    with pytest.raises(ExitError, match=r"toy.* called sys.exit\(0\) at test_borders.py"):
        evaluate(Leaving(), grey_images(40), torch.zeros(40).long(), ["Slowdown"], timed=0)


def test_errors_and_interruptions_pass_and_children_end() -> None:
    for error in (KeyboardInterrupt, ValueError):
        with pytest.raises(error), staying("it"):
            raise error
    before = os._exit
    with staying("it"):
        child = os.fork()
        if not child:
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert os._exit is before


def test_an_exit_in_a_fixture_of_the_plugin(pytester: pytest.Pytester) -> None:
    written(pytester.path, build="os._exit(0)")
    pytester.makepyfile("def test_it(effattack_victim): pass")
    result = pytester.runpytest_inprocess("--effattack-victim=mine:build", "-p", "no:hypothesis")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["mine:build called os._exit(0) at mine.py, line 17: *"])


WORKER = """
import ctypes, multiprocessing
from toys import LinearSaver

class Reading(LinearSaver):
    def forward(self, images):
        if multiprocessing.current_process().name == "MainProcess" and {in_worker}:
            {does}
        return super().forward(images)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("does", "told"),
    [
        ("print('{}', flush=True); input()", "EOFError: EOF when reading a line"),
        ("sys.exit(0)", r"called sys.exit\(0\) at mine.py"),
        ("ctypes.CDLL(None)._exit(0)", "its worker ended with exit code 0: "),
        ("ctypes.string_at(0)", r"its worker was lost 3 times \(signal 11\)"),
    ],
)
def test_what_a_victim_does_to_its_worker(does: str, told: str, project: Path) -> None:
    inside = "sys.argv[0].endswith('worker.py')"
    source = "import sys" + WORKER.format(in_worker=inside, does=does)
    (project / "mine.py").write_text(source, encoding="utf-8")
    sweep = Sweep(("mine:Reading",), ("noise",), data="faulty:data", samples=1, timed=0)
    with pytest.raises(CellError, match=told):
        sweep.run("out", Workers(1))


def test_the_module_that_is_asked_for_is_that_of_this_folder(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """What it imports is not: a pandas.py beside it is not pandas."""
    installed = tmp_path_factory.mktemp("installed")
    for folder in (installed, project):
        (folder / "dependency.py").write_text(f"where = {str(folder)!r}\n", encoding="utf-8")
        (folder / "mine.py").write_text(
            f"import dependency\ndef where(): return {str(folder)!r}, dependency.where\n",
            encoding="utf-8",
        )
    sys.path.insert(0, str(installed))
    assert import_factory("mine:where")() == (str(project), str(installed))
    assert sys.path[-1] == str(project)


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["list", "victims"], 0, "digits_vit_ats"),
        pytest.param(
            ["run", "--victim", "nowhere"], 2, "unknown victim 'nowhere'", marks=pytest.mark.slow
        ),
    ],
)
def test_nothing_of_this_folder_is_imported_unasked(
    arguments: list[str], code: int, told: str, project: Path
) -> None:
    for name in ("pandas", "torch", "numpy", "rich", "argparse", "json", "timm"):
        (project / f"{name}.py").write_text("raise SystemExit('imported')\n", encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(Path(effattack.__file__).parents[1])}
    command = [sys.executable, "-m", "effattack", *arguments]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", env=environment)
    assert (done.returncode, told in done.stdout + done.stderr) == (code, True), done.stderr
