"""What poisoned training views do to the price of a splatting fit: splats, not MACs of an input.

    python benchmarks/splatting.py
    python benchmarks/splatting.py --table

Novel-view synthesis by Gaussian splatting (Kerbl et al. 2023, arXiv 2308.04079) grows the splats
that its loss pulls at hardest, so whoever delivers views is said to decide what a fit costs
(Poison-splat: Lu et al. 2024, arXiv 2410.08190). A small one in plain torch: scenes in three
dimensions, four orthographic views of 32 x 32 pixels from cameras around them, and round splats,
which such a camera sees as round spots, in closed form. It descends the mean absolute error, and
grows and drops splats by the paper's rule and shares. Left out: the structural loss, resets of
opacity, ellipsoids, colours that depend on the direction; Adam forgets as splats grow. The pull
that grows a splat was chosen on clean views.

Views are poisoned within ε of each pixel (ε = 1: free), by attackers who do not know the seed:
total variation raised in each view; in what a fit of the attacker's own renders, so that views
agree (Poison-splat's proxy); and, along a fit, the very pull that grows splats. Noise of ± ε is the
control. Rows that are there are not run again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from itertools import product
from pathlib import Path
from time import process_time
from typing import Any, NamedTuple

import pandas as pd
import torch
from kept_rows import command
from tables import markdown
from torch import Generator, Tensor

from effattack.budgets import parse_number
from effattack.domains.pixels import to_grid

SIDE, ANGLES, UNSEEN = 32, (0.0, 0.8, 1.6, 2.4), 1.2
"""Pixels of a view, and radians about the vertical; nobody trains on the last."""
SCENES = {"smooth": (12, 0.35), "detailed": (150, 0.08)}
"""How many splats a scene itself is made of, and their radius; it fills [-1, 1] in each axis."""
STEPS, EVERY, LAST = 400, 50, 300
"""Of Adam, one view each; splats grow every so many, up to the last."""
START, CAP = 50, 1000
"""Splats of a fit at first, and at most."""
PULL, LARGE, SHRUNK, FAINT = 3e-3, 0.1, 1.6, 0.005
"""A pull above the first grows a splat: beyond the second it is parted into two that are smaller by
the third, else doubled. One whose opacity is below the last is dropped."""
RATES = {"means": 0.01, "sizes": 0.02, "opacities": 0.05, "colours": 0.05}
CLIMBED = 25
"""Steps of ε / 8 up total variation, as published: 2/255 at 16/255."""
BUDGETS, SEEDS = ("16/255", "64/255", "1"), (0, 1, 2)
CLEAN = "clean"
ROWS = Path(__file__).with_suffix(".jsonl")


class Splats(NamedTuple):
    """N round Gaussians."""

    means: Tensor
    """(N, 3)."""
    sizes: Tensor
    """(N,): log of the standard deviation."""
    opacities: Tensor
    """(N,): log-odds."""
    colours: Tensor
    """(N, 3): log-odds of red, green and blue."""

    def rows(self, index: Tensor) -> Splats:
        return Splats(*(part[index] for part in self))


class Growth(NamedTuple):
    """Splats after one round, and how it came to them: each that grew is one more."""

    splats: Splats
    grown: int
    dropped: int


Target = Callable[[int, Splats], Tensor]
"""Number of a view, and the splats so far -> what the view is to look like, (3, SIDE, SIDE)."""


def drawn(count: int, radius: float, opacity: float, seed: int) -> Splats:
    """Splats of one radius anywhere in a scene, in any colour."""
    dice = Generator().manual_seed(seed)
    return Splats(
        torch.rand(count, 3, generator=dice) * 1.6 - 0.8,
        torch.full((count,), math.log(radius)),
        torch.full((count,), math.log(opacity / (1 - opacity))),
        torch.randn(count, 3, generator=dice) * 1.5,
    )


def seen_from(angle: float, means: Tensor) -> Tensor:
    """(N, 3) -> (N, 3): right, down and away, as the camera at that angle has them."""
    x, y, z = means.unbind(1)
    cos, sin = math.cos(angle), math.sin(angle)
    return torch.stack([cos * x + sin * z, y, cos * z - sin * x], 1)


def rendered(splats: Splats, seen: Tensor) -> Tensor:
    """(3, SIDE, SIDE): colours laid over each other from the nearest splat on, before black."""
    order = seen[:, 2].argsort()
    splats, seen = splats.rows(order), seen[order]
    grid = (torch.arange(SIDE) + 0.5) * 2 / SIDE - 1
    variance = (2 * splats.sizes).exp()[:, None]
    across, down = (
        (-((grid - seen[:, axis, None]) ** 2) / (2 * variance)).exp() for axis in (0, 1)
    )
    covered = splats.opacities.sigmoid()[:, None, None] * down[:, :, None] * across[:, None, :]
    covered = covered.clamp(max=0.99)
    left = (1 - covered).log().cumsum(0).exp()
    weight = covered * torch.cat([torch.ones_like(left[:1]), left[:-1]])
    return torch.einsum("nhw,nc->chw", weight, splats.colours.sigmoid())


def view(splats: Splats, angle: float) -> Tensor:
    """(3, SIDE, SIDE) in [0, 1], as a camera stores it: 8 bits."""
    with torch.no_grad():
        return to_grid(rendered(splats, seen_from(angle, splats.means)).clamp(0, 1))


def fit(target: Target, seed: int, steps: int = STEPS, cap: int = CAP) -> tuple[Splats, list[int]]:
    """Splats that look like the views, and how many there were at each step."""
    dice, counts = Generator().manual_seed(seed), []
    splats, optimizer = _trainable(drawn(START, 0.2, 0.3, seed))
    pull = torch.zeros(START)
    for step in range(1, steps + 1):
        number = step % len(ANGLES)
        seen = seen_from(ANGLES[number], splats.means)
        seen.retain_grad()
        loss = (rendered(splats, seen) - target(number, splats)).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        pull += seen.grad[:, :2].norm(dim=1) / EVERY
        counts.append(len(pull))
        if step % EVERY == 0 and step <= LAST:
            splats, optimizer = _trainable(after_growth(splats, pull, dice, cap).splats)
            pull = torch.zeros(len(splats.means))
    return Splats(*(part.detach() for part in splats)), counts


def _trainable(splats: Splats) -> tuple[Splats, torch.optim.Optimizer]:
    leaves = Splats(*(part.detach().requires_grad_() for part in splats))
    groups = [{"params": [getattr(leaves, name)], "lr": rate} for name, rate in RATES.items()]
    return leaves, torch.optim.Adam(groups)


def after_growth(splats: Splats, pull: Tensor, dice: Generator, cap: int) -> Growth:
    """Those that are seen, and one more for each whose mean pull (N,) on the picture is large.

    Where the cap leaves no room for all, those grow that are pulled at hardest. New places are
    drawn from the splat that grows.
    """
    seen = splats.opacities.sigmoid() >= FAINT
    old, pull = splats.rows(seen), pull[seen]
    hardest = pull.argsort(descending=True)[: max(cap - len(pull), 0)]
    growing = hardest[pull[hardest] > PULL]
    resting = torch.ones_like(pull, dtype=torch.bool).index_fill(0, growing, False)
    parents = old.rows(growing)
    parted = parents.sizes > math.log(LARGE)
    sizes = parents.sizes - parted * math.log(SHRUNK)

    def child(moves: Tensor) -> Splats:
        away = torch.randn(parents.means.shape, generator=dice) * parents.sizes.exp()[:, None]
        return parents._replace(means=parents.means + moves[:, None] * away, sizes=sizes)

    parts = old.rows(resting), child(parted), child(torch.ones_like(parted))
    after = Splats(*map(torch.cat, zip(*parts, strict=True)))
    return Growth(after, len(growing), int((~seen).sum()))


def noise(clean: Tensor, eps: float) -> Tensor:
    """Each pixel of the views (V, 3, SIDE, SIDE) up or down by ε."""
    coins = torch.randint(0, 2, clean.shape, generator=Generator().manual_seed(17))
    return within(clean + eps * (coins * 2 - 1), clean, eps)


def within(views: Tensor, clean: Tensor, eps: float) -> Tensor:
    """The nearest views that the budget admits, in 8 bits."""
    return to_grid(views.clamp(clean - eps, clean + eps).clamp(0, 1))


def total_variation(views: Tensor) -> Tensor:
    """Σ of all differences between neighbouring pixels."""
    return views.diff(dim=-1).abs().sum() + views.diff(dim=-2).abs().sum()


def climbed(views: Tensor, clean: Tensor, eps: float) -> Tensor:
    """Views of more total variation, by signs of its gradient."""
    for _ in range(CLIMBED):
        views = _step(views, clean, eps, total_variation)
    return views


def _step(views: Tensor, clean: Tensor, eps: float, score: Callable[[Tensor], Tensor]) -> Tensor:
    leaf = views.detach().requires_grad_()
    (slope,) = torch.autograd.grad(score(leaf), leaf)
    return within(views + eps / 8 * slope.sign(), clean, eps)


def each_climbed(clean: Tensor, eps: float) -> Tensor:
    """Total variation of each view, from anywhere in the budget: at its corners the slope is 0."""
    moved = torch.rand(clean.shape, generator=Generator().manual_seed(17)) * 2 - 1
    return climbed(within(clean + eps * moved, clean, eps), clean, eps)


def climbed_along(clean: Tensor, eps: float) -> Tensor:
    """Total variation of what a fit of the attacker's own renders; the fit is trained on it."""
    views = clean.clone()

    def target(number: int, splats: Splats) -> Tensor:
        shown = within(view(splats, ANGLES[number]), clean[number], eps)
        views[number] = climbed(shown, clean[number], eps)
        return views[number]

    fit(target, seed=len(SEEDS))
    return views


def pulled_along(clean: Tensor, eps: float) -> Tensor:
    """Along such a fit, what grows splats: Σ of pulls by the squared error, whose slope in the
    views is not 0; one step on each visit of a view."""
    views = noise(clean, eps)

    def target(number: int, splats: Splats) -> Tensor:
        still = Splats(*(part.detach() for part in splats))
        seen = seen_from(ANGLES[number], still.means).requires_grad_()
        shown = rendered(still, seen)

        def score(wanted: Tensor) -> Tensor:
            error = (shown - wanted).square().mean()
            (pull,) = torch.autograd.grad(error, seen, create_graph=True)
            return pull[:, :2].norm(dim=1).sum()

        views[number] = _step(views[number], clean[number], eps, score)
        return views[number]

    fit(target, seed=len(SEEDS))
    return views


POISONS = {
    "noise": noise,
    "total variation": each_climbed,
    "total variation along a fit": climbed_along,
    "pull along a fit": pulled_along,
}


@cache
def scene(name: str) -> Splats:
    """What there is to be seen."""
    return drawn(*SCENES[name], opacity=0.9, seed=100)


@cache
def views_of(name: str, kind: str, eps: str) -> Tensor:
    """(V, 3, SIDE, SIDE): what a fit is trained on, clean or poisoned."""
    clean = torch.stack([view(scene(name), angle) for angle in ANGLES])
    return clean if kind == CLEAN else POISONS[kind](clean, parse_number(eps, "ε"))


def measured(name: str, kind: str, eps: str, seed: int) -> dict[str, Any]:
    """One fit: splats at the end, those of all its steps together, and what nobody trained on."""
    views, began = views_of(name, kind, eps), process_time()
    splats, counts = fit(lambda number, _: views[number], seed)
    seconds = process_time() - began
    error = (view(splats, UNSEEN) - view(scene(name), UNSEEN)).square().mean()
    return {
        "splats": counts[-1],
        "splat_steps": sum(counts),
        "psnr": -10 * error.log10().item(),
        "variation": total_variation(views).item() / len(views),
        "seconds": seconds,
    }


def fits() -> list[tuple[str, str, str, int]]:
    """Scene, kind of views, ε and seed of all that are asked for, in the order of the table."""
    kinds = [(CLEAN, "0"), *((kind, eps) for eps in BUDGETS for kind in POISONS)]
    return [(name, *kind, seed) for name, kind, seed in product(SCENES, kinds, SEEDS)]


def _which(row: dict[str, Any]) -> tuple[str, str, str, int]:
    return row["scene"], row["views"], row["eps"], row["seed"]


def table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """A line per scene, views and budget, over seeds."""
    order = fits()
    found = pd.DataFrame(sorted(rows, key=lambda row: order.index(_which(row))))
    clean = found[found.views == CLEAN].groupby("scene").splat_steps.mean()
    lines = []
    for (name, eps, kind), some in found.groupby(["scene", "eps", "views"], sort=False):
        lines.append(
            {
                "scene": name,
                "ε": eps,
                "views": kind,
                "total variation": f"{some.variation.mean():.0f}",
                "splats": f"{some.splats.mean():.0f} ({some.splats.min()} to {some.splats.max()})",
                "work, of clean": f"×{some.splat_steps.mean() / clean[name]:.2f}",
                "PSNR, unseen view": f"{some.psnr.mean():.1f} dB",
            }
        )
    return pd.DataFrame(lines)


def main() -> None:
    command(
        "splats of a fit under poisoned views",
        ROWS,
        ("scene", "views", "eps", "seed"),
        fits(),
        measured,
        lambda rows: markdown(table(rows)),
    )


if __name__ == "__main__":
    main()
