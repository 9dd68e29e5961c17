"""Transfer: crafted on one model, scored on another.

Quantization masks gradients (Bernhard et al., "Impact of Low-bitwidth Quantization on the
Adversarial Robustness for Embedded Neural Networks", 2019, arXiv 1909.12741): where an attack from
the float model does better than one on the victim itself, the victim's gradient misleads.
"""

from __future__ import annotations

from math import nan
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor, nn

from effattack.attacks.base import Attack, Kind
from effattack.attacks.objectives import Goal
from effattack.attacks.universal import UniversalAttack
from effattack.errors import NotApplicable, UsageError
from effattack.victim import Trace, Victim, load_victim
from effattack.victim.digests import victim_digest
from effattack.victim.door import blank
from effattack.victim.undisturbed import undisturbed


class Transfer(Attack):
    """An attack made for a source model; the victim is only scored.

    Args:
        victim: the victim.
        eps: l-inf budget in [0, 1] pixels.
        source: the model that is attacked in its place, a victim made of one, or the name of a
            registered victim; by default the float model that a quantized or pruned victim was
            made of.
        attack: name of an attack on the source, with its options but without a budget.
        threat: another budget in place of ``eps``.
        seed: of the attack.

    Raises:
        NotApplicable: without a source, for a victim that knows no float model of its own.
        UsageError: for a source of other images or classes, or an unknown attack.
    """

    kind: ClassVar[Kind] = "accuracy"
    knowledge = "transfer"

    source: Any = None
    attack: str = "foolbox.LinfPGD"

    def prepare(self) -> None:
        from effattack.attacks.by_name import build  # which finds this class, too

        victim, source = self.victim, self.source
        if isinstance(source, str):
            source = load_victim(source)
        if source is not None:
            told = getattr(source, "name", type(source).__name__)
            self.settings = {**self.settings, "source": told}
        else:
            source = getattr(victim, "float_model", None)
        if source is None:
            raise NotApplicable(
                f"{victim.name} knows no float model to transfer from: give source=..., or use a "
                "quantized or pruned victim (Quantized, LLMInt8, Pruned)"
            )
        self.source = source if isinstance(source, Victim) else FloatModel(source, victim)
        if self.source.num_classes != victim.num_classes:
            raise UsageError(
                f"the source has {self.source.num_classes} classes and {victim.name} "
                f"{victim.num_classes}: transfer from a model of the same task"
            )
        self.source_digest = victim_digest(self.source)
        self.crafted = build(self.attack, self.source, self.threat, self.seed)
        if isinstance(self.crafted, UniversalAttack):
            raise UsageError(
                f"{self.attack} is universal: fit it on the source, and score it on the victim, "
                "yourself"
            )

    @property
    def gradients(self) -> int:
        return self.crafted.gradients

    def run(self, clean: Tensor, goal: Goal, generator: Generator) -> Tensor:
        return self.crafted(clean, goal.labels, goal.callback).to(clean)


class FloatModel(Victim):
    """A plain model as something to attack: logits, no gates, no accounts of its MACs."""

    def __init__(self, model: nn.Module, like: Victim) -> None:
        with undisturbed(model), torch.no_grad():
            classes = model(blank(model, like.domain, 1)).shape[1]
        super().__init__(
            name=type(model).__name__,
            family="plain",
            input_shape=like.input_shape,
            num_classes=classes,
            max_macs=nan,
            dense_macs=nan,
        )
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)

    def trace(self, images: Tensor) -> Trace:
        macs = images.new_full((len(images),), nan, dtype=torch.float64)
        return Trace(logits=self.model(images), gates=(), macs=macs)
