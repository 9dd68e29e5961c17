"""Hardened victims: the zoo's own, trained on under attack by ``effattack.hardening``.

Settings were chosen on held-out images. All start from the weights of the victim that they harden;
``docs/hardening.md`` says what was reached.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor

from effattack.hardening import Hardened, Schedule, Terms, harden
from effattack.hardening.losses import Lesson, Losses
from effattack.hardening.methods import Method, method_of
from effattack.models_zoo import hardened
from effattack.models_zoo.digits import digits
from effattack.models_zoo.files import WEIGHTS, read_card, save_weights, write_card
from effattack.models_zoo.recipes import common
from effattack.models_zoo.recipes.fitting import shifted
from effattack.victim import Trace, Victim, load_victim


@dataclass(frozen=True)
class Setting:
    """How one victim is hardened.

    Args:
        method: of :mod:`effattack.hardening.methods`.
        threat: at which thresholds are chosen, and the result is judged.
        train_at: what is trained against.
        epochs, rate: of the schedule.
        onward: share of clean held-out images that go on past the first stage, at least.
        attacked: held-out images under AutoSlow, before and after.
        allowed: accuracy that may be lost on held-out images.
        parts: names of the modules that learn; None: those that ``harden`` takes.
    """

    method: str
    threat: str
    train_at: str
    epochs: int
    rate: float
    onward: float = 0.02
    attacked: int = 48
    allowed: float = 0.01
    parts: tuple[str, ...] | None = None


SETTINGS: dict[str, Setting] = {
    "digits_cnn_early_exit": Setting("both", "linf:4/255", "linf:8/255", epochs=45, rate=2e-3),
    "digits_tinysaver_cascade": Setting(
        "both", "linf:4/255", "linf:10/255", epochs=60, rate=5e-3, onward=0.04
    ),
    "digits_skipnet": Setting(
        "both(steps=2, clean=1.0, margins=0.1)",
        "linf:8/255",
        "linf:9/255",
        epochs=26,
        rate=1.5e-3,
        attacked=32,
        parts=("stem", "blocks", "head"),
    ),
    "digits_vit_ats": Setting(
        "both(steps=2, margins=0.3)",
        "linf:4/255",
        "linf:8/255",
        epochs=16,
        rate=5e-4,
        allowed=0.03,
    ),
}


def harden_victim(name: str, seed: int = 0) -> Hardened:
    """The victim of that name, hardened by its setting.

    Raises:
        HardeningError: if more accuracy was lost on held-out images than the setting allows.
    """
    setting = SETTINGS[name]
    method = method_of(setting.method)
    victim, losses = load_victim(name), method.losses
    assert losses is not None, f"{name}: its setting trains nothing"
    method = Method(InBfloat16(losses), method.weighing)
    return harden(
        victim,
        *digits("train"),
        setting.threat,
        method,
        train_at=setting.train_at,
        schedule=Schedule(setting.epochs, setting.rate, seed=seed, augment=moved),
        terms=Terms(setting.allowed, setting.onward, setting.attacked),
        heldout=digits("heldout"),
        parts=setting.parts,
        told=lambda epoch: print(f"  {epoch}", flush=True),
    )


def moved(images: Tensor, generator: Generator) -> Tensor:
    """Each by up to three pixels, as the victims themselves were trained."""
    return shifted(images, 3, generator)


@dataclass(frozen=True)
class InBfloat16:
    """Losses in mixed precision, half as fast again on a CPU; thresholds and scores are not.

    Args:
        losses: to be computed.
    """

    losses: Losses

    def check(self, trace: Trace, victim: Victim) -> None:
        self.losses.check(trace, victim)

    def __call__(self, lesson: Lesson) -> Tensor:
        with torch.autocast(lesson.inputs.device.type, dtype=torch.bfloat16):
            return self.losses(lesson).float()


def train_hardened(name: str) -> None:
    """Harden, store what has changed, and write the card."""
    found = harden_victim(name)
    print(found.card)
    own = f"{name}_hardened"
    save_weights(hardened.changed_part(found.victim), WEIGHTS / f"{own}.safetensors")
    chosen = found.card.thresholds
    threshold = list(chosen) if isinstance(chosen, tuple) else chosen
    write_card(own, {"threshold": threshold})
    factory: Callable[[], Victim] = getattr(hardened, own)
    facts: dict[str, Any] = {"hardened": found.card.method, "trained_at": found.card.trained_at}
    common.describe(
        factory(),
        recipe=own,
        dense_accuracy=read_card(name)["dense_accuracy"],
        threshold=threshold,
        **facts,
    )


RECIPES: dict[str, Callable[[], None]] = {
    f"{name}_hardened": partial(train_hardened, name) for name in SETTINGS
}
