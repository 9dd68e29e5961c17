"""The command line, as a user types it: what it writes, says and returns."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pandas as pd
import pytest
from own_module import written

import effattack.cli as commands
from effattack import __version__, streams
from effattack.budgets import parse_eps
from effattack.cli import main, parser
from effattack.cli.judging import Judge
from effattack.cli.run import next_step
from effattack.cli.sweep_options import DEFAULT_VICTIMS
from effattack.errors import UsageError
from effattack.registry import VICTIMS, entries
from effattack.results.scores import COLUMNS
from effattack.runs import scheduling
from effattack.victim import Victim, load_victim

MODULE = """
import torch
from toys import LinearSaver, grey_images
from effattack import Opaque

def build():
    return LinearSaver()

def data():
    return grey_images(10), torch.arange(10) % 2

def opaque():
    return Opaque(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2)), (1, 4, 4))

def vacuous():
    return LinearSaver(99.0)

def model():
    return torch.nn.Linear(2, 2)

not_callable = 3
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the user's own, with a victim and data in it."""
    return written(tmp_path, monkeypatch, MODULE)


def run(*options: str, attack: str = "Slowdown") -> int:
    return main(
        ["run", "--victim", "mine:build", "--data", "mine:data", "--attack", attack, *options]
    )


def test_a_run_writes_all_it_promises(project: Path, capsys: pytest.CaptureFixture) -> None:
    assert run() == 0
    folder = project / "effattack-report"
    assert list(pd.read_csv(folder / "scores.csv").columns) == COLUMNS
    assert "toy" in (folder / "report.html").read_text()
    assert len(pd.read_parquet(folder / "samples.parquet")) == 40
    printed = capsys.readouterr().out
    for word in ("Slowdown", "noise", "self-checks", "left"):
        assert word in printed
    assert printed.splitlines()[-1].startswith("next: open effattack-report/report.html; in CI ")


def test_no_number_is_cut_off_in_a_log_of_80_columns(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run("--attack", "torchattacks.PGD") == 0
    printed = capsys.readouterr().out
    assert "torchattacks.PGD" in printed
    assert "…" not in printed


def test_the_report_can_be_made_again_from_the_frames(project: Path) -> None:
    assert run("--out", "out") == 0
    report = project / "out" / "report.html"
    before = report.read_text()
    report.unlink()
    assert main(["report", "out"]) == 0
    assert report.read_text() == before


def test_limits_decide_the_exit_code(capsys: pytest.CaptureFixture) -> None:
    assert run("--fail-below", "savings_retained=0.01") == 0
    assert run("--fail-below", "savings_retained=0.99") == 1
    assert "below the limit 0.99: Slowdown at eps 8/255" in capsys.readouterr().out.replace(
        "\n", " "
    )
    assert run("--fail-above", "macs_ratio=1.0001") == 1


def test_what_cannot_be_measured_exits_with_3(capsys: pytest.CaptureFixture) -> None:
    options = ["run", "--victim", "mine:opaque", "--data", "mine:data", "--attack"]
    query = [*options, "QueryAttack(queries=2)"]
    assert main(query) == 0, "of unknown max, judged by its MACs ratio"
    assert main([*query, "--fail-below", "savings_retained=0.5"]) == 3
    assert "could not measure savings_retained" in capsys.readouterr().err
    assert main([*options, "noise"]) == 3
    assert "no attack ran on it inside a budget" in capsys.readouterr().err


@pytest.mark.parametrize("limits", [(), ("--fail-below", "savings_retained=0.5")])
def test_a_victim_that_saves_nothing_is_no_pass(
    limits: tuple[str, ...], capsys: pytest.CaptureFixture
) -> None:
    """Its gates are open on every clean image: 0 of 0 is not 100 %."""
    options = ["--data", "mine:data", "--attack", "Slowdown", *limits]
    assert main(["run", "--victim", "mine:vacuous", *options]) == 3
    told = capsys.readouterr()
    assert "nothing was saved on the clean inputs, so nothing can be retained" in told.err
    assert "could not be measured: nothing was saved" in told.out
    assert "100.0" not in told.out


def test_an_accuracy_attack_inside_the_budget_counts(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The query found nothing, the attack of another kind did: that is the verdict."""
    monkeypatch.setattr("effattack.attacks.Slowdown.kind", "accuracy")
    attacks = ["--attack", "QueryAttack(queries=1)", "--attack", "Slowdown"]
    options = ["run", "--victim", "mine:build", "--data", "mine:data", *attacks]
    assert main([*options, "--fail-below", "savings_retained=0.9"]) == 1
    told = capsys.readouterr().out.replace("\n", " ")
    assert "below the limit 0.9: Slowdown" in told
    assert "verdict at eps 8/255: " in told
    assert "Slowdown found 3 of 10" in told


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--victim", "digits_vit_atz"], "did you mean digits_vit_ats"),
        (["--victim", "nowhere:build"], "cannot import 'nowhere'"),
        (["--victim", "mine:missing"], "has no callable 'missing'"),
        (["--victim", "mine:not_callable"], "has no callable"),
        (["--victim", "mine:model"], "not an effattack.Victim: wrap a model"),
        (["--victim", "mine:build"], "brings no data of its own"),
        (["--victim", "mine:build", "--data", "mine:nothing"], "has no callable 'nothing'"),
        (["--attack", "Slodown"], "did you mean Slowdown"),
        (["--attack", "torchattacks.PDG"], "did you mean PGD"),
        (["--eps", "0"], "eps = 0.0"),
        (["--eps", "nan"], "eps = nan"),
        (["--eps", "much"], "is no number"),
        (["--fail-below", "savings=1"], "unknown score"),
        (["--samples", "0"], "at least one input"),
        (["--timing", "-1"], "seconds of timing = -1.0 is out of range: give 0 or more"),
        (["--seed", "-1"], "seed = -1 is out of range: give 0 or more"),
        (["--seed", str(2**70)], "out of range: give less than 2**63"),
        (["--timing", "nan"], "seconds of timing = nan is out of range"),
        (["--workers", "1", "--timeout", "nan"], "timeout = nan: it must be positive"),
        (["--out", "mine.py/out"], "cannot write to"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(
    options: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    if "--victim" not in options:
        options = ["--victim", "mine:build", "--data", "mine:data", *options]
    assert main(["run", *options]) == 2
    error = capsys.readouterr().err.replace("\n", " ")
    assert error.startswith("effattack: ")
    assert message in error
    assert "Traceback" not in error


OPTIONS = ("compare", "save", "data", "victim", "attack", "out", "device", "fit-data", "baselines")


@pytest.mark.parametrize("option", [*OPTIONS, "eps", "samples", "timing", "fail-below", "ray"])
def test_an_empty_option_is_no_option(option: str, capsys: pytest.CaptureFixture) -> None:
    """As an unset variable leaves it."""
    for value in ("", " "):
        with pytest.raises(SystemExit, match="2"):
            run(f"--{option}", value)
        assert f"argument --{option}: it is empty" in capsys.readouterr().err


def test_the_version_is_said(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"effattack {__version__}\n"


def test_an_empty_argument_is_none(capsys: pytest.CaptureFixture) -> None:
    for command in ("run", "report", "summary", "scoreboard"):
        with pytest.raises(SystemExit, match="2"):
            main([command, ""])
        assert "it is empty" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["report.html", "scores.csv", "samples.parquet", "meta.json"])
def test_what_is_in_the_way_of_results_is_told_before_there_are_any(
    name: str, capsys: pytest.CaptureFixture
) -> None:
    Path("out", name).mkdir(parents=True)
    assert run("--out", "out") == 2
    assert f"cannot write out/{name} (a folder is there)" in capsys.readouterr().err
    assert not [*Path("out", "cells").glob("*.parquet")]


def test_cuda_where_there_is_none(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert run("--device", "cuda") == 2
    assert "no CUDA device here" in capsys.readouterr().err


def test_an_interruption_says_how_to_go_on(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(scheduling, "_run", interrupt)
    assert run() == 130
    assert "the same command resumes" in capsys.readouterr().err


def test_json_is_all_that_is_printed(capsys: pytest.CaptureFixture) -> None:
    assert run("--json", "--fail-below", "savings_retained=0.99") == 1
    found = json.loads(capsys.readouterr().out)
    assert {row["attack"] for row in found["scores"]} == {
        *("clean", "noise", "uniform", "Slowdown", "union")
    }
    assert [limit["passed"] for limit in found["limits"]] == [False]
    assert main(["report", "--json", "effattack-report"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["scores"], again["limits"]) == (found["scores"], [])


def test_quiet_says_only_what_went_wrong(capsys: pytest.CaptureFixture) -> None:
    assert run("--quiet", "--fail-below", "savings_retained=-1") == 0
    assert capsys.readouterr().out == ""
    assert run("--quiet", "--fail-below", "savings_retained=0.99") == 1
    told = capsys.readouterr().out
    assert told.count("\n") == 1
    assert "below the limit 0.99" in told


def test_a_baseline_decides_the_exit_code(project: Path, capsys: pytest.CaptureFixture) -> None:
    assert run("--save", "v1") == 0
    capsys.readouterr()
    assert run("--compare", "v1") == 0
    assert " scores compared, no worse than v1\n" in capsys.readouterr().out
    assert run("--compare", "v2") == 2
    assert "v2.json (No such file or directory): there are v1" in capsys.readouterr().err
    stored = project / "effattack-baselines" / "v1.json"
    stored.write_text(stored.read_text()[:99])
    assert run("--compare", "v1") == 2
    assert "damaged or cut off" in capsys.readouterr().err


def test_a_factory_that_raises_is_told_once_under_our_line(
    project: Path, capsys: pytest.CaptureFixture
) -> None:
    (project / "mine.py").write_text("def build():\n    raise ValueError('no weights here')\n")
    assert run() == 2
    told = capsys.readouterr().err
    assert told.startswith("effattack: mine:build raised ValueError: no weights here")
    assert told.count("Traceback") == 1


@pytest.mark.parametrize("command", commands.COMMANDS)
def test_help_has_examples_and_exit_codes(command: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    told = capsys.readouterr().out
    assert f"  effattack {command}" in told or f"effattack {command} bash" in told
    assert "exit codes: 0 passed" in told


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["su"], ["summary"]),
        (["run", "--qu"], ["--quiet"]),
        (["run", "--victim", "digits_vit_ad"], ["digits_vit_adavit"]),
        (["run", "--device", ""], ["cpu", "cuda"]),
        (["run", "--data", ""], []),
        (["report", ""], []),
        (["report", "--fi"], ["--figures"]),
        (["list", "vi"], ["victims"]),
        (["export", "digits_vit_ad"], ["digits_vit_adavit"]),
        (["export", "--on"], ["--onnx"]),
    ],
)
def test_bash_completes(
    typed: list[str], offered: list[str], capsys: pytest.CaptureFixture
) -> None:
    assert main(["completion", "bash"]) == 0
    words = " ".join(f"'{word}'" for word in ["effattack", *typed])
    script = f"{capsys.readouterr().out}\nCOMP_WORDS=({words}); COMP_CWORD={len(typed)}; _effattack"
    script += '; echo "${COMPREPLY[@]}"'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == offered


def test_zsh_completes(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """In a real shell, whose ``effattack`` says what was typed once tabs have completed it."""
    if not shutil.which("zsh"):
        pytest.skip("zsh is not installed")
    assert main(["completion", "zsh"]) == 0
    told = 'effattack() { print -r -- "<$*>" }\nPS1="ready> "\n'
    (tmp_path / ".zshrc").write_text(capsys.readouterr().out + told)
    (tmp_path / "images").mkdir()
    terminal, end = pty.openpty()
    environment = {**os.environ, "ZDOTDIR": str(tmp_path), "TERM": "dumb"}
    ends = dict.fromkeys(("stdin", "stdout", "stderr"), end)
    shell = subprocess.Popen(
        ["zsh", "-i"], cwd=tmp_path, env=environment, start_new_session=True, **ends
    )

    def shows(text: str) -> bool:
        """Whether the terminal shows it before it has been silent for a minute."""
        seen = ""
        while text not in seen and select.select([terminal], [], [], 60)[0]:
            seen += os.read(terminal, 1024).decode(errors="replace")
        return text in seen

    try:
        assert shows("ready> ")
        os.write(terminal, b"effattack ru\t--vi\tdigits_vit_ad\t--dev\tcu\t--data im\t\r")
        assert shows("<run --victim digits_vit_adavit --device cuda --data images>")
    finally:
        shell.kill()
        shell.wait()
        os.close(terminal)
        os.close(end)


def test_lists_and_doctor(capsys: pytest.CaptureFixture) -> None:
    assert main(["list", "victims"]) == 0
    assert main(["list", "attacks"]) == 0
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    for word in ("digits_vit_ats", "Slowdown", "torchattacks.PGD", "torch", "rapl"):
        assert word in printed


def test_calibration_writes_its_table_and_every_trial(
    project: Path, capsys: pytest.CaptureFixture
) -> None:
    options = ["--victim", "mine:build", "--data", "mine:data", "--trials", "1", "--load", "1"]
    options += ["--seconds", "0.01", "--slowdown", "0", "--slowdown", "900", "--images", "6"]
    assert main(["calibrate", *options, "--out", "tables/power.md"]) == 0
    table = (project / "tables" / "power.md").read_text()
    assert table.strip() in capsys.readouterr().out
    for text in ("| 900% | ABBA | 1 |", "| 0% | sequential | 1 |", "beside 1 busy", "Smallest"):
        assert text in table
    trials = pd.read_csv(project / "tables" / "power.csv")
    assert trials.slowdown.tolist() == [0, 0, 9, 9]
    assert main(["calibrate", *options, "--seconds", "0"]) == 2
    assert "1 trials of 0.0 s" in capsys.readouterr().err


def test_the_defaults_are_registered() -> None:
    assert set(DEFAULT_VICTIMS) <= set(entries(VICTIMS))
    for name in DEFAULT_VICTIMS[:1]:
        assert isinstance(load_victim(name), Victim)


def test_a_default_victim_without_its_package_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """As in an environment without extras: ``effattack run`` scores the others, and says so."""
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    assert main(["run", "--dry-run", "--samples", "2", "--attack", "noise"]) == 0
    told = capsys.readouterr().out
    assert "digits_vit_int8 is left out: this quantized victim needs torchao" in told
    assert "pip install '.[quant]' in a clone of effattack" in told
    assert main(["run", "--dry-run", "--victim", "digits_vit_int8"]) == 2


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        ([], 0, "in CI --fail-below savings_retained=0.6"),
        (["--fail-below", "accuracy=0.5"], 0, "--save NAME keeps these scores"),
        (["--fail-below", "accuracy=0.5"], 1, "docs/red.md leads from red to green"),
        (["--save", "v1", "--fail-below", "accuracy=0.5"], 0, "later, --compare v1"),
    ],
)
def test_the_last_line_says_what_to_do_next(given: list[str], code: int, said: str) -> None:
    options = parser().parse_args(["run", *given])
    assert next_step(options, Judge.of(options), code) == said
    assert len(f"next: open {options.out / 'report.html'}; {said}") <= 80


def test_a_warning_is_one_line_and_told_once() -> None:
    with streams.safe():
        assert warnings.formatwarning("mine: rounded", UserWarning, "f.py", 3, "x = 1") == (
            "effattack: mine: rounded\n"
        )
        assert warnings.formatwarning("mine: rounded", UserWarning, "g.py", 7) == ""
    assert "x = 1" in warnings.formatwarning("mine: rounded", UserWarning, "f.py", 3, "x = 1")


def test_a_damaged_weight_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from effattack.models_zoo import files

    for suffix in ("safetensors", "sha256"):
        shutil.copy(files.WEIGHTS / f"digits_vit.{suffix}", tmp_path)
    file = tmp_path / "digits_vit.safetensors"
    weights = bytearray(file.read_bytes())
    weights[-1] ^= 1
    file.write_bytes(weights)
    monkeypatch.setattr(files, "WEIGHTS", tmp_path)
    with pytest.raises(UsageError, match=r"digits_vit.safetensors cannot be read .* damaged"):
        load_victim("digits_vit_ats")


@pytest.mark.parametrize(("text", "eps"), [("8/255", 8 / 255), ("0.03", 0.03), ("1", 1.0)])
def test_budgets_as_they_are_written(text: str, eps: float) -> None:
    assert parse_eps(text) == eps


def test_what_resumes_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("effattack.cli.run.run", interrupted)
    monkeypatch.setattr("effattack.cli.doctor.run", interrupted)
    monkeypatch.setattr("effattack.cli.harden.run", interrupted)
    assert main(["run"]) == main(["doctor"]) == 130
    assert main(["harden", "NAME", "--data", "D", "--threat", "4/255", "--out", "O"]) == 130
    run, doctor, harden = capsys.readouterr().err.splitlines()
    assert harden == "effattack: interrupted; the same command resumes after the finished epochs"
    assert run == "effattack: interrupted; the same command resumes after the finished cells"
    assert doctor == "effattack: interrupted"


@pytest.mark.slow
def test_a_replay_judges_behind_the_steps_that_were_attacked(
    capsys: pytest.CaptureFixture,
) -> None:
    asked = ("--victim", "digits_cnn_early_exit", "--through", "resize(40),center_crop(32)")
    attack = ("--attack", "Slowdown(steps=2)", "--samples", "4", "--corpus-mb", "1")
    assert main(["run", *asked, *attack, "--out", "out"]) == 0
    capsys.readouterr()
    assert main(["run", *asked, "--replay", "out/corpus"]) == 0
    assert "replayed, not attacked" in capsys.readouterr().out
    assert main(["run", *asked[:2], "--replay", "out/corpus"]) == 2, "the steps are missing"
