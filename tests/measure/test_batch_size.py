"""Timing the deployment's batches: which images they are made of, and what is said of them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor
from toys import LinearSaver, grey_images

from effattack import evaluate
from effattack.attacks import Slowdown, build
from effattack.cells import timing
from effattack.cli import main
from effattack.errors import UsageError
from effattack.measure import latency
from effattack.measure.statistics import Interval
from effattack.results.baselines import Baseline
from effattack.results.changes import compare
from effattack.results.evaluation import Evaluation
from effattack.runs.executors.wire import cell_of, ticket
from effattack.runs.sweep import Sweep


@pytest.fixture
def calm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which clean against clean never differs."""
    monkeypatch.setattr(Interval, "excludes", lambda *_: False)


def run(images: Tensor, **settings: object) -> Evaluation:
    labels = torch.zeros(len(images), dtype=torch.long)
    return evaluate(LinearSaver(), images, labels, ["Slowdown"], **settings)


@pytest.mark.usefixtures("calm")
def test_a_call_is_a_row_under_the_index_of_its_first_image() -> None:
    found = run(grey_images(27), timed=16, batch_size=4)
    rows = found.samples.query("attack == 'Slowdown'").dropna(subset=["seconds"])
    assert rows["sample"].tolist() == [0, 4, 8, 12, 16, 20]
    assert set(rows.batch_size) == {4}
    scores = found.scores().set_index("attack").drop("union")
    assert set(scores.clock) == {"wall, batches of 4"}
    assert scores.latency_low.notna().all(), "six batches carry an interval"
    assert not found.meta["notes"]


@pytest.mark.usefixtures("calm")
def test_batches_are_made_of_the_first_images_of_as_many_slices_as_it_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []

    def watched(victim: LinearSaver, clean: Tensor, attacked: Tensor, **settings: object):  # type: ignore[no-untyped-def]
        seen.append((clean, attacked, settings["batch_sizes"]))
        return latency.time_pairs(victim, clean, attacked, **settings)

    monkeypatch.setattr(timing, "time_pairs", watched)
    images = grey_images(130)
    with pytest.warns(UserWarning, match="130 images are 2 batches of 60.* at least 360 images"):
        found = run(images, batch_size=60)
    timed = found.samples.attack.unique()
    for (clean, attacked, sizes), name in zip(seen, timed, strict=True):
        assert sizes == (60,)
        assert torch.equal(clean, images[:120])
        victim = LinearSaver()
        labels = torch.zeros(len(images), dtype=torch.long)
        expected = [build(name, victim, 8 / 255, 0)(*part) for part in _slices(images, labels)]
        assert torch.equal(attacked, torch.cat(expected)[:120]), name


def _slices(images: Tensor, labels: Tensor) -> list[tuple[Tensor, Tensor]]:
    return [(images[:100], labels[:100]), (images[100:], labels[100:])]


@pytest.mark.slow
@pytest.mark.usefixtures("calm")
def test_other_batches_are_timed_without_attacking_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(grey_images(30), timed=6, out=tmp_path)
    monkeypatch.setattr(Slowdown, "run", lambda *_: pytest.fail("attacked again"))
    second = run(grey_images(30), timed=6, batch_size=5, out=tmp_path)
    assert first.samples.seconds.notna().sum() == second.samples.seconds.notna().sum() == 4 * 6
    (note,) = compare(second, Baseline.of(first), "v1").notes
    assert "batch_size 1 there, 5 here" in note


def test_images_that_do_not_fill_a_batch_are_not_timed() -> None:
    with pytest.warns(UserWarning, match="5 images are 0 batches of 8"):
        found = run(grey_images(5), batch_size=8)
    assert found.samples.seconds.isna().all()


@pytest.mark.usefixtures("calm")
def test_a_batch_that_does_not_fit_in_memory_is_halved_and_the_rows_say_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = LinearSaver.forward

    def small(self: LinearSaver, images: Tensor) -> Tensor:
        if len(images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(self, images)

    monkeypatch.setattr(LinearSaver, "forward", small)
    with pytest.warns(UserWarning, match="batches of 4 do not fit in memory.* batches of 2"):
        found = run(grey_images(24), batch_size=4)
    assert set(found.samples.batch_size.dropna()) == {2}
    assert set(found.scores().set_index("attack").drop("union").clock) == {"wall, batches of 2"}


def test_a_batch_of_no_image_is_refused(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(UsageError, match="batch_size = 0"):
        run(grey_images(3), batch_size=0)
    assert main(["run", "--batch-size", "0"]) == 2
    assert "batch_size = 0" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("calm")
def test_a_sweep_times_them_too(tmp_path: Path) -> None:
    sweep = Sweep(
        ("toys:LinearSaver",), ("noise",), data="faulty:data", slice=2, timed=1, batch_size=3
    )
    found = sweep.run(tmp_path)
    timed: pd.DataFrame = found.samples.dropna(subset=["seconds"])
    assert set(timed["sample"]) == {0}
    assert timed.attack.nunique() == 3
    assert set(timed.batch_size) == {3}


def test_a_timing_reaches_another_process_whole() -> None:
    sweep = Sweep(("toys:LinearSaver",), ("noise",), data="faulty:data", slice=2, batch_size=3)
    (planned,) = sweep.plan()
    timings = planned.timings("here")
    assert [len(timing.attacked) for timing in timings] == [16 * 3 // 2] * 3
    assert [cell_of(ticket(timing)) for timing in timings] == [*timings]
