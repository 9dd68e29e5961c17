"""Batches with attacked images in them: executed MACs are exact, time is what a fake clock says."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from toys import LinearSaver, grey_images

from effattack.counting.macs import count_macs
from effattack.errors import UsageError
from effattack.measure.batching import batch_curve, drawn_from, time_batches
from effattack.victim import Victim


class MacsClock:
    """A call takes a second per MAC that it executes."""

    name = "macs"

    def time(self, function) -> float:  # type: ignore[no-untyped-def]
        return float(count_macs(function))


class Padding(LinearSaver):
    """Escalates the whole batch as soon as one image needs it."""

    def forward(self, images: Tensor) -> Tensor:
        x = images.flatten(1)
        logits = self.saver(x)
        return self.base(x) if (self.margin(logits) > 0).any() else logits


def arms(victim: LinearSaver, count: int) -> tuple[Tensor, Tensor]:
    """Images that the saver answers, and images that it escalates (plain grey: undecided)."""
    drawn = grey_images(200)
    sure = drawn[victim.missing(drawn) > 0][:count]
    assert len(sure) == count
    return sure, torch.full_like(sure, 0.5)


def test_escalated_images_cost_a_batch_their_own_macs_only() -> None:
    victim = LinearSaver()
    curve = batch_curve(victim, *arms(victim, 24), MacsClock(), batch_size=4)
    assert curve.attacked.tolist() == [0, 1, 2, 3, 4]
    assert curve.macs.tolist() == [4 * 32 + 144 * k for k in range(5)]
    assert curve.contamination.tolist() == [1] * 5
    assert set(curve.batches) == {6}
    expected = [(4 * 32 + 144 * k) / (4 * 32) for k in range(5)]
    for column in ("macs_ratio", "latency_ratio", "latency_low", "latency_high"):
        assert curve[column].tolist() == pytest.approx(expected)


def test_a_batch_that_is_padded_pays_for_one_attacked_image() -> None:
    victim = Padding()
    curve = batch_curve(victim, *arms(victim, 24), MacsClock(), batch_size=4, counts=[0, 1, 4])
    full = 4 * (32 + 144)
    assert curve.macs.tolist() == [4 * 32, full, full]
    assert curve.macs_alone.tolist() == [4 * 32, 4 * 32 + 144, full]
    assert curve.contamination.tolist() == pytest.approx([1, full / (4 * 32 + 144), 1])


@pytest.mark.parametrize(
    "settings", [{"batch_size": 0}, {"batch_size": 25}, {"batch_size": 4, "counts": [5]}]
)
def test_batches_that_cannot_be_made_are_refused(settings: dict) -> None:
    victim = LinearSaver()
    with pytest.raises(UsageError):
        batch_curve(victim, *arms(victim, 24), MacsClock(), **settings)


def test_a_service_takes_as_long_as_the_batches_that_were_measured() -> None:
    victim: Victim = LinearSaver()
    measured = time_batches(victim, *arms(victim, 8), MacsClock(), max_batch=3, readings=2)
    assert len(measured) == 2 * (2 + 3 + 4)
    service = drawn_from(measured)
    for images in range(1, 4):
        for attacked in range(images + 1):
            assert service(images, attacked) == 32 * images + 144 * attacked
    with pytest.raises(UsageError):
        time_batches(victim, *arms(victim, 2), MacsClock(), max_batch=3)
