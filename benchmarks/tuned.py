"""Tuned and distilled victims: does what was saved survive, and what was robust?

    python benchmarks/tuned.py
    python benchmarks/tuned.py --table

``digits_vit_ats`` and ``digits_cnn_early_exit`` are tuned by low-rank adapters to turned digits,
and the first is distilled into a smaller student without labels; nothing is stored of them but
their rows. Accuracy and clean work are of all 300 test images, as they are or turned; AutoSlow, and
noise beside it, have the default budget and the first 40. Whatever is chosen here is chosen on
held-out images. Every row that is finished is one line of ``tuned.jsonl``, and is not run again;
``--table`` prints them.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from kept_rows import command
from tables import markdown
from torch import Tensor

from effattack import evaluate
from effattack.hardening.thresholds import expect_thresholds
from effattack.models_zoo.digits import digits, turned_digits
from effattack.models_zoo.exits import lowest_threshold
from effattack.models_zoo.networks import small_vit
from effattack.models_zoo.recipes.cards import share_right
from effattack.models_zoo.recipes.tuning import distil, tune
from effattack.models_zoo.token_sparsification.ats import ATS
from effattack.victim import Victim, load_victim

VIT, CNN = "digits_vit_ats", "digits_cnn_early_exit"
AS_IT_IS = "as it is"
ATTACKED = 40
"""Of the test images, the first so many."""
RANK = 4
SAMPLES = range(58, 203, 8)
"""Reference tokens that ATS may be given anew."""
SETS: Mapping[str, Callable[[str], tuple[Tensor, Tensor]]] = {
    "original": digits,
    "turned": turned_digits,
}
ROWS = Path(__file__).with_suffix(".jsonl")
Row = Mapping[str, Any]


class Form(NamedTuple):
    """One line of the table."""

    of: str
    name: str
    make: Callable[[], Victim]
    images: str
    """What it is scored on, of ``SETS``."""


@cache
def tuned(name: str) -> Victim:
    """With adapters trained on turned digits and folded in; its rule is as it was."""
    victim, (epochs, rate) = load_victim(name), {VIT: (20, 5e-3), CNN: (30, 1e-2)}[name]
    trained = tune(victim, turned_digits("train"), rank=RANK, epochs=epochs, rate=rate, seed=0)
    print(f"{name}: {trained:,} weights trained beside {weights(victim):,}", flush=True)
    return victim


def early_exit_chosen_anew() -> Victim:
    """Tuned, with a threshold by the rule that chose the first one, on turned held-out images."""
    victim = copy.deepcopy(tuned(CNN))
    images, labels = turned_digits("heldout")
    with torch.no_grad():
        said = victim.trace(images).stage_logits
    assert said is not None
    expect_thresholds(victim).thresholds = lowest_threshold(said, labels)
    return victim


def ats_chosen_anew() -> Victim:
    """Tuned, with the most reference tokens at which it does, on turned held-out images, no more
    work than the original does on those that are not turned."""
    victim = tuned(VIT)
    assert isinstance(victim, ATS)
    most, fitting = clean_work(load_victim(VIT), digits("heldout")[0]), victim
    for tokens in SAMPLES:
        other = ATS(victim.vit, ats_blocks=victim.ats_blocks, reference_tokens=tokens, name=VIT)
        if clean_work(other, turned_digits("heldout")[0]) <= most:
            fitting = other
    return fitting


def student(matching: float) -> Victim:
    """A third of the teacher's work, from random weights; it samples as its teacher does."""
    teacher = load_victim(VIT)
    assert isinstance(teacher, ATS)
    torch.manual_seed(0)
    small = ATS(
        small_vit(width=48, depth=3),
        ats_blocks=teacher.ats_blocks,
        reference_tokens=teacher.policy.points + 1,
        name=f"{VIT}_student",
    )
    images, _ = digits("train")
    distil(small, teacher, images, matching=matching, epochs=60, rate=3e-3, seed=0)
    return small


FORMS = (
    Form(VIT, AS_IT_IS, lambda: load_victim(VIT), "original"),
    Form(VIT, AS_IT_IS, lambda: load_victim(VIT), "turned"),
    Form(VIT, "tuned", lambda: tuned(VIT), "turned"),
    Form(VIT, "tuned, sampling chosen anew", ats_chosen_anew, "turned"),
    Form(VIT, "student, answers matched", lambda: student(0.0), "original"),
    Form(VIT, "student, answers and tokens matched", lambda: student(4.0), "original"),
    Form(CNN, AS_IT_IS, lambda: load_victim(CNN), "original"),
    Form(CNN, AS_IT_IS, lambda: load_victim(CNN), "turned"),
    Form(CNN, "tuned", lambda: tuned(CNN), "turned"),
    Form(CNN, "tuned, threshold chosen anew", early_exit_chosen_anew, "turned"),
)


def measured(form: Form) -> Row:
    """Accuracy on both sets; clean, in noise and under AutoSlow on the one that it is scored on."""
    started = time.process_time()
    victim, (images, labels) = form.make(), SETS[form.images]("test")
    right = {name: share_right(victim, *read("test")) for name, read in SETS.items()}
    found = evaluate(
        victim, images[:ATTACKED], labels[:ATTACKED], ["AutoSlow"], timed=0, corpus_mb=0
    )
    scores = found.scores().set_index("attack")
    slow = scores.loc["AutoSlow"]
    return {
        "rule": rule(victim),
        "weights": weights(victim),
        "accuracy": right,
        "macs": clean_work(victim, images),
        "max_macs": victim.max_macs,
        "attacked_macs": float(slow.macs),
        "attacked_accuracy": float(slow.accuracy),
        "back": 1 - float(slow.savings_retained),
        "back_low": 1 - float(slow.savings_retained_high),
        "back_high": 1 - float(slow.savings_retained_low),
        "back_in_noise": 1 - float(scores.loc["noise"].savings_retained),
        "in_common": in_common(load_victim(form.of), victim, images),
        "cpu_seconds": round(time.process_time() - started, 1),
    }


def rule(victim: Victim) -> str:
    """What decides."""
    if isinstance(victim, ATS):
        return f"{victim.policy.points + 1} reference tokens"
    return f"threshold {expect_thresholds(victim).thresholds}"


def weights(victim: Victim) -> int:
    """How many there are."""
    return sum(parameter.numel() for parameter in victim.parameters())


def clean_work(victim: Victim, images: Tensor) -> float:
    """MACs of an image, on average."""
    with torch.no_grad():
        return victim.trace(images).macs.mean().item()


def in_common(one: Victim, other: Victim, images: Tensor) -> float:
    """Units that both compute, over those that one of them does: tokens kept, exits passed."""
    with torch.no_grad():
        first, second = (
            torch.cat([gate.active & gate.reached for gate in victim.trace(images).gates], 1)
            for victim in (one, other)
        )
    return ((first & second).sum() / (first | second).sum()).item()


def table(rows: Sequence[Row]) -> pd.DataFrame:
    """A line per form that is there, in their order."""
    by_form = {(row["victim"], row["form"], row["images"]): row for row in rows}
    lines = []
    for form in FORMS:
        if (row := by_form.get((form.of, form.name, form.images))) is None:
            continue
        lines.append(
            {
                "of": f"`{form.of}`",
                "form": form.name,
                "decided by": row["rule"],
                "accuracy, original": f"{row['accuracy']['original']:.1%}",
                "accuracy, turned": f"{row['accuracy']['turned']:.1%}",
                "scored on": form.images,
                "clean, MACs": f"{row['macs'] / 1e6:.2f} M, {share(row['macs'], row)}",
                "under AutoSlow": share(row["attacked_macs"], row),
                "savings taken back": f"**{row['back']:.1%}** ({row['back_low']:.0%} to "
                f"{row['back_high']:.0%})",
                "by noise": f"{row['back_in_noise']:.1%}",
                "units in common": f"{row['in_common']:.0%}",
            }
        )
    return pd.DataFrame(lines)


def share(macs: float, row: Row) -> str:
    """Of the most that the victim can do."""
    return f"{macs / row['max_macs']:.1%}"


def main() -> None:
    forms = {(form.of, form.name, form.images): form for form in FORMS}
    command(
        "tuned and distilled victims",
        ROWS,
        ("victim", "form", "images"),
        forms,
        lambda *asked: measured(forms[asked]),
        lambda rows: markdown(table(rows)),
    )


if __name__ == "__main__":
    main()
