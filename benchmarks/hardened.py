"""What hardening bought, and what it cost: the hardened victims under attacks that know them.

    python benchmarks/hardened.py --victims digits_cnn_early_exit,digits_tinysaver_cascade \
        --eps 4/255,8/255 --out hardened

scores ``NAME_hardened`` beside ``NAME`` on test images, and prints two tables with a row per victim
and budget:

* savings retained: under AutoSlow, of the victim that ships and of its hardened form, for each of
  ``--seeds`` of the training (0 is the one that comes along; the others are trained by the same
  recipe, once, and kept in ``--out/twins``); then, of the one that comes along, on the first
  ``--few`` images, under ten times the gradients (AutoSlow with five seeds and 1,000 steps of the
  house attack, the worst for each image), under 1,000 queries, and under AutoSlow on each twin (the
  worst for each image);
* accuracy: clean, under AutoSlow, under ``foolbox.LinfPGD``, and under an attack that asks to be
  wrong and cheap (``cheap_and_wrong.py``), with the work of its images over that of the clean ones;
  and the static network of equal attacked cost (``static_networks.py``), clean and under PGD.

Finished cells lie in ``--out``: the same command resumes.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from cheap_and_wrong import CheapAndWrong
from static_networks import static_network
from tables import markdown
from torch import Tensor, nn

from effattack import evaluate
from effattack.attacks import Attack, build
from effattack.attacks.house.transfer import Transfer
from effattack.budgets import parse_eps, size_text
from effattack.errors import HardeningError
from effattack.hardening.stored import load, save
from effattack.inputs.source import load_data
from effattack.models_zoo import hardened
from effattack.models_zoo.cascade.cascade import Cascade
from effattack.models_zoo.digits import digits
from effattack.models_zoo.recipes.hardened import harden_victim
from effattack.victim import Victim, load_victim

PGD = "foolbox.LinfPGD"


class Question(NamedTuple):
    """A budget, and the images that it is asked on."""

    images: Tensor
    labels: Tensor
    few: int
    eps: float
    cells: Path

    def rows(self, victim: Victim, attacks: Sequence[Attack], few: bool = False) -> pd.DataFrame:
        """The scores, by attack; ``union`` is the worst of all for each image."""
        last = self.few if few else len(self.images)
        found = evaluate(
            victim,
            self.images[:last],
            self.labels[:last],
            attacks,
            timed=0,
            out=self.cells,
            corpus_mb=0,
        )
        return found.scores().set_index("attack")

    def attack(self, victim: Victim, text: str = "AutoSlow", seed: int = 0) -> Attack:
        """An attack on the compute; of a cascade, crafted without its last model."""
        source = without_last(victim)
        if source is None:
            return build(text, victim, self.eps, seed)
        return Transfer(victim, self.eps, source=source, attack=text, seed=seed)

    def kept(self, victim: Victim) -> float:
        """Savings retained under AutoSlow."""
        attack = self.attack(victim)
        return float(self.rows(victim, [attack]).savings_retained[attack.name])

    def worst(self, victim: Victim, attacks: Sequence[Attack]) -> float:
        """Savings retained under the worst of attacks for each of the few images."""
        return float(self.rows(victim, attacks, few=True).savings_retained["union"])

    def harder(self, victim: Victim, others: Sequence[Victim]) -> dict[str, float]:
        """Savings retained under what goes beyond AutoSlow, on the few images."""
        eps = self.eps
        more = [self.attack(victim, seed=seed) for seed in range(5)]
        more.append(self.attack(victim, "Slowdown(steps=1000)"))
        queries = [build("QueryAttack(queries=1000)", victim, eps)]
        found = {"more": self.worst(victim, more), "queries": self.worst(victim, queries)}
        if others:
            crafted = [
                Transfer(victim, eps, source=without_last(twin) or twin, attack="AutoSlow")
                for twin in others
            ]
            found["transfer"] = self.worst(victim, crafted)
        return found

    def accuracy(self, victim: Victim, heldout: Tensor) -> dict[str, Any]:
        """Accuracy of the victim, and of the static network of equal attacked cost."""
        slow = self.attack(victim)
        attacks = [
            slow,
            build(PGD, victim, self.eps),
            CheapAndWrong(victim, self.eps),
        ]
        rows = self.rows(victim, attacks)
        cheap = rows.loc[attacks[2].name]
        found = {
            "clean": rows.accuracy["clean"],
            "AutoSlow": rows.accuracy[slow.name],
            "PGD": rows.accuracy[attacks[1].name],
            "wrong and cheap": f"{cheap.accuracy:.3f} (×{cheap.macs / cheap.clean_macs:.2f})",
        }
        static = static_network(victim, rows.macs[slow.name], heldout)
        if static is None:
            return {**found, "static network": "–", "its clean": "–", "its PGD": "–"}
        attacked = build(PGD, static.victim, self.eps)(self.images, self.labels)
        return {
            **found,
            "static network": f"{static.words}, {static.macs / victim.max_macs:.3f} of max "
            f"(attacked: {rows.macs[slow.name] / victim.max_macs:.3f})",
            "its clean": share_right(static.victim, self.images, self.labels),
            "its PGD": share_right(static.victim, attacked, self.labels),
        }


def without_last(victim: Victim) -> Victim | None:
    """A cascade whose last model answers nothing, at the cost that it has; None for others.

    No decision reads that model, and no objective on the compute does: what is crafted here is what
    would be crafted on the cascade, for a fraction of the work.
    """
    if not isinstance(victim, Cascade):
        return None
    lighter = copy.deepcopy(victim)
    lighter.models[-1] = Silent(victim.num_classes)
    lighter.name = f"{victim.name} without its last model"
    return lighter


class Silent(nn.Module):
    """The same logits for every class."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, images: Tensor) -> Tensor:
        return images.new_zeros(len(images), self.classes)


def share_right(victim: Victim, images: Tensor, labels: Tensor) -> float:
    """Accuracy of the deployed path."""
    with torch.no_grad():
        return (victim(images).argmax(1) == labels).double().mean().item()


def factory(name: str) -> Callable[..., Victim]:
    """What makes the hardened form of a victim."""
    found: Callable[..., Victim] = getattr(hardened, f"{name}_hardened")
    return found


def twin(name: str, seed: int, out: Path) -> Victim:
    """The victim hardened with another seed, whatever that cost: trained once, then read."""
    folder = out / "twins" / f"{name}_hardened_{seed}"
    if not (folder / "card.json").exists():
        save(_hardened_anyway(name, seed), folder)
    victim = factory(name)(trained=False)
    victim.name = folder.name
    return load(victim, folder)


def _hardened_anyway(name: str, seed: int) -> Any:
    try:
        return harden_victim(name, seed)
    except HardeningError as error:
        print(f"{name}, seed {seed}: {error}", flush=True)
        return error.hardened


def savings(
    ask: Question, name: str, victims: Sequence[Victim], seeds: Sequence[int], brief: bool
) -> dict[str, float]:
    """Savings retained by the victim that ships, by its hardened form of each seed, and beyond."""
    kept = {f"seed {seed}": ask.kept(v) for seed, v in zip(seeds, victims, strict=True)}
    harder = {} if brief else ask.harder(victims[0], victims[1:])
    return {"shipped": ask.kept(load_victim(name)), **kept, **harder}


def numbers(value: Any) -> str:
    """As a cell of a table."""
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--victims", default="digits_cnn_early_exit,digits_tinysaver_cascade")
    parser.add_argument("--eps", default="4/255,8/255")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--few", type=int, default=50, help="images of the dear attacks (50)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--tables",
        nargs="+",
        choices=("savings", "answers"),
        default=["savings", "answers"],
        help="which of the two are made (both)",
    )
    parser.add_argument("--brief", action="store_true", help="AutoSlow and accuracy alone")
    parser.add_argument("--out", type=Path, default=Path("hardened"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    made: dict[str, list[dict[str, Any]]] = {table: [] for table in args.tables}
    for name in args.victims.split(","):
        victim = factory(name)()
        twins = [twin(name, seed, args.out) for seed in args.seeds[1:]]
        images, labels = (part[: args.images] for part in load_data(None, victim))
        for text in args.eps.split(","):
            eps = parse_eps(text)
            ask = Question(images, labels, args.few, eps, args.out)
            asked: dict[str, Callable[[], dict[str, Any]]] = {
                "savings": partial(savings, ask, name, [victim, *twins], args.seeds, args.brief),
                "answers": partial(ask.accuracy, victim, digits("heldout")[0]),
            }
            label = {"victim": f"`{victim.name}`", "ε": size_text("linf", eps)}
            for table, rows in made.items():
                rows.append({**label, **asked[table]()})
                print(rows[-1], flush=True)
    for rows in made.values():
        print("\n" + markdown(pd.DataFrame(rows).fillna("–").map(numbers)))


if __name__ == "__main__":
    main()
