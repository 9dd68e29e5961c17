"""Methods of hardening by name: what a network is trained on, and by which loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from inspect import signature

from effattack.attacks.objectives import MarginHinge, Objective, require_gates
from effattack.errors import UsageError, unknown_name
from effattack.hardening.bounds import Bounded
from effattack.hardening.groups import Evenly, WorstGroups
from effattack.hardening.inner import Ascent, Both, Noise, WrongAnswers
from effattack.hardening.losses import Attacked, Losses
from effattack.registry import read_name
from effattack.victim import Trace, Victim

Weighing = Callable[[int], Evenly]
"""A number of groups -> what makes one loss of the losses of a batch."""


@dataclass(frozen=True)
class Method:
    """How a victim is hardened.

    Args:
        losses: what its network is trained on; None: nothing is trained, and thresholds alone are
            chosen.
        weighing: how the losses of a batch become one.
    """

    losses: Losses | None
    weighing: Weighing = Evenly

    def check(self, trace: Trace, victim: Victim) -> None:
        """Refuse a victim that shows no decision, or lacks what the losses need.

        Raises:
            NotApplicable: with the reason.
        """
        require_gates(trace, victim)
        if self.losses is not None:
            self.losses.check(trace, victim)


def ascent(
    objective: Objective, steps: int = 3, clean: float = 0.5, margins: float = 0.0
) -> Method:
    """Adversarial fine-tuning; ``steps`` of the ascent, the rest as :class:`Attacked` has it."""
    return Method(Attacked(Ascent(objective, steps), clean, margins))


def noise(sigma: float = 0.1, clean: float = 0.5, margins: float = 0.0) -> Method:
    """Training under noise N(0, σ²), no attack: what smoothing certifies is trained so."""
    return Method(Attacked(Noise(sigma), clean, margins))


def groups(rate: float = 0.01, steps: int = 3, clean: float = 0.5, margins: float = 0.0) -> Method:
    """Adversarial fine-tuning on answers, weighed by group against the worst of them."""
    losses = Attacked(Ascent(WrongAnswers(), steps), clean, margins)
    return Method(losses, partial(WorstGroups, rate=rate))


def bounds(most: float = 0.5, ramp: float = 0.6) -> Method:
    """Training through interval bounds, of chains of plain layers."""
    return Method(Bounded(most, ramp))


def thresholds() -> Method:
    """No training: thresholds are chosen under attack."""
    return Method(None)


METHODS: Mapping[str, Callable[..., Method]] = {
    "answers": partial(ascent, WrongAnswers()),
    "hinge": partial(ascent, MarginHinge()),
    "both": partial(ascent, Both(WrongAnswers(), MarginHinge())),
    "noise": noise,
    "bounds": bounds,
    "groups": groups,
    "thresholds": thresholds,
}
"""What ``--method`` takes -> the method, by its options."""


def method_of(text: str) -> Method:
    """The method that is written as ``NAME`` or ``NAME(option=value, ...)``.

    Raises:
        UsageError: for an unknown name, or an option that it does not have.
    """
    name, options = read_name(text)
    if name not in METHODS:
        raise unknown_name("method", name, METHODS)
    known = [key for key in signature(METHODS[name]).parameters if key != "objective"]
    if wrong := [key for key in options if key not in known]:
        has = f"it has {', '.join(known)}" if known else "it has none"
        raise UsageError(f"method {name} has no option {wrong[0]!r}: {has}")
    try:
        return METHODS[name](**options)
    except TypeError as error:
        raise UsageError(f"method {text!r}: give its options numbers ({error})") from error
