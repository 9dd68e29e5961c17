"""Evaluations of a toy whose worst case is known, end to end."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from toys import LinearSaver, grey_images

import effattack
from effattack.attacks import Attack, DeepSloth, Slowdown
from effattack.cells import timing
from effattack.errors import AuditError, UsageError
from effattack.measure import latency
from effattack.measure.clocks import WallClock
from effattack.measure.statistics import Interval
from effattack.results.evaluation import Evaluation
from effattack.results.frame import COLUMNS
from effattack.results.scores import COLUMNS as SCORES
from effattack.victim import Opaque, Trace, Victim

COUNT = 12


@pytest.fixture
def toy() -> LinearSaver:
    return LinearSaver()


@pytest.fixture
def data() -> tuple[torch.Tensor, torch.Tensor]:
    return grey_images(COUNT), torch.arange(COUNT) % 2


def run(victim: Victim, data: tuple, attacks: list[Attack | str], **settings: object) -> Evaluation:
    return effattack.evaluate(victim, *data, attacks, **{"timed": 0, **settings})


def test_one_row_per_sample_and_controls_beside(toy: LinearSaver, data: tuple) -> None:
    found = run(toy, data, ["Slowdown", DeepSloth(toy, 4 / 255)])
    assert list(found.samples.columns) == COLUMNS
    key = ["victim", "attack", "threat", "eps", "seed", "sample"]
    assert not found.samples.duplicated(key).any()
    assert set(found.samples.attack) == {"clean", "noise", "uniform", "Slowdown", "DeepSloth"}
    assert set(found.samples[found.samples.attack == "noise"].eps) == {4 / 255, 8 / 255}
    scores = found.scores()
    assert list(scores.columns) == SCORES
    slow = scores.set_index("attack").loc["Slowdown"]
    assert slow.attack_success > 0.2
    assert scores.set_index("attack").loc["clean", "macs_ratio"] == 1


def test_rows_are_what_the_deployed_path_does(toy: LinearSaver, data: tuple) -> None:
    rows = run(toy, data, ["Slowdown"]).samples.query("attack == 'Slowdown'")
    adversarial = Slowdown(toy)(*data)
    assert rows.prediction.tolist() == toy(adversarial).argmax(1).tolist()
    assert rows.macs.tolist() == toy.trace(adversarial).macs.tolist()
    assert (rows.linf <= 8 / 255 + 1e-6).all()
    assert rows.image[rows["sample"] < 8].notna().all()


def test_it_can_be_saved_joined_and_loaded(toy: LinearSaver, data: tuple, tmp_path: Path) -> None:
    first = run(toy, data, ["Slowdown"])
    second = run(toy, data, ["DeepSloth"], eps=4 / 255)
    both = Evaluation.concat([first, second])
    assert len(both.samples) == len(first.samples) + 2 * COUNT  # noise at 4/255, and DeepSloth
    assert len(Evaluation.concat([first, first]).samples) == len(first.samples)
    other = run(LinearSaver(doubt=2.0), data, ["Slowdown"])
    with pytest.raises(UsageError, match="give the victims different names"):
        Evaluation.concat([first, other])
    loaded = Evaluation.load(both.save(tmp_path / "out"))
    pd.testing.assert_frame_equal(loaded.scores(), both.scores())
    assert loaded.meta == both.meta
    stored = pd.read_csv(tmp_path / "out" / "scores.csv")
    assert list(stored.columns) == SCORES


def test_finished_cells_are_not_run_again(
    toy: LinearSaver, data: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(toy, data, ["Slowdown"], out=tmp_path)
    monkeypatch.setattr(Slowdown, "run", lambda *_: pytest.fail("attacked again"))
    second = run(toy, data, ["Slowdown"], out=tmp_path)
    pd.testing.assert_frame_equal(first.samples, second.samples)
    monkeypatch.undo()
    other = LinearSaver(doubt=2.0)
    assert not run(other, data, ["Slowdown"], out=tmp_path).scores().equals(first.scores())


def test_an_interruption_keeps_what_is_finished(
    toy: LinearSaver, data: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(DeepSloth, "run", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(toy, data, ["Slowdown", "DeepSloth"], out=tmp_path)
    monkeypatch.undo()
    kept = {file.name for file in (tmp_path / "cells").glob("*.parquet")}
    assert len(kept) == 5  # contract, clean, noise, uniform, Slowdown
    whole = run(toy, data, ["Slowdown", "DeepSloth"], out=tmp_path)
    assert kept < {file.name for file in (tmp_path / "cells").glob("*.parquet")}
    undisturbed = run(toy, data, ["Slowdown", "DeepSloth"])
    pd.testing.assert_frame_equal(whole.samples, undisturbed.samples)


def test_attacks_that_cannot_apply_are_skipped_with_the_reason(data: tuple) -> None:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2))
    found = run(Opaque(model, (1, 4, 4), name="opaque"), data, ["Slowdown", "torchattacks.PGD"])
    reason = found.meta["skipped"][0]["reason"]
    assert "has no gates" in reason
    assert reason.endswith("apply"), "and which do"
    row = found.scores().set_index("attack").loc["torchattacks.PGD"]
    assert row.macs_ratio == 1
    assert pd.isna(row.attack_success)


def test_latency_names_its_clock_and_checks_itself(toy: LinearSaver, data: tuple) -> None:
    found = run(toy, data, ["Slowdown"], timed=8)
    clean = found.samples.query("attack == 'clean'")
    assert clean.seconds.notna().sum() == 8
    assert set(clean.clock.dropna()) == {"wall"}
    latency = found.meta["latency"]["toy"]
    timed = found.samples.query("attack == 'Slowdown'").seconds.notna().sum()
    assert timed == (0 if latency["fired"] else 8)
    assert latency["fired"] == any("no latency is given" in note for note in found.meta["notes"])
    assert found.meta["energy"]


def test_a_device_that_vanishes_while_it_is_timed_loses_no_finished_row(
    toy: LinearSaver, data: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def vanishing(*arguments: object, **settings: object) -> pd.DataFrame:
        calls.append(arguments)
        if len(calls) == 4:
            raise RuntimeError("CUDA error: unspecified launch failure")
        return latency.time_pairs(*arguments, **settings)

    monkeypatch.setattr(timing, "time_pairs", vanishing)
    monkeypatch.setattr(Interval, "excludes", lambda *_: False)
    with pytest.raises(RuntimeError, match="launch failure"):
        run(toy, data, ["Slowdown"], timed=6, out=tmp_path)
    assert len(list((tmp_path / "cells").glob("*.parquet"))) == 1 + 4 + 3
    monkeypatch.setattr(Slowdown, "run", lambda *_: pytest.fail("attacked again"))
    found = run(toy, data, ["Slowdown"], timed=6, out=tmp_path)
    assert len(calls) == 5
    assert found.samples.seconds.notna().sum() == 4 * 6


def test_cuda_events_stand_beside_the_wall_clock(
    toy: LinearSaver, data: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Events(WallClock):
        name = "cuda_event"

    monkeypatch.setattr(latency, "clocks_for", lambda device: (WallClock(device), Events(device)))
    monkeypatch.setattr(Interval, "excludes", lambda *_: False)
    rows = run(toy, data, ["Slowdown"], timed=6).samples
    timed = rows[rows.event_seconds.notna() & rows.clean_event_seconds.notna()]
    assert len(timed) == len(rows[rows.seconds.notna()]) == 4 * 6
    assert set(timed.clock) == {"wall"}
    assert json.loads(timed.environment.iloc[0])["device"] == "cpu"


def test_several_seeds(toy: LinearSaver, data: tuple) -> None:
    found = run(toy, data, ["Slowdown"], seeds=(0, 1))
    counts = found.samples.groupby("attack")["seed"].nunique()
    assert counts.to_dict() == {"Slowdown": 2, "clean": 1, "noise": 2, "uniform": 2}


def test_training_mode_is_said_and_restored(toy: LinearSaver, data: tuple) -> None:
    toy.train()
    with pytest.warns(UserWarning, match="training mode"):
        found = run(toy, data, ["Slowdown"])
    assert toy.training
    assert any("training mode" in note for note in found.meta["notes"])


def test_images_off_the_grid_are_rounded_and_it_is_said(toy: LinearSaver, data: tuple) -> None:
    images, labels = data
    with pytest.warns(UserWarning, match="rounded to the 8-bit grid"):
        run(toy, (images + 1e-3, labels), ["Slowdown"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(toy, data, ["Slowdown"])


class Liar(LinearSaver):
    """Declares one MAC too few."""

    def trace(self, images: torch.Tensor) -> Trace:
        trace = super().trace(images)
        return trace._replace(macs=trace.macs - 1)


def test_a_wrong_declaration_stops_the_evaluation(data: tuple) -> None:
    with pytest.raises(AuditError, match="trace declares"):
        run(Liar(), data, ["Slowdown"])


def test_an_attack_made_for_another_victim(toy: LinearSaver, data: tuple) -> None:
    with pytest.raises(UsageError, match="was made for"):
        run(toy, data, [Slowdown(LinearSaver())])


def test_two_attacks_that_would_share_rows(toy: LinearSaver, data: tuple) -> None:
    other = Slowdown(toy)
    other.search = replace(other.search, random_start=False)
    with pytest.raises(UsageError, match="would share their rows"):
        run(toy, data, [Slowdown(toy), other])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x * 2, y), r"not in \[0, 1\]"),
        (lambda x, y: (x - 0.5, y), r"not in \[0, 1\]"),
        (lambda x, y: (x.log() * 0 + torch.nan, y), "NaN"),
        (lambda x, y: ((x * 255).byte(), y), "divide 8-bit images by 255"),
        (lambda x, y: (x[:, :, :2], y), "have shape"),
        (lambda x, y: (x.repeat(1, 3, 1, 1), y), "have shape"),
        (lambda x, y: (x.numpy(), y), "torch tensor"),
        (lambda x, y: (x, y[:-1]), "must pair up"),
        (lambda x, y: (x, y + 1), "classes"),
        (lambda x, y: (x, y.float()), "integer class indices"),
        (lambda x, y: (x[:0], y[:0]), "no images"),
    ],
)
def test_bad_images_and_labels(change: object, message: str, toy: LinearSaver, data: tuple) -> None:
    with pytest.raises(UsageError, match=message):
        run(toy, change(*data), ["Slowdown"])


@pytest.mark.parametrize("eps", [0, -0.1, float("nan"), 2, 0.001])
def test_bad_budgets(eps: float, toy: LinearSaver, data: tuple) -> None:
    with pytest.raises(UsageError, match="eps = "):
        run(toy, data, ["Slowdown"], eps=eps)


def test_an_unknown_attack_is_refused_before_anything_runs(
    toy: LinearSaver, data: tuple, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="did you mean Slowdown"):
        run(toy, data, ["Slodown"], out=tmp_path)
    assert not (tmp_path / "cells").exists()


def test_a_folder_without_an_evaluation(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no readable evaluation"):
        Evaluation.load(tmp_path)


def test_frames_of_earlier_versions_have_a_union_too(tmp_path: Path) -> None:
    victim, images = LinearSaver(), grey_images(6)
    found = effattack.evaluate(victim, images, torch.zeros(6).long(), ["Slowdown"], timed=0)
    folder = found.save(tmp_path)
    before = Evaluation.load(folder).scores()
    frame = pd.read_parquet(folder / "samples.parquet").drop(columns=["l1", "pixels"])
    frame.to_parquet(folder / "samples.parquet")
    pd.testing.assert_frame_equal(Evaluation.load(folder).scores(), before)
    assert before.attack.tolist()[-1] == "union"


def test_the_size_of_a_change_is_measured_in_every_norm() -> None:
    """A patch of 2 x 2 on one channel: 4 pixels, or none where it opened no gate."""
    victim, images = LinearSaver(), grey_images(6)
    asked = ["Slowdown(threat='patch:2@1,1')"]
    rows = effattack.evaluate(victim, images, torch.zeros(6).long(), asked, timed=0).samples
    rows = rows[rows.attack == "Slowdown"]
    assert set(rows.pixels[rows.linf > 0]) == {4}
    assert (rows.pixels[rows.linf == 0] == 0).all()
    assert (rows.l1 <= rows.pixels * rows.linf + 1e-5).all()
    assert (rows.l1 >= rows.l2 - 1e-5).all()
