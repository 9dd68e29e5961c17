"""What must hold of every victim, before any number measured on it means anything.

One test per invariant of :mod:`effattack.contract`, on the first images of the data.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from effattack._pytest_session import SESSION, in_words
from effattack._pytest_summary import SEVERITY

if TYPE_CHECKING:
    from torch import Tensor

    from effattack.victim import Victim

IMAGES = 16

Holds = Callable[[str], None]


@pytest.fixture
def holds(
    effattack_victim: Victim, effattack_data: tuple[Tensor, Tensor], pytestconfig: pytest.Config
) -> Holds:
    """Checks an invariant by its name; what is lawful but limits an attack becomes a warning."""
    pytestconfig.stash[SESSION].tell(effattack_victim.name, "verdict", SEVERITY[0])

    def holds(invariant: str) -> None:
        __tracebackhide__ = True
        from effattack import contract

        check = getattr(contract, f"check_{invariant}")
        with in_words():
            for limitation in check(effattack_victim, effattack_data[0][:IMAGES]):
                warnings.warn(limitation, stacklevel=2)

    return holds


def test_it_says_all_of_itself(holds: Holds) -> None:
    """Names, shapes and MACs are declared, and both paths give what is declared."""
    holds("declared")


def test_its_margins_tell_its_decisions(holds: Holds) -> None:
    """Gates are well formed; a margin is positive exactly where the decision was to compute."""
    holds("gates")


def test_forward_and_trace_agree(holds: Holds) -> None:
    """What is attacked is what is deployed: both paths give the same logits and decisions."""
    holds("paths_agree")


def test_an_image_does_not_depend_on_its_batch(holds: Holds) -> None:
    """Alone or among others, an image gets the same logits, decisions and MACs."""
    holds("batch_independence")


def test_declared_macs_are_the_executed_ones(holds: Holds) -> None:
    """The audit: the MACs of the closed form are those counted while forward runs, to the last."""
    holds("macs")


def test_gradients_reach_the_pixels(holds: Holds) -> None:
    """From the logits and from every gate; a gradient that is zero everywhere is a warning."""
    holds("gradients")
