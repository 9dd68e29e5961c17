"""Runs of a user's model on trial inputs, before anything is scored.

Each input is run as it is, and with everything that can be forced open (nothing saved).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from effattack.counting.macs import MacsCounter
from effattack.errors import EffattackError, UsageError, first_line
from effattack.victim.hooked.decision import Decision, openings
from effattack.victim.hooked.passes import Pass, run


class Spent(NamedTuple):
    """The MACs of one run."""

    macs: int
    by_module: dict[str, int]
    """By dotted name; of a module that was called, its parts included."""

    def under(self, module: str) -> int:
        """MACs of a module, whose parts may have been called without it."""
        inside = [key for key in self.by_module if f"{key}.".startswith(f"{module}.")]
        return sum(
            self.by_module[key]
            for key in inside
            if not any(key.startswith(f"{outer}.") for outer in inside)
        )


class Trial(NamedTuple):
    """One run on one input (1, *input_shape)."""

    image: Tensor
    passed: Pass
    spent: Spent

    @property
    def macs(self) -> int:
        return self.spent.macs


def counted(
    model: nn.Module,
    image: Tensor,
    decisions: Sequence[Decision],
    forced: Mapping[str, float] | None = None,
) -> Trial:
    """One run on one input (1, *input_shape), and what it executed."""
    with torch.no_grad(), MacsCounter(model) as counter:
        passed = run(model, image, decisions, forced)
    root = f"{type(model).__name__}."
    by_module = {key.removeprefix(root): macs for key, macs in counter.by_module.items()}
    return Trial(image, passed, Spent(counter.total, by_module))


class Trials:
    """All of them.

    Args:
        model: in eval mode.
        decisions: checked against the model.
        images: (T, *input_shape).

    Attributes:
        natural: as the model runs; by input.
        opened: with everything forced open that can be; the same, where nothing can.

    Raises:
        UsageError: where the model does not run on them.
    """

    def __init__(self, model: nn.Module, decisions: Sequence[Decision], images: Tensor) -> None:
        self.model, self.decisions = model, decisions
        self.forcible = openings(decisions)
        self.natural = [self.run(image, {}) for image in images.split(1)]
        self.opened = self.natural
        if self.forcible:
            self.opened = [self.run(image, self.forcible) for image in images.split(1)]

    @property
    def classes(self) -> int:
        """Width of the logits.

        Raises:
            UsageError: if they are none.
        """
        logits = self.natural[0].passed.logits
        if logits.dim() != 2 or logits.shape[1] < 2:
            raise UsageError(
                f"{type(self.model).__name__} answers with {tuple(logits.shape)}: return plain "
                "logits (B, classes), of two classes or more, or give task="
            )
        return logits.shape[1]

    def run(self, image: Tensor, forced: Mapping[str, float]) -> Trial:
        """One run, counted."""
        told = f" with {', '.join(forced)} forced" if forced else ""
        try:
            return counted(self.model, image, self.decisions, forced)
        except EffattackError:
            raise
        except Exception as error:  # whatever a user's model raises
            remedy = "leave threshold= out, and name what it spares" if told else "see input_shape"
            raise UsageError(
                f"{type(self.model).__name__} does not run on one input, {tuple(image.shape)} in "
                f"{image.dtype}{told} ({first_line(error)}): {remedy}"
            ) from error

    def reaching(self, decision: Decision) -> Trial:
        """A run that reached a decision, as open as can be.

        Raises:
            UsageError: if there is none.
        """
        for trial in (*self.opened, *self.natural):
            if decision.name in trial.passed.tensors:
                return trial
        raise UsageError(
            f"decision {decision.name}: {decision.module} was never computed on "
            f"{len(self.natural)} trial inputs: give inputs on which it is, trial=images, or name "
            "the attribute that forces what comes before it, threshold="
        )

    def macs_of(self, module: str) -> int:
        """The most that a module executed.

        Raises:
            UsageError: if it never did.
        """
        if most := max(trial.spent.under(module) for trial in (*self.opened, *self.natural)):
            return most
        raise UsageError(
            f"spares: {module} multiplies nothing on {len(self.natural)} trial inputs: give inputs "
            "on which it does, trial=images, or name the attribute that forces it, threshold="
        )
