"""Published defences of the savings, claimed → adaptive.

    python benchmarks/defences.py --out cells/defences

prints the table of docs/defences.md: per defence what it costs clean images, what is left of the
savings under an attack that was made on the undefended victim (*claimed*: what a defence looks like
to whoever does not attack it), and under attacks that know it (*adaptive*). All shares are of the
savings that the undefended victim has on clean images. One cell per defence is kept in ``--out``;
cells of the same code are not computed again. Ten minutes on one core for all, at 50 images.

The adaptive attacker has AutoSlow through the defence, the claimed inputs, and, where the defence
hides its gradients, a query search; each image counts as the one that costs most. Where the defence
draws, he averages over draws, chooses on draws of his own, and is judged on others: means over five
seeds that no search has used.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from effattack.attacks import build
from effattack.attacks.universal import UniversalAttack
from effattack.cells.spec import code_version
from effattack.measure.statistics import paired_mean
from effattack.models_zoo import load
from effattack.models_zoo.digits import digits
from effattack.threats import Threat, parse_threat
from effattack.victim import Victim
from effattack.victim.audit import audit
from effattack.victim.entry import Entry
from effattack.victim.smoothed import Smoothed

HERE = "effattack.models_zoo.defences.digits"
QUERIES = "QueryAttack(queries=200)"
SEARCHED, JUDGED = range(100, 103), range(5)
"""Seeds of a defence that draws: those that the attacker chooses on, and those he is judged on."""


@dataclass(frozen=True)
class Defence:
    """One row: a defended victim beside the one that it defends."""

    name: str
    undefended: str
    factory: str
    attacks: tuple[str, ...] = ("AutoSlow",)
    """Of the adaptive attacker; queries as well where a defence hides its gradients."""
    claimed: str = "AutoSlow"
    """The attack on the undefended victim."""
    threat: str = ""
    """Where it has one of its own."""
    draws: int = 8
    """That searches average over, where the defence draws."""


@dataclass(frozen=True)
class Row:
    """What a defence costs, and what is left of the savings under attack; shares in [0, 1]."""

    name: str
    victim: str
    accuracy: tuple[float, float]
    """On clean images: undefended, defended."""
    agreement: float
    """Of the defended victim's clean answers with the undefended one's."""
    clean_macs: tuple[float, float]
    max_macs: tuple[float, float]
    flagged: float | None
    """Share of all 300 clean test images that a detector flags."""
    undefended: float
    """Savings left of the undefended victim, attacked."""
    claimed: float
    adaptive: float
    interval: tuple[float, float]
    """Of the adaptive row, at 95 %."""
    attacked_macs: float
    attacked_accuracy: float
    """Of the adaptive row."""

    @property
    def retained(self) -> float:
        """Savings retained, of those that the defended victim itself has on clean images."""
        ceiling = self.max_macs[1]
        return (ceiling - self.attacked_macs) / (ceiling - self.clean_macs[1])

    @property
    def won_back(self) -> float:
        """Share of what the attack takes from the undefended victim that it cannot take here.

        The smaller of two: of the undefended victim's savings, and of its own. Who has become
        cheaper on clean images alone has won back nothing; nor has who has become dearer.
        """
        least = min(self.adaptive, self.retained)
        return (least - self.undefended) / (1 - self.undefended)

    @property
    def verdict(self) -> str:
        """Holds: wins back at least half of what is lost without it, under adaptive attack."""
        if self.max_macs[1] < self.max_macs[0]:
            return "holds as an exact cap"
        return "holds" if self.won_back >= 0.5 else "falls"


POOL, BOTH = "UniversalSlowdown", ("AutoSlow", QUERIES)
CNN, CASCADE = "digits_cnn_early_exit", "digits_tinysaver_cascade"
DEFENCES = [
    Defence("cut-off", CNN, "cnn_cut_off"),
    Defence("hysteresis", CNN, "cnn_hysteresis"),
    Defence("adversarial training, answers", CNN, "cnn_trained_on_answers"),
    Defence("adversarial training, slowdowns", CNN, "cnn_trained_on_slowdowns"),
    Defence("JPEG 75", CNN, "cnn_jpeg", BOTH),
    Defence("3 bits", CNN, "cnn_bits", BOTH),
    Defence("median 3 x 3", CNN, "cnn_median", BOTH),
    Defence("random crop, rescaled", CNN, "cnn_crop"),
    Defence("noise", CNN, "cnn_noise"),
    Defence("squeezing detector", CASCADE, "cascade_screened", BOTH),
    Defence("token cap, by confidence", "digits_vit_ats", "ats_cap_confidence"),
    Defence("token cap, at random", "digits_vit_ats", "ats_cap_random"),
    Defence("token cap, by confidence", "digits_vit_avit", "avit_cap_confidence"),
    Defence("token cap, at random", "digits_vit_avit", "avit_cap_random"),
    Defence(
        "patch pool, patches", "digits_vit_avit", "avit_patch_pool", (POOL,), POOL, "patch:8@0,0"
    ),
    Defence("patch pool, per image", "digits_vit_avit", "avit_patch_pool"),
]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--eps", default="4/255")
    parser.add_argument("--only", nargs="+", metavar="FACTORY", help="some of the defences")
    parser.add_argument("--attack", nargs="+", help="of the adaptive attacker, in place of ours")
    parser.add_argument("--draws", type=int, default=8, help="that searches average over")
    parser.add_argument("--out", type=Path, help="folder of finished cells")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(HEAD)
    for defence in DEFENCES:
        if options.only and defence.factory not in options.only:
            continue
        own = replace(
            defence,
            threat=defence.threat or f"linf:{options.eps}",
            attacks=tuple(options.attack or defence.attacks),
            draws=options.draws,
        )
        print(_line(_cell(own, options.images, options.out)), flush=True)


HEAD = (
    "| defence | on | accuracy, clean | agree | MACs, clean (M) | left: undefended | claimed | "
    "adaptive | of its own | accuracy, attacked | max (M) | verdict |\n"
    "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|"
)


def _line(row: Row) -> str:
    low, high = row.interval
    flagged = "" if row.flagged is None else f" ({row.flagged:.0%} flagged)"
    before, after = (f"{macs / 1e6:.2f}" for macs in row.clean_macs)
    return (
        f"| {row.name} | `{row.victim}` | {row.accuracy[0]:.0%} → {row.accuracy[1]:.0%} "
        f"| {row.agreement:.0%}{flagged} | {before} → {after} | {row.undefended:.0%} "
        f"| {row.claimed:.0%} | **{row.adaptive:.0%}** ({low:.0%} to {high:.0%}) "
        f"| {row.retained:.0%} | {row.attacked_accuracy:.0%} | {row.max_macs[0] / 1e6:.2f} → "
        f"{row.max_macs[1] / 1e6:.2f} | {row.verdict} |"
    )


def _cell(defence: Defence, images: int, out: Path | None) -> Row:
    """A row, from its file where there is one."""
    asked = [asdict(defence), images, code_version(), torch.__version__]
    key = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]
    path = None if out is None else out / f"{defence.factory}-{key}.json"
    if path is not None and path.exists():
        stored = json.loads(path.read_text(encoding="utf-8"))
        fields: dict[str, Any] = {k: _unlisted(v) for k, v in stored.items()}
        return Row(**fields)
    row = _row(defence, images)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(asdict(row), indent=1), encoding="utf-8")
        part.replace(path)
    return row


def _unlisted(value: Any) -> Any:
    """A pair, which JSON keeps as a list."""
    return tuple(value) if isinstance(value, list) else value


def _row(defence: Defence, count: int) -> Row:
    images, labels = (part[:count] for part in digits("test"))
    plain, defended = load(defence.undefended), load(f"{HERE}:{defence.factory}")
    if _is_random(defended):
        defended.draws = defence.draws
    threat = parse_threat(defence.threat)
    taken = _undefended(defence.undefended, defence.claimed, threat, count)
    ways = [taken]
    for attack in defence.attacks:
        ways.append(_crafted(attack, defended, threat, count))
    worst = _worst(defended, ways)
    before, lost = (_judged(plain, inputs, labels) for inputs in (images, taken))
    clean, claimed, adaptive = (
        _judged(defended, inputs, labels) for inputs in (images, taken, worst)
    )
    saved = plain.max_macs - before.macs.mean().item()

    def left(macs: Tensor) -> float:
        return (plain.max_macs - macs.mean().item()) / saved

    rise = paired_mean(adaptive.macs.numpy(), before.macs.numpy())
    look: Callable[[Tensor], Tensor] | None = getattr(defended, "flagged", None)
    return Row(
        name=defence.name,
        victim=plain.name,
        accuracy=(before.accuracy, clean.accuracy),
        agreement=(before.answers == clean.answers).double().mean().item(),
        clean_macs=(before.macs.mean().item(), clean.macs.mean().item()),
        max_macs=(plain.max_macs, defended.max_macs),
        flagged=None if look is None else look(digits("test")[0]).double().mean().item(),
        undefended=left(lost.macs),
        claimed=left(claimed.macs),
        adaptive=left(adaptive.macs),
        interval=(1 - rise.high / saved, 1 - rise.low / saved),
        attacked_macs=adaptive.macs.mean().item(),
        attacked_accuracy=adaptive.accuracy,
    )


@dataclass(frozen=True)
class Judged:
    """What a victim does with some inputs: means over seeds, where it draws."""

    macs: Tensor
    """(B,), executed."""
    answers: Tensor
    """(seeds, B) class indices."""
    accuracy: float


def _judged(victim: Victim, inputs: Tensor, labels: Tensor) -> Judged:
    found = [audit(one, inputs) for one in _draws(victim, JUDGED)]
    answers = torch.stack([each.logits.argmax(1) for each in found])
    macs = torch.stack([each.macs for each in found]).mean(0)
    return Judged(macs, answers, (answers == labels).double().mean().item())


def _worst(victim: Victim, ways: list[Tensor]) -> Tensor:
    """Per image the input that costs most, on the attacker's own draws."""
    spent = torch.stack(
        [
            torch.stack([audit(one, inputs).macs for one in _draws(victim, SEARCHED)]).mean(0)
            for inputs in ways
        ]
    )
    return torch.stack(ways)[spent.argmax(0), torch.arange(len(ways[0]))]


def _draws(victim: Victim, seeds: range) -> list[Any]:
    """A victim that draws, under each seed; another one as it is."""
    return [victim.seeded(seed) for seed in seeds] if _is_random(victim) else [victim]


def _is_random(victim: Victim) -> bool:
    drawing = isinstance(victim, Entry) and any(step.draws for step in victim.through)
    return drawing or isinstance(victim, Smoothed)


@cache
def _undefended(name: str, attack: str, threat: Threat, count: int) -> Tensor:
    return _crafted(attack, load(name), threat, count)


def _crafted(text: str, victim: Victim, threat: Threat, count: int) -> Tensor:
    """Test images attacked on a victim; a universal attack is fitted on held-out ones."""
    attack = build(text, victim, threat)
    if isinstance(attack, UniversalAttack):
        attack.fit(*(part[:64] for part in digits("heldout")))
    images, labels = (part[:count] for part in digits("test"))
    return attack(images, labels)


if __name__ == "__main__":
    main()
