"""A victim that breaks the contract is not attacked, however it is scored; the others are."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from faulty import TOY, WrongSign
from projects import DATA, Run, project
from torch import Tensor
from toys import LinearSaver, grey_images

from effattack import evaluate
from effattack.attacks.base import Attack
from effattack.cells.store import Store
from effattack.cli import main
from effattack.errors import CellError, ContractError
from effattack.results import selfchecks
from effattack.runs.executors.workers import Workers
from effattack.runs.run import run
from effattack.victim import Gate, Trace, Victim

SMALL = replace(TOY, samples=6, slice=3)
BESIDE = replace(SMALL, victims=("faulty:WrongSign", "toys:LinearSaver"))
WORDS = "wrong: gate saver: image 0: its margin is up to 0."


def with_gate(**changes: object) -> Victim:
    """The toy whose gate has some fields changed."""

    class Edited(LinearSaver):
        def trace(self, images: Tensor) -> Trace:
            trace = super().trace(images)
            (gate,) = trace.gates
            told = {k: v(gate) if callable(v) else v for k, v in changes.items()}
            return trace._replace(gates=(gate._replace(**told),))

    return Edited()


def detached(gate: Gate) -> Tensor:
    return gate.margin.detach() + 1e-12 * (gate.margin - gate.margin.detach())


class CheapWhenCounted(LinearSaver):
    """Leaves the base out, and its answer too, while a dispatch mode looks."""

    def forward(self, images: Tensor) -> Tensor:
        if torch.utils._python_dispatch._get_current_dispatch_mode() is not None:
            return self.saver(images.flatten(1))
        return super().forward(images)

    def trace(self, images: Tensor) -> Trace:
        trace = super().trace(images)
        return trace._replace(macs=torch.full_like(trace.macs, 32))


class SometimesConstant(LinearSaver):
    """Says that it is constant; its work depends on the image."""

    def __init__(self) -> None:
        super().__init__()
        self.constant = True


class PaysForMates(LinearSaver):
    """Runs the base on the whole batch as soon as one image needs it."""

    def forward(self, images: Tensor) -> Tensor:
        x = images.flatten(1)
        logits = self.saver(x)
        onward = self.margin(logits) > 0
        return torch.where(onward[:, None], self.base(x), logits) if onward.any() else logits


LIES: dict[str, tuple[Callable[[], Victim], str]] = {
    "wrong sign": (WrongSign, "on the wrong side of its decision"),
    "free gate": (lambda: with_gate(cost=0.0), "cost = 0.0 must be positive"),
    "negative cost": (lambda: with_gate(cost=-144.0), "cost = -144.0 must be positive"),
    "infinite cost": (lambda: with_gate(cost=float("inf")), "cost = inf must be positive"),
    "NaN cost": (lambda: with_gate(cost=float("nan")), "cost = nan must be positive"),
    "detached margin": (lambda: with_gate(margin=detached), "it is not the gradient of this value"),
    "cheap when counted": (CheapWhenCounted, "forward, counted and not, differ"),
    "sometimes constant": (SometimesConstant, "is declared constant, but image"),
    "pays for its mates": (PaysForMates, "MACs more on"),
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("count", [1, 8])
def test_no_attack_is_run_on_a_victim_that_lies(
    lie: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Attack, "__call__", lambda *_: pytest.fail("attacked"))
    build, words = LIES[lie]
    with pytest.raises(ContractError, match=words):
        evaluate(build(), grey_images(count), torch.zeros(count).long(), ["Slowdown"], timed=0)


def test_a_misleading_proxy_is_said_beside_the_scores() -> None:
    victim = with_gate(margin=lambda gate: -gate.margin, proxy=True)
    found = evaluate(victim, grey_images(8), torch.zeros(8).long(), ["Slowdown"], timed=0)
    (check,) = (check for check in found.checks() if check.check == "contract")
    assert check.passed is False
    assert "turn its sign" in check.message


def test_the_contract_is_kept_in_the_store_whatever_the_attacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SMALL.run(tmp_path)

    def again(*_: object) -> None:
        raise AssertionError("checked again")

    monkeypatch.setattr(selfchecks, "held_to", lambda victim: [(again, victim)])
    others = replace(SMALL, attacks=("DeepSloth",), budgets=(4 / 255,), seeds=(1,))
    found = others.run(tmp_path)
    (told,) = (check for check in found.checks() if check.check == "contract")
    assert told.passed is True
    assert told.message == "8 invariants hold on 16 images"
    with pytest.raises(CellError, match="checked again"):
        replace(SMALL, samples=5).run(tmp_path)


@pytest.mark.parametrize("victim", ["faulty:WrongSign", "faulty:Undeclared"])
def test_the_other_victims_of_a_run_are_scored(
    victim: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    names = [f"--victim={name}" for name in (victim, "toys:LinearSaver")]
    asked = ["run", *names, "--attack=Slowdown", "--data=faulty:data", "--samples=6"]
    assert main([*asked, "--dry-run"]) == 0
    planned = capsys.readouterr().out
    assert "the contract of 2 victims" in planned
    assert ("will not be attacked: wrong: max_macs" in planned) == (victim == "faulty:Undeclared")
    assert main(asked) == 3
    said = capsys.readouterr().err.replace("\n", " ")
    words = WORDS if victim == "faulty:WrongSign" else "wrong: max_macs = -1.0 must be"
    assert words in said
    out = Path("effattack-report")
    assert set(pd.read_parquet(out / "samples.parquet").victim) == {"toy"}
    (skipped,) = json.loads((out / "meta.json").read_text())["skipped"]
    assert skipped["reason"].startswith(f"wrong was not attacked: {words}")


def test_what_a_victim_alone_says_of_itself_is_refused_before_anything_runs() -> None:
    with pytest.raises(ContractError, match=r"wrong: max_macs = -1.0 must be"):
        replace(SMALL, victims=("faulty:Undeclared",)).plan()


def test_a_victim_alone_is_refused_in_the_same_words(tmp_path: Path) -> None:
    sweep = replace(SMALL, victims=("faulty:WrongSign",))
    with pytest.raises(CellError, match=WORDS):
        sweep.run(tmp_path)
    assert [entry["spec"]["work"] for entry in Store(tmp_path / "cells").journal] == ["contract"]


@pytest.mark.slow
def test_workers_refuse_it_too(tmp_path: Path) -> None:
    store = Store(tmp_path / "cells")
    evaluation, (reason,) = run(BESIDE.plan(), store, Workers(1))
    assert WORDS in reason
    assert set(evaluation.samples.victim) == {"toy"}


def test_work_beyond_the_max_fails_its_cell() -> None:
    """Nothing that it says is believed, though it is seen under attack only."""
    victim = LinearSaver(doubt=0.1)
    images = grey_images(40)
    images = images[victim.missing(images) > 0][:8]
    victim.constant, victim.max_macs = True, 32.0
    with pytest.raises(ContractError, match=r"image \d under .* executed 176 MACs"):
        evaluate(victim, images, torch.zeros(8).long(), [], timed=0)


def test_under_pytest_it_is_one_line(pytester: pytest.Pytester) -> None:
    run: Run = project(pytester)
    pytester.makepyfile(
        """
        import faulty

        def test_it(effattack_evaluate, effattack_data):
            effattack_evaluate(faulty.WrongSign(), *effattack_data, ["Slowdown"], timed=0)
        """
    )
    result = run("--effattack-victim=models:build", DATA)
    result.assert_outcomes(failed=1)
    assert [line for line in result.outlines if line.startswith(WORDS)]
    assert not [line for line in result.outlines if "Traceback" in line]
