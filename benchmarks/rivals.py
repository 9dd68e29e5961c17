"""AutoSlow beside every attack at its 200 gradients, and beside the best known point.

    python benchmarks/rivals.py --out rivals                    # equal gradients, three seeds
    python benchmarks/rivals.py --best --images 20 --out rivals  # what ten times as many find

Per victim, at the ε of 1, 2, 4, 8 and 16 /255 at which AutoSlow takes back closest to half of the
savings of held-out images; the images that are scored have no part in that. ``--best`` is the union
of the strategies of ``STRATEGIES``, of 2,000 gradients each (an attack that takes two per step: in
1,000 steps), and of AutoSlow itself: a lower bound of the true worst case. Finished cells lie in
``--out``: the same command resumes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from strength import attack_names, numbers
from tables import markdown
from torch import Tensor

from effattack.models_zoo.digits import digits
from effattack.runs.sweep import Sweep
from effattack.victim import load_victim

EPS = (1, 2, 4, 8, 16)
"""In 1/255."""
DIGITS = (
    "digits_cnn_sdn", "digits_cnn_early_exit", "digits_tinysaver_cascade", "digits_msdnet",
    "digits_esn", "digits_vit_exit", "digits_three_stage_cascade", "digits_skipnet",
    "digits_vit_avit", "digits_vit_adavit", "digits_vit_ats", "digits_vit_dynamicvit",
)  # fmt: skip
UNSEEN = tuple(
    f"unseen_victims:{name}" for name in ("mixer_entropy", "patient_convolutions", "mixed_cascade")
)
RIVALS = (
    "ILFO(steps=200)", "Slowdown(steps=200)", "Slowdown(steps=50, restarts=4)",
    "CascadeAttack(steps=200)", "DeepSloth(steps=200)", "DeSparsify(steps=200)",
    "GradAuto(steps=100)", "GradMDM(steps=100)", "Sponge(steps=200)", "SlowAndWrong(steps=200)",
    "PGDAvg(steps=200)", "torchattacks.PGD(steps=200)", "foolbox.LinfPGD(steps=200)",
)  # fmt: skip
"""200 gradients each; GradAuto and GradMDM take two per step."""
STRATEGIES = (
    "Slowdown(steps=2000)", "Slowdown(steps=200, restarts=10)",
    "Slowdown(steps=200, restarts=10, kappa=0.001)", "ILFO(steps=2000)",
    "ILFO(steps=2000, rate=0.002)", "strategies:Rounds(by='adam')",
    "strategies:Rounds(by='adam', wants='states', rate=0.003)", "strategies:Rounds(refined=True)",
    "strategies:Rounds(refined=True, rounds=40, steps=50)",
    "strategies:Rounds(refined=True, by='adam', rate=0.003, rounds=20, steps=100)",
    "strategies:Rounds(refined=True, wants='states', by='adam', rounds=20, steps=100)",
    "strategies:Seeds", "DeepSloth(steps=2000)", "DeSparsify(steps=2000)",
    "GradAuto(steps=1000)",
)  # fmt: skip

CONTROLS = ("clean", "noise", "uniform")


def held_out() -> tuple[Tensor, Tensor]:
    """Images that ε is chosen on: none of them is scored."""
    return digits("heldout")


def chosen(name: str, images: int, out: Path) -> int:
    """The ε, in 1/255, at which AutoSlow's success on held-out images lies nearest to one half."""
    found: dict[int, float] = {}
    for eps in EPS:
        sweep = Sweep(
            (name,), ("AutoSlow",), (eps / 255,), (10,), data="rivals:held_out", samples=images,
            timed=0,
        )  # fmt: skip
        scores = sweep.run(out).scores()
        found[eps] = float(scores[scores.attack == "AutoSlow"].attack_success.iloc[0])
        if found[eps] > 0.5:
            break
    return min(found, key=lambda eps: abs(found[eps] - 0.5))


def scored(
    name: str, attacks: tuple[str, ...], eps: int, seed: int, images: int, out: Path
) -> pd.Series:
    """Attack success at ε, by attack; ``union`` is that of all."""
    sweep = Sweep((name,), attacks, (eps / 255,), (seed,), samples=images, timed=0)
    scores = sweep.run(out).scores()
    success = scores[~scores.attack.isin(CONTROLS)].set_index("attack").attack_success
    return success.astype(float)


def beside_rivals(name: str, eps: int, args: argparse.Namespace) -> dict[str, str]:
    """A row of the first table: AutoSlow's mean over seeds, and every rival that applies."""
    ours = pd.Series(
        [
            scored(name, ("AutoSlow",), eps, seed, args.images, args.out)["AutoSlow"]
            for seed in map(int, args.seeds)
        ]
    )
    theirs = scored(name, tuple(args.attacks), eps, 0, args.images, args.out).drop("union")
    return {
        "AutoSlow": f"{ours.mean():.4f}",
        "of seeds": " ".join(f"{value:.4f}" for value in ours),
        "lead": f"{ours.mean() - theirs.max():+.4f}",
        "strongest rival": f"`{theirs.idxmax()}`",
        **{f"`{attack}`": f"{value:.4f}" for attack, value in theirs.items()},
    }


def beside_the_best(name: str, eps: int, args: argparse.Namespace) -> dict[str, str]:
    """A row of the second: AutoSlow's first seed, and the union of it and of all strategies."""
    attacks = ("AutoSlow", *args.attacks)
    success = scored(name, attacks, eps, 0, args.images, args.out)
    tried = success.drop(["AutoSlow", "union"])
    return {
        "AutoSlow": f"{success['AutoSlow']:.4f}",
        "best known": f"{success['union']:.4f}",
        "gap": f"{success['union'] - success['AutoSlow']:.4f}",
        "strategies": str(len(tried)),
        "best of them": f"`{tried.idxmax()}` {tried.max():.4f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="AutoSlow beside its rivals, by victim")
    parser.add_argument("--victims", default=",".join((*DIGITS, *UNSEEN)))
    parser.add_argument("--best", action="store_true", help="beside ten times the gradients")
    parser.add_argument("--attacks", type=attack_names, metavar="'NAME NAME'")
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--held-out", type=int, default=50, metavar="N", help="to choose ε on (50)")
    parser.add_argument("--eps", type=int, help="in 1/255, chosen elsewhere")
    parser.add_argument("--seeds", type=numbers(int), default=[0, 1, 2], help="of AutoSlow (0,1,2)")
    parser.add_argument("--out", type=Path, default=Path("rivals"))
    args = parser.parse_args()
    args.attacks = args.attacks or (STRATEGIES if args.best else RIVALS)
    rows, row = [], beside_the_best if args.best else beside_rivals
    for name in args.victims.split(","):
        eps = args.eps or chosen(name, args.held_out, args.out / "held out")
        victim = load_victim(name).name
        rows.append({"victim": f"`{victim}`", "ε": f"{eps}/255", **row(name, eps, args)})
        print(rows[-1], flush=True)
        table = markdown(pd.DataFrame(rows).fillna("–"))
        (args.out / f"{'best' if args.best else 'rivals'}.md").write_text(table, encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main()
