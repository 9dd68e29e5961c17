"""The training of a hardening: which parts of a victim learn, and from what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Generator, Tensor, nn

from effattack.errors import (
    GradientError,
    MeasurementError,
    NotApplicable,
    UsageError,
    expect_least,
    expect_seed,
    unknown_name,
)
from effattack.hardening.data import Data
from effattack.hardening.fitting import Augment, Epoch, fit
from effattack.hardening.losses import Lesson
from effattack.hardening.methods import Method
from effattack.hardening.savers import Savers
from effattack.threats import ArrayThreat
from effattack.victim import Victim
from effattack.victim.structure import Models
from effattack.victim.twins import quantized
from effattack.victim.undisturbed import seed_global_state, undisturbed


def as_stored(inputs: Tensor, generator: Generator) -> Tensor:
    """Training inputs as they are."""
    return inputs


@dataclass(frozen=True)
class Schedule:
    """How long is trained, and from which start.

    Args:
        epochs: passes over the training inputs.
        rate: the learning rate at the top of its one cycle.
        batch: inputs of one step.
        seed: of the order, of the ascents and of what the network draws.
        augment: moves training inputs about; as they are by default.
    """

    epochs: int = 30
    rate: float = 2e-3
    batch: int = 64
    seed: int = 0
    augment: Augment = as_stored

    def __post_init__(self) -> None:
        expect_least("epochs", self.epochs, 1)
        expect_least("batch", self.batch, 1)
        expect_seed(self.seed)
        if not 0 < self.rate < float("inf"):
            raise UsageError(f"rate = {self.rate}: give a learning rate above 0")

    def told(self) -> dict[str, float]:
        """Its numbers, by name."""
        names = ("epochs", "rate", "batch", "seed")
        return {name: getattr(self, name) for name in names}


def learner(victim: Victim, names: Sequence[str] | None) -> Victim:
    """What is traced in training: of a cascade whose last model learns nothing, the others."""
    structure = victim.structure()
    if names is None and isinstance(structure, Models) and hasattr(structure.criterion, "margin"):
        return Savers(victim, structure)
    return victim


def learning_parts(victim: Victim, names: Sequence[str] | None) -> list[nn.Module]:
    """The modules that are trained: of a cascade all models but the last, else the whole victim.

    Args:
        victim: whose they are.
        names: of modules of it, dotted, in place of these.

    Raises:
        UsageError: for a name that no module has.
        NotApplicable: for a victim without weights that can be trained.
    """
    known = dict(victim.named_modules())
    structure = victim.structure()
    if names is not None:
        if missing := [name for name in names if name not in known]:
            raise unknown_name("module", missing[0], [name for name in known if name])
        parts = [known[name] for name in names]
    elif isinstance(structure, Models):
        parts = list(structure.models[:-1])
    else:
        parts = [victim]
    if quantized(victim):
        raise NotApplicable(
            f"{victim.name} has quantized weights, whose training has no gradient: harden the "
            "float victim, then quantize it again"
        )
    if victim.sees == "answers" or not any(list(part.parameters()) for part in parts):
        raise NotApplicable(
            f"{victim.name} shows no weights to train: wrap the model that it was made from"
        )
    return parts


def train(
    victim: Victim,
    method: Method,
    data: Data,
    threat: ArrayThreat,
    schedule: Schedule,
    *,
    parts: Sequence[nn.Module],
    checkpoint: Path | None,
    told: Callable[[Epoch], None],
) -> None:
    """Train parts of a victim in place; all else stays as it was.

    Args:
        victim: whose parts they are.
        method: with losses.
        data: what it is trained on.
        threat: bound to its domain.
        schedule: how long.
        parts: what learns.
        checkpoint: written after each epoch; where it exists, training goes on from it.
        told: called after each epoch.

    Raises:
        NotApplicable: where no gradient reaches the parts.
        MeasurementError: where the loss is no number any more.
    """
    assert method.losses is not None
    losses, (inputs, labels, groups, *_) = method.losses, data
    generator = Generator().manual_seed(schedule.seed)
    weighing = method.weighing(int(groups.max()) + 1).to(victim.device)
    batch = min(schedule.batch, len(inputs))
    steps = schedule.epochs * (len(inputs) // batch)

    def loss(some: Tensor, rows: Tensor) -> Tensor:
        victim.eval()
        rows = rows.cpu()
        truth, their = (each[rows].to(some.device) for each in (labels, groups))
        progress = weighing.steps.item() / steps
        try:
            found = losses(Lesson(victim, some, truth, threat, generator, progress))
        except GradientError as error:
            if not progress:
                raise
            raise _diverged(victim, progress) from error
        value = weighing(found, their)
        if not value.requires_grad:
            raise NotApplicable(
                f"{victim.name} has no gradient in the weights that are to be trained: compute "
                "logits and margins in trace() without detach, no_grad or integer kernels"
            )
        if not torch.isfinite(value):
            raise _diverged(victim, progress)
        return value

    with undisturbed(victim):
        seed_global_state(schedule.seed)
        for parameter in nn.ModuleList(parts).parameters():
            if parameter.is_floating_point():
                parameter.requires_grad_()
        fit(
            nn.ModuleList([*parts, weighing]),
            loss,
            (inputs, torch.arange(len(inputs))),
            schedule.augment,
            epochs=schedule.epochs,
            rate=schedule.rate,
            batch=batch,
            checkpoint=checkpoint,
            generator=generator,
            told=told,
        )


def _diverged(victim: Victim, progress: float) -> MeasurementError:
    return MeasurementError(
        f"{victim.name}: the loss is no number any more after {progress:.0%} of the training: take "
        "a lower rate"
    )
