"""Corpora and their replay: what a run keeps, and what it says of another model."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from prompts import CLASSES, VOCABULARY, TokenExits, some_prompts
from torch import Tensor
from toys import LinearSaver, grey_images

from effattack import Evaluation, Trace, Victim, evaluate
from effattack.domains import Parts, PartsBatch, Pixels, Series, Tokens
from effattack.errors import UsageError
from effattack.inputs.corpus import Corpus, packed, read_corpora, read_corpus
from effattack.results.currency import with_work
from effattack.results.limits import judge, parse_limit
from effattack.results.union import within_budgets
from effattack.runs.choosing import chosen
from effattack.runs.replay import replay, stored_inputs
from effattack.tasks import Classes

EPS = 8 / 255


def toy(doubt: float = 1.0, name: str = "toy", **said: Any) -> LinearSaver:
    victim = LinearSaver(doubt, seed=1)
    victim.name = name
    return victim


def run(
    out: Path, victim: Victim | None = None, count: int = 24, eps: float | str = EPS, **said: Any
) -> Evaluation:
    """A full run on grey images."""
    victim, images = victim or toy(), grey_images(count, seed=3)
    labels = victim(images).argmax(1)
    return evaluate(victim, images, labels, ["Slowdown"], eps=eps, timed=0, out=out, **said)


def corpora(out: Path) -> list[Corpus]:
    return read_corpora(out / "corpus")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Evaluation, Path]:
    """A full run, and where its corpus is."""
    out = tmp_path_factory.mktemp("full")
    return run(out), out


def union(evaluation: Evaluation) -> pd.Series:
    table = evaluation.scores()
    return table[table.kind == "union"].iloc[0]


def test_the_worst_of_all_rows_inside_is_kept(kept: tuple[Evaluation, Path]) -> None:
    full, out = kept
    (corpus,) = corpora(out)
    rows = full.samples[full.samples.linf <= EPS + 1e-6]
    assert corpus.work.tolist() == rows.groupby("sample").macs.max().tolist()
    assert corpus.clean_work.tolist() == rows.groupby("sample").clean_macs.first().tolist()
    assert (corpus.about.threat, corpus.about.scored) == ("linf:8/255", 24)
    victim, (images, labels) = toy(), stored_inputs(toy(), [corpus])
    assert torch.equal(images, grey_images(24, seed=3))
    assert torch.equal(labels, victim(images).argmax(1))
    attacked = victim.domain.unpack(corpus.attacked, images)
    assert (attacked - images).abs().max() <= EPS + 1e-6
    assert victim.trace(attacked).macs.tolist() == corpus.work.tolist()


def test_the_same_victim_gets_the_same_verdict(kept: tuple[Evaluation, Path]) -> None:
    full, out = kept
    found = replay(toy(), corpora(out))
    same = ["work", "clean_work", "max_work", "savings_retained", "savings_retained_low"]
    assert union(found)[same].tolist() == union(full)[same].tolist()
    assert set(found.scores().attack) == {"clean", "replayed", "union"}
    assert found.samples.seconds.isna().all()
    ratio = f"×{union(full).macs_ratio:.2f}"
    told = f"toy at eps 8/255: 24 worst images: {ratio} MACs when recorded, {ratio} now"
    assert found.meta["replayed"] == [told]


def test_another_victim_is_judged_by_its_own_work(kept: tuple[Evaluation, Path]) -> None:
    """Of a linear saver it is known: 144 MACs more where the logits differ by less than doubt."""
    (corpus,) = corpora(kept[1])
    for doubt in (0.2, 4.0):
        victim, (images, _) = toy(doubt), stored_inputs(toy(), [corpus])
        attacked = victim.domain.unpack(corpus.attacked, images)
        cost = [
            32 + 144 * (victim.missing(x) < 0).double().mean().item() for x in (images, attacked)
        ]
        row = replay(victim, [corpus]).scores().set_index("attack").loc["replayed"]
        assert [row.clean_macs, row.macs] == pytest.approx(cost)


def test_limits_judge_what_was_replayed(kept: tuple[Evaluation, Path]) -> None:
    """Without a doubt nothing ever goes on; with much, stored inputs take back what is left."""
    limit = parse_limit("savings_retained=0.5", fail_below=True)
    for doubt, passed in ((0.01, True), (1.0, False)):
        (verdict,) = judge(replay(toy(doubt), corpora(kept[1])).scores(), [limit])
        assert verdict.passed is passed


def test_where_not_all_fit_those_stay_that_take_back_most(tmp_path: Path) -> None:
    full = run(tmp_path / "all", count=60)
    (every,) = corpora(tmp_path / "all")
    (whole,) = (tmp_path / "all" / "corpus").iterdir()
    room = 0.9 * whole.stat().st_size
    said = run(tmp_path / "some", count=60, corpus_mb=room / 1e6).meta["notes"]
    (few,) = corpora(tmp_path / "some")
    (file,) = (tmp_path / "some" / "corpus").iterdir()
    assert file.stat().st_size <= room
    gain = np.sort(every.work - every.clean_work)[::-1]
    assert 0 < len(few) < len(every) == 60
    assert np.sort(few.work - few.clean_work)[::-1].tolist() == gain[: len(few)].tolist()
    assert f"the corpus keeps {len(few)} of 60 inputs, those that take back most" in said[-1]
    assert not any("corpus" in note for note in full.meta["notes"])


def test_none_is_kept_where_none_is_asked_for(tmp_path: Path) -> None:
    run(tmp_path, corpus_mb=0)
    assert not (tmp_path / "corpus").exists()


def test_a_later_run_of_the_same_victim_adds_to_it(tmp_path: Path) -> None:
    run(tmp_path, count=8)
    run(tmp_path, count=12)
    (corpus,) = corpora(tmp_path)
    assert len(corpus) == corpus.about.scored == len({*corpus.keys}) == 12
    run(tmp_path, toy(0.5), count=6)
    (corpus,) = corpora(tmp_path)
    assert len(corpus) == 6, "of a changed victim, what was worst before says nothing"


def test_joining_keeps_what_cost_more(kept: tuple[Evaluation, Path]) -> None:
    (corpus,) = corpora(kept[1])
    other = replace(corpus.take([0, 1]), work=np.add(corpus.work[:2], [1, -1]), found_by=["x", "x"])
    joined = corpus.joined(other)
    assert sorted(joined.work) == sorted([corpus.work[0] + 1, *corpus.work[1:]])
    assert joined.found_by.count("x") == 1
    assert joined.about.scored == corpus.about.scored


def test_each_budget_is_judged_on_the_inputs_that_are_stored_for_it(tmp_path: Path) -> None:
    """The union of a budget leaves out inputs that nobody attacked there, or it would flatter."""
    run(tmp_path, count=12)
    run(tmp_path, count=12, eps=4 / 255)
    small, large = sorted(corpora(tmp_path), key=lambda corpus: corpus.about.threat)
    half = large.take([0, 2, 4, 6])
    found = replay(toy(), [small, half])
    table = found.scores()
    rows = table[table.kind == "union"].set_index("eps")
    assert rows.samples.to_dict() == {4 / 255: 12, EPS: 4}
    assert rows.work[EPS] == pytest.approx(half.work.mean())
    assert rows.work[4 / 255] == pytest.approx(small.work.mean())
    assert len(found.meta["checks"]) == 3, "the contract is checked once"


def test_the_union_of_a_full_run_is_of_all_inputs(kept: tuple[Evaluation, Path]) -> None:
    full, _ = kept
    ((_, _, within),) = within_budgets(with_work(full.samples))
    assert union(full).samples == within["sample"].nunique() == 24


def prompts(out: Path) -> Victim:
    victim, ids = TokenExits(), some_prompts(9)
    labels = torch.arange(9) % CLASSES
    evaluate(victim, ids, labels, ["noise(threat='suffix:2')"], eps="suffix:2", timed=0, out=out)
    return victim


class Mixed(LinearSaver):
    """The linear saver of images that come with a prompt, which it does not read."""

    def __init__(self) -> None:
        super().__init__(seed=1)
        self.domain = Parts(image=Pixels((1, 4, 4)), question=Tokens(VOCABULARY, 8))

    def forward(self, batch: PartsBatch) -> Tensor:
        return super().forward(batch["image"])

    def trace(self, batch: PartsBatch) -> Trace:
        return super().trace(batch["image"])


def parts(out: Path) -> Victim:
    victim, batch = Mixed(), PartsBatch({"image": grey_images(9), "question": some_prompts(9)})
    labels = torch.arange(9) % 2
    budget = "image:linf:8/255+question:suffix:2"
    evaluate(victim, batch, labels, [], eps=budget, timed=0, out=out)
    return victim


def series(out: Path) -> Victim:
    victim = Sensed()
    values = victim.domain.disturbed(victim.example(9), torch.Generator().manual_seed(0))
    evaluate(victim, values, torch.arange(9) % 2, ["Slowdown"], eps=0.0713, timed=0, out=out)
    return victim


class Sensed(LinearSaver):
    """The linear saver of series."""

    def __init__(self) -> None:
        super().__init__(seed=1)
        self.domain = Series(1, 16, -2.0, 2.0, step=2**-10)


@pytest.mark.parametrize("scored", [prompts, parts, series])
def test_inputs_of_any_kind_come_back_as_they_were(scored: Any, tmp_path: Path) -> None:
    victim = scored(tmp_path)
    (corpus,) = corpora(tmp_path)
    found = replay(victim, [corpus])
    rows = found.samples[found.samples.attack == "replayed"]
    assert rows.macs.tolist() == corpus.work.tolist()
    assert rows.image.tolist() == [*corpus.attacked[:8], None]
    assert set(rows.kind) == {"compute"}


def rewritten(path: Path, **changed: Any) -> Path:
    """The file with some of what it says of itself changed, its digest left."""
    arrays = {**np.load(path)}
    about = json.loads(arrays["about"].tobytes()) | changed
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    np.savez_compressed(path, **arrays)
    return path


def file_of(corpus: Corpus, folder: Path) -> Path:
    path = folder / "corpus.npz"
    path.write_bytes(packed(corpus))
    return path


def without(path: Path, name: str) -> Path:
    np.savez_compressed(path, **{k: v for k, v in np.load(path).items() if k != name})
    return path


def with_pickles(path: Path) -> Path:
    arrays = {**np.load(path)}
    arrays["labels"] = np.array([{}] * len(arrays["labels"]))
    np.savez_compressed(path, **arrays)
    return path


def cut_off(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-100])
    return path


def other_arrays(path: Path) -> Path:
    np.savez_compressed(path, images=np.zeros(3))
    return path


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (cut_off, r"it is no \.npz"),
        (other_arrays, "it is no corpus"),
        (lambda path: without(path, "clean"), "it lacks the clean inputs"),
        (with_pickles, "labels hold Python objects"),
        (lambda path: rewritten(path, format=2), r"newer effattack \(format 2, this one knows 1\)"),
        (lambda path: rewritten(path, threat="linf:16/255"), "it is damaged or altered"),
    ],
)
def test_a_file_that_cannot_be_used(
    damage: Any, told: str, kept: tuple[Evaluation, Path], tmp_path: Path
) -> None:
    path = damage(file_of(corpora(kept[1])[0], tmp_path))
    with pytest.raises(UsageError, match=told):
        read_corpus(path)


def test_inputs_outside_their_budget_are_refused(kept: tuple[Evaluation, Path]) -> None:
    (corpus,) = corpora(kept[1])
    clean = np.frombuffer(corpus.clean[3], np.uint8)
    attacked = [*corpus.attacked]
    attacked[3] = (clean + np.eye(16, dtype=np.uint8)[0] * 9).tobytes()
    with pytest.raises(UsageError, match=r"image 3: images outside the budget linf:8/255"):
        replay(toy(), [replace(corpus, attacked=attacked)])


def test_what_differs_is_said(kept: tuple[Evaluation, Path]) -> None:
    found = corpora(kept[1])
    larger = toy()
    larger.domain = Pixels((1, 8, 8))
    with pytest.raises(UsageError, match=r"shape \[1, 4, 4\] there, \[1, 8, 8\] here"):
        replay(larger, chosen(larger, found))
    wider = toy()
    wider.task = Classes(7)
    with pytest.raises(UsageError, match="classes 2 there, 7 here"):
        replay(wider, chosen(wider, found))
    with pytest.raises(UsageError, match="kind pixels there, tokens here: record"):
        chosen(TokenExits(), found)


def test_a_renamed_victim_is_judged_on_those_of_the_only_other(
    kept: tuple[Evaluation, Path], tmp_path: Path
) -> None:
    found = corpora(kept[1])
    assert chosen(toy(name="new"), found) == found
    told = replay(toy(name="new"), found).meta["replayed"][0]
    assert told.startswith("new at eps 8/255: 24 worst images of toy: ")
    run(tmp_path, toy(name="another"), count=6)
    with pytest.raises(UsageError, match="those of toy, another would fit: give the file of one"):
        chosen(toy(name="new"), [*found, *corpora(tmp_path)])


def test_no_file_holds_pickles(kept: tuple[Evaluation, Path]) -> None:
    for file in (kept[1] / "corpus").iterdir():
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as arrays:
            assert all(arrays[name].dtype.kind in "uif" for name in arrays)
