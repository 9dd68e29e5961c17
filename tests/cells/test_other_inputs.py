"""Cells of victims whose inputs are no images: what stands in their rows, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from prompts import CLASSES, Counted, Decoder, TokenExits, some_prompts
from torch import Generator, Tensor
from toys import LinearSaver, embedded_or_skip

import effattack
from effattack.cells.lineup import lineup
from effattack.domains import Tokens
from effattack.errors import NotApplicable, UsageError
from effattack.inputs.source import load_data, subset
from effattack.models_zoo import TokenExits as Tagger
from effattack.models_zoo.text.encoder import Encoder, Size
from effattack.results.evaluation import Evaluation
from effattack.runs.sweep import Sweep
from effattack.threats import parse_threat

COUNT = 8


def data() -> tuple[Tensor, Tensor]:
    """Prompts and their classes."""
    return some_prompts(COUNT), torch.arange(COUNT) % CLASSES


@pytest.fixture(scope="module")
def scored() -> Evaluation:
    return effattack.evaluate(TokenExits(), *data(), ["noise(threat='suffix:2')"], timed=2)


def test_prompts_have_edits_and_no_norms(scored: Evaluation) -> None:
    rows = scored.samples
    assert rows[["linf", "l2", "l1", "pixels"]].isna().all(axis=None)
    assert (rows[rows.attack == "clean"].edits == 0).all()
    noise = rows[rows.attack != "clean"]
    assert (noise.edits > 0).all()
    assert (noise.edits <= noise.eps).all()
    assert set(rows.threat) == {"none", "suffix"}


def test_what_is_stored_is_the_prompt_that_was_judged(scored: Evaluation) -> None:
    victim, (prompts, labels) = TokenExits(), data()
    for attack, rows in scored.samples.groupby(["attack", "eps"], sort=False):
        attacked = victim.domain.unpack([*rows.image], prompts)
        said = [victim(single).argmax(1).item() for single in victim.domain.singles(attacked)]
        assert rows.prediction.tolist() == said, attack
        assert rows.right.tolist() == (torch.tensor(said) == labels).tolist()
        assert rows.same.tolist() == (rows.prediction == rows.clean_prediction).tolist()
        assert rows.macs.tolist() == victim.trace(attacked).macs.tolist()


def test_the_ceiling_is_that_of_the_longest_prompt_of_the_threat(scored: Evaluation) -> None:
    victim, (prompts, _) = TokenExits(), data()
    for (_, eps), rows in scored.samples.groupby(["attack", "eps"], sort=False):
        largest = prompts
        if eps:
            largest = parse_threat(f"suffix:{eps:g}").on(victim.domain).largest(prompts)
        assert rows.max_macs.tolist() == victim.ceiling(largest).tolist()
    clean, noise = (scored.samples.query(f"attack {how} 'clean'") for how in ("==", "!="))
    assert noise.max_macs.mean() > clean.max_macs.mean()


def test_prompts_are_timed_as_they_are_sent(scored: Evaluation) -> None:
    assert scored.samples.query("attack == 'clean'").seconds.notna().sum() == 2
    assert scored.meta["victims"]["token_exits"]["domain"]["kind"] == "tokens"


def test_threats_of_other_kinds_are_refused() -> None:
    with pytest.raises(NotApplicable, match="suffix"):
        effattack.evaluate(TokenExits(), *data(), [], eps="linf:8/255", timed=0)


def test_of_several_budgets_a_victim_takes_those_of_its_kind() -> None:
    ready, skipped = lineup(
        LinearSaver(), ["Slowdown"], ["linf:8/255", "suffix:3"], (0,), lambda: None
    )
    assert {a.threat.name for a in ready if a.name == "Slowdown"} == {"linf"}
    assert [told["attack"] for told in skipped] == ["suffix:3"]


def test_a_sweep_of_prompts_takes_the_usual_threat(tmp_path: Path) -> None:
    place = "test_other_inputs"
    sweep = Sweep((f"{place}:TokenExits",), ("noise",), data=f"{place}:data", slice=3, timed=0)
    rows = sweep.run(tmp_path).samples
    assert set(rows.query("attack == 'noise'").threat) == {"suffix"}
    assert sorted(rows.query("attack == 'clean'")["sample"]) == [*range(COUNT)]
    assert (
        Evaluation.load(Evaluation(rows, {"schema": 2}).save(tmp_path)).samples.edits.notna().all()
    )


def test_a_count_has_columns_and_judges_where_it_is_asked_to() -> None:
    """Boxes are pixels above a half: known by hand; MACs never move."""
    victim, images = Counted(), torch.rand(COUNT, 1, 3, 3, generator=Generator().manual_seed(0))
    images = victim.domain.snap(images)
    labels = torch.zeros(COUNT).long()
    found = effattack.evaluate(victim, images, labels, [], by="boxes", timed=0)
    rows = found.samples
    clean = rows[rows.attack == "clean"]
    assert clean.boxes.tolist() == (images > 0.5).flatten(1).sum(1).tolist()
    for _, own in rows.groupby("attack"):
        assert own.clean_boxes.tolist() == clean.boxes.tolist()
    assert set(rows.max_boxes) == {9}
    assert set(rows.macs) == {18}
    uniform = found.scores().set_index("attack").loc["uniform"]
    boxes = rows[rows.attack == "uniform"].boxes.sum(), clean.boxes.sum()
    expected = (boxes[0] - boxes[1]) / (9 * COUNT - boxes[1])
    assert uniform.attack_success == pytest.approx(expected)
    assert found.meta["victims"]["counted"]["counts"] == {"boxes": {"unit": "box", "audited": True}}


def test_a_generator_agrees_where_it_only_goes_on() -> None:
    victim, prompts = Decoder(), some_prompts(COUNT)
    labels = victim.task.answer(victim(prompts))
    rows = effattack.evaluate(victim, prompts, labels, [], timed=0).samples
    assert set(rows.currency) == {"passes"}
    assert (rows.passes <= rows.max_passes).all()
    longer = [
        f"{after} ".startswith(f"{before} ") or not before
        for before, after in zip(rows.clean_prediction, rows.prediction, strict=True)
    ]
    assert rows.same.tolist() == longer
    assert rows[rows.attack == "clean"].same.all()


def test_a_tagger_is_right_where_every_token_that_still_stands_has_its_tag() -> None:
    torch.manual_seed(0)
    encoder = Encoder(Size(11, longest=9, width=16, heads=2, hidden=24, depth=2))
    victim = Tagger(encoder, Tokens(11, 7), tags=3, criterion=0.5, name="tagger")
    prompts = torch.randint(1, 11, (COUNT, 4))
    labels = victim.task.answer(victim(prompts))
    rows = effattack.evaluate(victim, prompts, labels, ["noise"], eps="suffix:2", timed=0).samples
    assert rows.right.tolist() == rows.same.tolist(), "labels are the clean answers"
    assert rows[rows.attack == "noise"].right.mean() > 0


@pytest.mark.slow
def test_series_keep_what_a_sensor_reads() -> None:
    victim = embedded_or_skip("cbf_early_gru")
    series, labels = subset(*load_data(None, victim), 4)
    found = effattack.evaluate(victim, series, labels, [], timed=0)
    noise = found.samples.query("attack == 'noise'")
    assert len(noise) == 4
    attacked = victim.domain.unpack([*noise.image], series)
    assert torch.equal(victim.domain.snap(attacked), attacked)
    moved = victim.domain.distances(attacked, victim.domain.snap(series))
    assert noise.linf.tolist() == moved["linf"].tolist()
    assert {"gaps", "drift"} <= set(found.samples.attack)


def test_prompts_come_from_npz_and_factories_but_no_folder(tmp_path: Path) -> None:
    victim, (prompts, labels) = TokenExits(), data()
    assert isinstance(victim.domain, Tokens)
    np.savez(tmp_path / "data.npz", inputs=prompts.numpy(), labels=labels.numpy())
    for source in (str(tmp_path / "data.npz"), "test_other_inputs:data"):
        found = load_data(source, victim)
        assert torch.equal(found[0], prompts)
        assert torch.equal(found[1], labels)
    with pytest.raises(UsageError, match="read as images, and the victim takes prompts"):
        load_data(str(tmp_path), victim)
    with pytest.raises(UsageError, match="an \\.npz with inputs and labels"):
        load_data(None, victim)
