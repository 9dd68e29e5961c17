"""Natural shift beside the adversary, on embedded victims of every domain.

    python benchmarks/natural_shift.py
    python benchmarks/natural_shift.py --table

Work is executed work in the count that judges. No shift searches anything: images are corrupted at
severity 3, series keep to the adversary's budget, texts to two slips or four tokens, and scenes are
drawn anew, with their own labels. *Worst mixture* is what a user meets whose inputs mix as badly as
a divergence of .5 nats from an even mixture of clean inputs and all shifts allows: chosen by the
work of other inputs, told of the ones in the table. Every row that is finished is one line of
``natural_shift.jsonl``, and is not run again; ``--table`` prints them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from kept_rows import command
from tables import markdown
from torch import Tensor

from effattack.attacks import build
from effattack.attacks.by_name import NATURAL
from effattack.domains import Batch
from effattack.inputs.source import held_out, load_data, subset
from effattack.models_zoo.detection.average_precision import average_precision
from effattack.models_zoo.detection.scenes import SHIFTS, scenes
from effattack.results.mixture import worst_mixture
from effattack.tasks import Boxes
from effattack.threats import parse_threat
from effattack.victim import Victim, audit, load_victim

ADVERSARY = "Slowdown(steps=50)"
CLEAN, NOISE, MIXTURE = "clean", "noise", "worst mixture"
REPORTED, OTHERS = "reported", "others"
COUNT = 40
"""Inputs that are reported, and as many others."""
KAPPA = 0.5
DOMAINS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "images": (
        ("digits_cnn_early_exit", "digits_tinysaver_cascade", "digits_vit_ats"),
        ("linf:8/255",),
    ),
    "series": (("cbf_early_gru", "cbf_cnn_exit", "cbf_transformer_merge"), ("linf:.1sd",)),
    "texts": (("text_exit", "ner_exit", "dates_translator", "sums_lm"), ("chars:2", "swap:4")),
    "scenes": (("scenes_detector", "scenes_two_stage"), ("linf:8/255",)),
}
"""Name -> victims, and what an adversary may change."""
FEWER = {"scenes": 10, "texts": 20}
"""Inputs of other domains."""
ROWS = Path(__file__).with_suffix(".jsonl")
Row = Mapping[str, Any]


class Asked(NamedTuple):
    """One row before it is measured."""

    victim: str
    part: str
    kind: str
    threat: str = ""


def asked(domain: str) -> Iterator[Asked]:
    """Shifts on both parts of the inputs; noise and the adversary where they are reported."""
    victims, threats = DOMAINS[domain]
    for name in victims:
        for part in (REPORTED, OTHERS):
            yield from (Asked(name, part, kind) for kind in (CLEAN, *shifts(domain)))
        for threat in threats:
            yield from (Asked(name, REPORTED, kind, threat) for kind in (NOISE, ADVERSARY))


def shifts(domain: str) -> list[str]:
    """Names of those that a domain has."""
    if domain == "scenes":
        return [shift for shift in SHIFTS if shift != "none"]
    return [*NATURAL[{"images": "pixels", "texts": "tokens"}.get(domain, domain)]]


def measured(domain: str, one: Asked) -> Row:
    """Mean work of the inputs, of their clean ones and of their ceilings, and what is right.

    A ceiling is that of the largest input that the row's threat admits.
    """
    victim, count = load_victim(one.victim), FEWER.get(domain, COUNT)
    clean, labels = inputs_of(victim, one.part, count)
    found = largest = clean
    if domain == "scenes" and one.kind in SHIFTS:
        found, labels = drawn(one.part, one.kind, count)
    elif one.kind != CLEAN:
        threat = parse_threat(one.threat) if one.threat else adversary_of(domain)
        attack = build(one.kind, victim, threat, seed=0)
        found, largest = attack(clean, labels), attack.threat.largest(clean)
    done, before = audit(victim, found), audit(victim, clean)
    work, usual = (each.counts.get(victim.currency, each.macs) for each in (done, before))
    ceiling = victim.ceiling(largest, victim.currency)
    return {
        "inputs": len(clean),
        "currency": victim.currency,
        "work": work.mean().item(),
        "clean_work": usual.mean().item(),
        "ceiling": ceiling.mean().item(),
        "right": right(victim, done.logits, labels, found, clean),
    }


def adversary_of(domain: str) -> Any:
    """The budget that shifts keep to where they have none of their own kind."""
    return parse_threat(DOMAINS[domain][1][0])


def inputs_of(victim: Victim, part: str, count: int) -> tuple[Batch, Tensor]:
    """Inputs of the victim's own that are reported, or as many others."""
    if isinstance(victim.task, Boxes):
        return drawn(part, "none", count)
    inputs, labels = load_data(None, victim)
    if part == REPORTED:
        return subset(inputs, labels, count)
    others = held_out(victim.domain, inputs, labels, count)
    assert others is not None
    return others


def drawn(part: str, shift: str, count: int) -> tuple[Tensor, Tensor]:
    """Scenes under a shift: test scenes are reported, held-out ones are the others."""
    images, boxes = scenes("test" if part == REPORTED else "heldout", shift)
    return images[:count], boxes[:count]


def right(victim: Victim, outputs: Tensor, labels: Tensor, found: Batch, clean: Batch) -> float:
    """Accuracy; of boxes their average precision."""
    if isinstance(victim.task, Boxes):
        return average_precision(outputs, labels)
    answers = victim.task.answer(outputs)
    return (
        victim.task.right(answers, labels, victim.domain.kept(found, clean)).double().mean().item()
    )


def table(domain: str, rows: Sequence[Row]) -> pd.DataFrame:
    """A line per victim; cells: savings retained (and what is right)."""
    return pd.DataFrame([dict(_cells(domain, name, rows)) for name in DOMAINS[domain][0]])


def _cells(domain: str, name: str, rows: Sequence[Row]) -> Iterator[tuple[str, str]]:
    own = {
        Asked(*(row[key] for key in Asked._fields)): row for row in rows if row["victim"] == name
    }
    here, others = (
        {kind: own[Asked(name, part, kind)] for kind in (CLEAN, *shifts(domain))}
        for part in (REPORTED, OTHERS)
    )
    weights = worst_mixture([row["work"] for row in others.values()], KAPPA).weights
    clean = here[CLEAN]
    yield "victim", f"`{name}`"
    yield "clean work", f"{clean['work'] / clean['ceiling']:.1%} ({clean['right']:.0%})"
    yield from ((_short(kind), _cell(row)) for kind, row in here.items() if kind != CLEAN)
    mixed = {
        key: weights @ [row[key] for row in here.values()]
        for key in ("work", "clean_work", "ceiling")
    }
    shares = ", ".join(
        f"{_short(kind)} {weight:.0%}"
        for kind, weight in sorted(zip(here, weights, strict=True), key=lambda pair: -pair[1])[:2]
    )
    yield MIXTURE, f"{1 - _lost(mixed):.1%}: {shares}"
    for threat in DOMAINS[domain][1]:
        for kind in (NOISE, ADVERSARY):
            yield f"{kind} {threat}", _cell(own[Asked(name, REPORTED, kind, threat)])


def _lost(row: Row) -> float:
    """Attack success: 1 minus the savings retained."""
    return (row["work"] - row["clean_work"]) / (row["ceiling"] - row["clean_work"])


def _cell(row: Row) -> str:
    return f"{1 - _lost(row):.1%} ({row['right']:.0%})"


def _short(kind: str) -> str:
    """``blur`` of ``corruption(kind='blur')``, which without an option is noise."""
    return kind.partition("'")[2].rstrip("')") or kind.replace("corruption", "noise")


def main() -> None:
    domain_of = {name: domain for domain, (victims, _) in DOMAINS.items() for name in victims}
    command(
        "natural shift beside the adversary",
        ROWS,
        Asked._fields,
        chain.from_iterable(map(asked, DOMAINS)),
        lambda name, *rest: measured(domain_of[name], Asked(name, *rest)),
        lambda rows: "\n\n".join(f"### {d}\n\n{markdown(table(d, rows))}" for d in DOMAINS),
    )


if __name__ == "__main__":
    main()
