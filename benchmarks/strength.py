"""Strength: every applicable attack on every victim, one table per victim.

    python benchmarks/strength.py --victims digits_vit_ats --images 200 --steps 50,100,200 \
        --seeds 0,1,2 --eps 2/255,4/255,8/255,16/255 --out strength

Cells show attack success and, in brackets, agreement; attacks with a budget of their own (a patch)
have one cell. Below each table: the budgets that take back half of the savings (``eps50``, l2,
patch side) under the house attack, and how many of its 50 steps at the largest ε that takes. Every
column of the scores goes to a CSV file. Finished cells lie in ``--out``: the same command resumes.
An estimate of what is left to do is printed first; ``--estimate`` prints that alone.
"""

from __future__ import annotations

import argparse
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

from effattack.attacks import Slowdown, attack_class, build, eps50, names
from effattack.attacks.naming import options_of, written
from effattack.attacks.objectives import Step
from effattack.budgets import budget_text, parse_eps, size_text
from effattack.cells.plan import Plan
from effattack.cells.store import Store
from effattack.inputs.source import load_data, subset
from effattack.registry import read_name
from effattack.runs.executors.workers import Workers
from effattack.runs.sweep import Sweep
from effattack.victim import Victim, load_victim
from effattack.victim.undisturbed import undisturbed

LEFT_OUT = {"clean", "noise", "uniform", "LatencyQuery", "MinimalBudget"}
"""Controls, which stand in every table anyway; timing, which needs an idle machine; and what has
no ε of its own."""
STEALTHY = ("Slowdown(keep_prediction=True)", "AutoSlow(keep_prediction=True)")
RIVALS = ("ILFO(steps=200)", "SlowFormer(loss='code')")
"""The strongest published attack at AutoSlow's gradients, and SlowFormer as its code has it."""


def with_steps(text: str, steps: Sequence[int]) -> Iterator[str]:
    """An attack's name once per number of steps, if it takes any and tells none."""
    name, options = read_name(text)
    accepts = "steps" in options_of(attack_class(name))
    if not accepts or "steps" in options:
        yield text
        return
    for count in steps:
        yield f"{name}({written({**options, 'steps': count})})"


def minutes_left(plan: Plan, victim: Victim, store: Store) -> float:
    """A guess of what the unfinished cells will take one core, from a few gradients."""
    images = load_data(None, victim)[0][:8].to(victim.device)
    with undisturbed(victim):
        taken = []
        for _ in range(2):
            started = time.perf_counter()
            trial = images.clone().requires_grad_()
            torch.autograd.grad(victim.trace(trial).logits.sum(), trial)
            taken.append(time.perf_counter() - started)
    work = sum(cell.macs for cell in plan.cells if not store.has(cell.spec))
    return work / (3 * plan.about.work) * min(taken) / len(images) / 60


def table(scores: pd.DataFrame, victim: Victim) -> pd.DataFrame:
    """Rows: attacks; columns: budgets; cells: attack success (agreement)."""
    rows = []
    attacked = scores[~scores.attack.isin(["clean", "union"])]
    for attack, own in attacked.groupby("attack", sort=False):
        row = {"attack": attack, "gradients": build(str(attack), victim).gradients}
        for score in own.sort_values("eps").itertuples():
            of_its_own = score.threat != "linf"
            at = "other budget" if of_its_own else f"ε = {size_text('linf', score.eps)}"
            budget = f", {budget_text(score.threat, score.eps)}" if of_its_own else ""
            row[at] = f"{score.attack_success:.3f} ({score.agreement:.0%}{budget})"
        rows.append(row)
    return pd.DataFrame(rows).fillna("")


def to_half(victim: Victim, plan: Plan, args: argparse.Namespace, store: Store) -> Iterator[str]:
    """The budgets, and the steps at the largest ε, that take back half of the savings."""
    images, labels = subset(*load_data(None, victim), args.images)
    images, labels = images.to(victim.device), labels.to(victim.device)
    side = max(1, min(victim.input_shape[-2:]) // 2)
    for largest in ("linf:32/255", "l2:8", f"patch:{side}"):
        find = partial(eps50, victim, images, labels, largest=largest)
        size, kind = _stored(store, plan, f"eps50 {largest}", find), largest.partition(":")[0]
        yield budget_text(kind, size) if size < math.inf else f"more than {largest}"
    eps = max(args.eps)
    find = partial(steps_to_half, victim, images, labels, eps)
    steps = _stored(store, plan, f"steps at {eps}", find)
    told = f"{steps:g}" if steps < math.inf else "more than 50"
    yield f"{told} gradients at ε = {size_text('linf', eps)}"


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


def _stored(store: Store, plan: Plan, work: str, find: Callable[[], float]) -> float:
    first, last = plan.cells[0].spec, plan.cells[-1].spec
    spec = replace(first, options=f"{work} of {last.last} images")
    if (rows := store.read(spec)) is None:
        rows = pd.DataFrame({"value": [find()]})
        store.write(spec, rows)
    return float(rows.value[0])


def numbers(convert: Callable[[str], float]) -> Callable[[str], list[float]]:
    """Reads "2,4,8"."""
    return lambda text: [convert(part) for part in text.split(",")]


def attack_names(text: str) -> list[str]:
    """Reads names with options, separated by blanks outside brackets."""
    return re.findall(r"[^\s(]+(?:\((?:[^()]|\([^()]*\))*\))?", text)


def main() -> None:
    parser = argparse.ArgumentParser(description="attack success of every attack, by victim")
    everything = [*(n for n in names() if n not in LEFT_OUT), *STEALTHY, *RIVALS]
    parser.add_argument("--victims", default="digits_cnn_early_exit,digits_vit_ats")
    parser.add_argument("--attacks", type=attack_names, default=everything, metavar="'NAME NAME'")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--steps", type=numbers(int), default=[50, 100, 200])
    parser.add_argument("--seeds", type=numbers(int), default=[0])
    parser.add_argument("--eps", type=numbers(parse_eps), default=[e / 255 for e in (2, 4, 8, 16)])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes (1)")
    parser.add_argument("--out", type=Path, default=Path("strength"))
    parser.add_argument("--estimate", action="store_true", help="say how long it takes, and stop")
    args = parser.parse_args()
    attacks = tuple(dict.fromkeys(f for text in args.attacks for f in with_steps(text, args.steps)))
    store = Store(args.out / "cells")
    for name in args.victims.split(","):
        sweep = Sweep(
            (name,), attacks, tuple(args.eps), tuple(args.seeds), samples=args.images, timed=0,
            device=args.device,
        )  # fmt: skip
        victim, (plan,) = load_victim(name).to(args.device), sweep.plan()
        left = minutes_left(plan, victim, store)
        print(f"{name}: about {left:.1f} minutes of a core left", flush=True)
        if args.estimate:
            continue
        scores = sweep.run(args.out, Workers(args.workers)).scores()
        scores.to_csv(args.out / f"{victim.name}.csv", index=False)
        text = f"## {victim.name}\n\n{markdown(table(scores, victim))}\n"
        print(text, flush=True)
        (args.out / f"{victim.name}.md").write_text(text, encoding="utf-8")
        if not victim.constant:
            budgets = "; ".join(to_half(victim, plan, args, store))
            half = f"Half of the savings are gone at {budgets}.\n"
            print(half, flush=True)
            (args.out / f"{victim.name}.md").write_text(f"{text}\n{half}", encoding="utf-8")


if __name__ == "__main__":
    main()
