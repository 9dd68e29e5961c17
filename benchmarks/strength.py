"""Strength: every applicable attack on every victim, one table per victim.

    python benchmarks/strength.py --victims digits_vit_ats --images 200 --steps 50,100,200 \
        --seeds 0,1,2 --eps 2/255,4/255,8/255,16/255 --out strength

Cells show attack success and, in brackets, agreement. Below each table: the budgets that take back
half of the savings (``eps50``, l2, patch side) under the house attack, and how many of its 50 steps
at the largest ε that takes. Finished cells lie in ``--out``: the same command resumes. An estimate
of what is left to do is printed first; ``--estimate`` prints that alone.
"""

from __future__ import annotations

import argparse
import inspect
import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from tables import markdown
from torch import Tensor

from effattack.attacks import (
    Slowdown,
    UniversalAttack,
    attack_class,
    build,
    eps50,
    names,
)
from effattack.attacks.base import undisturbed
from effattack.attacks.naming import parse_name, written
from effattack.budgets import budget_text, parse_eps, size_text
from effattack.cells import Store
from effattack.data import held_out, load_data, subset
from effattack.errors import NotApplicable
from effattack.evaluation import Evaluation
from effattack.execution import execute
from effattack.objectives import Step
from effattack.planning import plan
from effattack.plans import Plan
from effattack.registry import load_victim
from effattack.victim import Victim

Data = tuple[Tensor, Tensor]
LEFT_OUT = {"clean", "noise", "uniform", "LatencyQuery", "MinimalBudget"}
"""Controls, which stand in every table anyway; timing, which needs an idle machine; and what has
no ε of its own."""
STEALTHY = ("Slowdown(keep_prediction=True)", "AutoSlow(keep_prediction=True)")


def every_attack(victim: Victim, asked: list[str], steps: list[int]) -> list[str]:
    """The attacks that apply, those that take ``steps`` once for each number of them."""
    found = []
    for text in asked:
        name, options = parse_name(text)
        accepts = "steps" in inspect.signature(attack_class(name)).parameters
        counts = [{"steps": n} for n in steps] if accepts and "steps" not in options else [{}]
        for count in counts:
            told = {**options, **count}
            full = f"{name}({written(told)})" if told else name
            try:
                build(full, victim)
            except NotApplicable as error:
                print(f"{victim.name}: {full} is left out: {error}", flush=True)
                break
            found.append(full)
    return found


def fitting(attacks: list[str], data: Data, count: int) -> Data | None:
    """Images to learn from, if any attack is universal."""
    universal = any(issubclass(attack_class(name), UniversalAttack) for name in attacks)
    return held_out(*data, count) if universal else None


def planned(victim: Victim, data: Data, args: argparse.Namespace) -> list[Plan]:
    """One plan per ε, on the first images evenly spread over the data."""
    attacks = every_attack(victim, args.attacks, args.steps)
    images, labels = subset(*data, args.images)
    fit = fitting(attacks, data, args.images)
    return [
        plan(victim, images, labels, attacks, eps=eps, seeds=args.seeds, timed=0, fit=fit)
        for eps in args.eps
    ]


def seconds_left(plans: Sequence[Plan], store: Store) -> float:
    """A guess of what the unfinished cells will take, from two gradients of a few images."""
    victim, images = plans[0].victim, plans[0].cells[0].images[:8]
    with undisturbed(victim):
        taken = []
        for _ in range(2):
            started = time.perf_counter()
            trial = images.clone().requires_grad_()
            torch.autograd.grad(victim.trace(trial).logits.sum(), trial)
            taken.append(time.perf_counter() - started)
    cells = [cell for each in plans for cell in each.cells if store.read(cell.spec) is None]
    gradients = sum(cell.work for cell in cells) / (3 * victim.max_macs)
    return gradients * min(taken) / len(images)


def table(evaluation: Evaluation, victim: Victim) -> pd.DataFrame:
    """Rows: attacks; columns: budgets; cells: attack success (agreement)."""
    scores, rows = evaluation.scores(), []
    for attack, own in scores[scores.threat == "linf"].groupby("attack", sort=False):
        row = {"attack": attack, "gradients": build(str(attack), victim).gradients}
        for score in own.sort_values("eps").itertuples():
            cell = f"{score.attack_success:.3f} ({score.agreement:.0%})"
            row[f"ε = {size_text('linf', score.eps)}"] = cell
        rows.append(row)
    return pd.DataFrame(rows).fillna("")


def to_half(first: Plan, eps: float, store: Store) -> Iterator[str]:
    """The budgets, and the steps at one of them, that take back half of the savings."""
    victim = first.victim
    data = tuple(
        torch.cat([getattr(cell, part) for cell in first.cells if cell.attack.name == "clean"])
        for part in ("images", "labels")
    )
    side = max(1, min(victim.input_shape[-2:]) // 2)
    for largest in ("linf:32/255", "l2:8", f"patch:{side}"):
        find = partial(eps50, victim, *data, largest=largest)
        size, kind = _stored(store, first, f"eps50 {largest}", find), largest.partition(":")[0]
        yield budget_text(kind, size) if size < math.inf else f"more than {largest}"
    find = partial(steps_to_half, victim, *data, eps)
    steps = _stored(store, first, f"steps to half at {eps}", find)
    yield f"{steps:g} gradients at ε = {size_text('linf', eps)}"


def steps_to_half(victim: Victim, images: Tensor, labels: Tensor, eps: float) -> float:
    """Gradients of a house attack of 50 after which half of the savings are gone; inf if never."""
    with torch.no_grad():
        clean = victim.trace(images).macs.sum().item()
    half, reached = (clean + len(images) * victim.max_macs) / 2, []

    def watch(step: Step) -> None:
        if step.macs.sum().item() >= half:
            reached.append(step.step)

    Slowdown(victim, eps)(images, labels, watch)
    return min(reached, default=math.inf)


def _stored(store: Store, first: Plan, work: str, find: Callable[[], float]) -> float:
    spec = replace(first.cells[0].spec, work=work)
    if (rows := store.read(spec)) is None:
        rows = pd.DataFrame({"value": [find()]})
        store.write(spec, rows)
    return float(rows.value[0])


def numbers(convert: Callable[[str], float]) -> Callable[[str], list[float]]:
    """Reads "2,4,8"."""
    return lambda text: [convert(part) for part in text.split(",")]


def attack_names(text: str) -> list[str]:
    """Reads names with options, separated by blanks outside brackets."""
    return re.findall(r"[^\s(]+(?:\([^)]*\))?", text)


def main() -> None:
    parser = argparse.ArgumentParser(description="attack success of every attack, by victim")
    everything = [*(n for n in names() if n not in LEFT_OUT), *STEALTHY]
    parser.add_argument("--victims", default="digits_cnn_early_exit,digits_vit_ats")
    parser.add_argument("--attacks", type=attack_names, default=everything, metavar="'NAME NAME'")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--steps", type=numbers(int), default=[50, 100, 200])
    parser.add_argument("--seeds", type=numbers(int), default=[0])
    parser.add_argument("--eps", type=numbers(parse_eps), default=[e / 255 for e in (2, 4, 8, 16)])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=Path("strength"))
    parser.add_argument("--estimate", action="store_true", help="say how long it takes, and stop")
    args = parser.parse_args()
    store, grids = Store(args.out / "cells"), []
    for name in args.victims.split(","):
        victim = load_victim(name).to(args.device)
        grids.append(planned(victim, load_data(None, victim), args))
        print(f"{name}: about {seconds_left(grids[-1], store) / 60:.1f} minutes left", flush=True)
    if args.estimate:
        return
    for plans in grids:
        victim = plans[0].victim
        found = Evaluation.concat(Evaluation(*execute(each, store)) for each in plans)
        rows = table(found, victim)
        rows.to_csv(args.out / f"{victim.name}.csv", index=False)
        text = f"## {victim.name}\n\n{markdown(rows)}\n"
        if not victim.constant:
            half = "; ".join(to_half(plans[0], args.eps[-1], store))
            text += f"\nHalf of the savings are gone at {half}.\n"
        (args.out / f"{victim.name}.md").write_text(text)
        print(text, flush=True)


if __name__ == "__main__":
    main()
