"""Artefacts from a factory to the report: what is typed, and the first line that is read."""

from __future__ import annotations

import copy
import re
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn
from toys import embedded

from effattack.cli import main
from effattack.models_zoo.digits import digits
from effattack.victim import audit
from effattack.victim.deployed import Deployed

MODULE = """
import torch
from toys import LinearSaver, grey_images

from effattack.domains import Pixels
from effattack.tasks import Classes
from effattack.victim.deployed import Deployed

TWIN, SHIPPED = LinearSaver(), LinearSaver(3.0)

def run(batch):
    return SHIPPED(batch), {gate.name: gate.active for gate in SHIPPED.trace(batch).gates}

def work(batch):
    return SHIPPED.trace(batch).macs

def build():
    return Deployed(TWIN, run, work, name="shipped")

def untold():
    return Deployed(TWIN, run, name="untold")

def alone():
    return Deployed(None, run_alone, work, name="alone", domain=Pixels((1, 4, 4)), task=Classes(2))

def run_alone(batch):
    return SHIPPED(batch)

def data():
    images = grey_images(12)
    return images, SHIPPED(images).argmax(1)
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "served.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "served", raising=False)
    return tmp_path


def scored(victim: str, *options: str, attack: str = "Slowdown(steps=10)") -> int:
    asked = ["--attack", attack, "--data", "served:data", "--timing", "0", "--eps", "0.1"]
    return main(["run", "--victim", f"served:{victim}", *asked, "--out", "out", *options])


def page() -> str:
    text = Path("out/report.html").read_text()
    text = re.sub(r"<(style|script|svg).*?</\1>", "", text, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", text))


def test_the_share_stands_above_every_other_number(capsys: pytest.CaptureFixture[str]) -> None:
    assert scored("build", "--fail-below", "savings_retained=0") == 0
    said = capsys.readouterr().out.replace("\u00a0", " ")
    rows = pd.read_csv("out/scores.csv").set_index("attack")
    clean, union = rows.loc["clean"], rows.loc["union"]
    assert 0 < union.twin_agreement <= clean.twin_agreement < 0.99
    samples = pd.read_parquet("out/samples.parquet")
    unlike = samples[(samples.attack == "clean") & ~samples.as_twin.astype(bool)]["sample"]
    assert clean.unlike_twin == ", ".join(map(str, unlike))
    first = f"shipped decides and answers as its twin on {clean.twin_agreement:.1%}"
    first = first.replace("%", " %")
    for text in (said, page()):
        assert first in text
        assert f"unlike its twin on inputs {clean.unlike_twin} of clean" in text
    assert said.index(first) < said.index("retained")
    seen = page()
    assert seen.index(first) < seen.index("kept least")
    assert main(["summary", "out"]) == 0
    summary = capsys.readouterr().out
    assert summary.index("**Read this first:** `shipped` decides") < summary.index("| Victim |")


def test_a_limit_on_the_share(capsys: pytest.CaptureFixture[str]) -> None:
    assert scored("build", "--fail-below", "twin_agreement=.99") == 1
    assert "twin agreement is 0." in "".join(capsys.readouterr())
    assert scored("build", "--fail-below", "twin_agreement=.01") == 0


def test_unknown_work_states_no_savings(capsys: pytest.CaptureFixture[str]) -> None:
    assert scored("untold", "--fail-below", "savings_retained=.1") == 3
    said = "".join(capsys.readouterr())
    assert "its executed work is unknown, so no savings can be stated" in said
    assert "give Deployed(work=...)" in said
    assert "executed work is unknown" in page()
    rows = pd.read_csv("out/scores.csv")
    made_of_work = ["macs", "clean_macs", "macs_ratio", "savings_retained", "equals_n_requests"]
    assert rows[[*made_of_work, "attack_success", "slow_and_wrong"]].isna().all().all()
    assert rows[["accuracy", "twin_agreement"]].notna().all().all()
    assert scored("untold") == 3, "nothing of its savings was measured"
    assert scored("untold", "--fail-below", "accuracy=0") == 0
    assert scored("untold", "--fail-below", "accuracy=1") == 1


def test_without_a_twin_it_is_queried(capsys: pytest.CaptureFixture[str]) -> None:
    assert scored("alone", attack="QueryAttack(queries=5)") == 0
    said = capsys.readouterr().out
    assert "as its twin" not in said
    rows = pd.read_csv("out/scores.csv").set_index("attack")
    assert rows.loc["QueryAttack(queries=5)"].knowledge == "queries"
    assert rows.twin_agreement.isna().all()


def test_transfer_brings_inputs_from_a_surrogate(capsys: pytest.CaptureFixture[str]) -> None:
    Path("near.py").write_text("from toys import LinearSaver as build\n")
    attack = "Transfer(source='near:build', attack='Slowdown(steps=10)')"
    assert scored("alone", attack=attack) in (0, 3)
    rows = pd.read_csv("out/scores.csv")
    assert (rows[rows.attack.str.startswith("Transfer")].knowledge == "transfer").all()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:torch.quantize_per_tensor")
@pytest.mark.slow
def test_int8_heads_of_an_early_exit_flip_some_decisions() -> None:
    twin = embedded("digits_cnn_early_exit")
    int8 = torch.ao.quantization.quantize_dynamic(copy.deepcopy(twin), {nn.Linear})
    images, _ = digits("test")
    with torch.no_grad():
        traces = twin.trace(images), int8.trace(images)
    flips = torch.zeros(len(images), dtype=torch.bool)
    for one, other in zip(traces[0].gates, traces[1].gates, strict=True):
        flips |= (one.active != other.active).any(1)
    flips |= traces[0].logits.argmax(1) != traces[1].logits.argmax(1)
    assert 0 < flips.sum() < 0.05 * len(images)
    chosen = torch.cat([images[flips], images[~flips][:8]])

    def run(batch: torch.Tensor) -> object:
        return int8(batch), {gate.name: gate.active for gate in int8.trace(batch).gates}

    shipped = Deployed(twin, run, lambda x: int8.trace(x).macs, batch_coupled=True)
    found = audit(shipped, chosen)
    each = [(twin.trace(one), int8.trace(one)) for one in chosen.split(1)]
    expected = [
        torch.equal(a.logits.argmax(1), b.logits.argmax(1))
        and all(torch.equal(p.active, q.active) for p, q in zip(a.gates, b.gates, strict=True))
        for a, b in each
    ]
    assert list(found.as_twin) == expected
    assert found.macs.tolist() == [b.macs.item() for _, b in each]
    decided = [{g.name: g.active[0] for g in b.gates} for _, b in each]
    for shown, told in zip(found.decisions, decided, strict=True):
        assert all(torch.equal(shown[name], told[name]) for name in told)
