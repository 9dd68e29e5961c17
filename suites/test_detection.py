"""Detectors: an image decides how many boxes are compared, and how many are looked at once more.

Their savings are robust if no small change of an image makes them propose boxes everywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from effattack.suites.shared import Suite, attacked, pytest_generate_tests, units

if TYPE_CHECKING:
    from torch import Tensor

    from effattack.victim import Trace, Victim

__all__ = ["attacked", "pytest_generate_tests"]

VICTIMS = ["scenes_detector", "scenes_two_stage", "scenes_two_stage_adapted", "scenes_pipeline"]


@pytest.mark.effattack(victims=VICTIMS)
class TestDetection(Suite):
    family = "detection"

    def test_opening_gates_never_saves_work(  # type: ignore[override]
        self, effattack_victim: Victim, attacked: dict[str, Trace]
    ) -> None:
        """Where as many boxes came out, and every gate that another image opened was open.

        One more box handed on may drop two others, each of which would have been looked at.
        """
        import torch

        traces = list(attacked.values())
        macs = torch.cat([trace.macs for trace in traces])
        active = torch.cat([units(trace) for trace in traces]).double()
        out = torch.cat([shown(effattack_victim, trace) for trace in traces])
        contained = (1 - active) @ active.T == 0
        cheaper = contained & (out[:, None] >= out) & (macs[:, None] < macs)
        assert not cheaper.any(), f"{int(cheaper.sum())} pairs of images cost less with more open"

    def test_answers_are_sorted_and_within_the_cap(
        self, effattack_victim: Victim, attacked: dict[str, Trace]
    ) -> None:
        """Boxes by falling score, those that pad behind, no more than the task allows."""
        task = effattack_victim.task
        for trace in attacked.values():
            scores = task.answer(trace.logits)[..., 4]
            assert (scores.diff(dim=1) <= 0).all()
            cap = getattr(task, "cap", None)
            assert cap is None or scores.shape[1] <= cap

    def test_pairs_lie_between_what_boxes_allow(
        self, effattack_victim: Victim, attacked: dict[str, Trace]
    ) -> None:
        """Of n boxes that enter one suppression, k stay: these are all compared with one another,
        and each that goes was compared at least once; at most, all are."""
        counts = effattack_victim.counts.keys()
        if "proposals" in counts or not {"boxes", "pairs", "boxes_out"} <= counts:
            pytest.skip(f"{effattack_victim.name} does not suppress all its boxes at once")
        for trace in attacked.values():
            boxes, pairs, out = (trace.also[name] for name in ("boxes", "pairs", "boxes_out"))
            assert (pairs <= boxes * (boxes - 1) / 2).all()
            assert (pairs >= out * (out - 1) / 2 + boxes - out).all()
            assert (shown(effattack_victim, trace) == out).all()


def shown(victim: Victim, trace: Trace) -> Tensor:
    """(B,): boxes in each answer."""
    return (victim.task.answer(trace.logits)[..., 4] >= 0).sum(1)
