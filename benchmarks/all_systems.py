"""One table of all systems with their scores, from what is kept of them; nothing is measured.

    python benchmarks/all_systems.py
    python benchmarks/all_systems.py --table docs/mechanisms.md     # put in its place

Registered victims have the scores of ``reports/baselines/quick.json``, whoever is not in it says
so and shows what its card tells of clean inputs; tuned and distilled ones those of ``tuned.jsonl``,
and systems from packages those of ``reports/real`` (``readme_table.py``).
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, get_type_hints

import pandas as pd
import readme_table
import tuned
from kept_rows import kept
from readme_table import share
from tables import markdown, put

from effattack.models_zoo.files import read_card
from effattack.registry import VICTIMS, entries
from effattack.results.baselines import Baseline, Record, Series

BASELINE = Path(__file__).parents[1] / "reports" / "baselines" / "quick.json"
HEAD = "| system, by family |"
ZOO = "effattack.models_zoo"
CONSTANT = "nobody: constant"
MISSING = "not in the baseline"
DECIDES: Mapping[str, str] = {
    "ATS": "attention: tokens are sampled by their significance",
    "AViT": "each token: its halting scores add up",
    "AdaViT": "linear policies before every block",
    "Cascade": "the confidence of a smaller model",
    "CountsProposals": "scores of proposals",
    "CrossAttended": "the confidence of a classifier inside",
    "Detector": "scores of boxes, before NMS",
    "DynamicViT": "predictors of what a token is worth",
    "ESN": "the confidence of the saver, then of an exit",
    "EarlyExit": "the confidence of a classifier inside",
    "EarlyReading": "the confidence of a classifier, piece by piece",
    "GatedFusion": "a gate before each layer that fuses",
    "LLMInt8": "outliers among activations",
    "LinkPredictor": "the confidence of an answer, after every few edges",
    "ModalityCascade": "the confidence of the cheaper sensor, then of an exit",
    "NeighbourMerging": "the likeness of neighbouring keys",
    "Pipeline": "scores of boxes, then the confidence of a classifier",
    "QuantizedGates": "as in the float victim",
    "SelectedTokens": "attention: visual tokens that stand out",
    "SentenceExits": "the confidence of a classifier inside",
    "SkipNet": "a gate before each block",
    "StaticInt8Gates": "as in the float victim",
    "TokenExits": "the confidence of each token's tag",
    "TwoStage": "scores and overlap of proposals",
    "Writer": "the end token",
}
"""Whether more is computed, by class of the victim or of what it inherits from; others show –."""


class Kept(NamedTuple):
    """A system from a package, beside its line of ``readme_table``."""

    decides: str
    inputs: str
    command: str
    rows: Path


REAL: Mapping[str, Kept] = {
    "mtcnn": Kept(
        "scores of boxes, network by network",
        "photographs",
        "benchmarks/real_systems.py mtcnn PHOTOGRAPHS",
        readme_table.REAL / "mtcnn.jsonl",
    ),
    "lightglue": Kept(
        "the confidence of points, and whether they match",
        "pairs of photographs",
        "benchmarks/real_systems.py lightglue PHOTOGRAPHS",
        readme_table.REAL / "lightglue.jsonl",
    ),
    "whisper": Kept(
        "the end token",
        "speech",
        "benchmarks/real_systems.py whisper --recordings FOLDER",
        readme_table.REAL / "whisper.jsonl",
    ),
    "faster_whisper": Kept(
        "the end token, and whether a text is decoded again",
        "speech",
        "benchmarks/real_systems.py installed_whisper --recordings FOLDER",
        readme_table.REAL / "faster_whisper.jsonl",
    ),
    "voice_gate": Kept(
        "the voice detector",
        "sound without speech",
        "benchmarks/real_systems.py voice_gate",
        readme_table.REAL / "voice_gate.jsonl",
    ),
    "smollm2": Kept("the end token", "questions", "benchmarks/smollm2.py", readme_table.SMOLLM2),
    "ats": Kept(
        DECIDES["ATS"],
        "photographs",
        "benchmarks/real_systems.py ats",
        readme_table.REAL / "ats.jsonl",
    ),
}


class Line(NamedTuple):
    """One system."""

    system: str
    what: str
    decides: str
    inputs: str
    work: str
    """Of an input, clean → attacked."""
    equals: str
    """So many clean requests."""
    control: str
    command: str
    made: str
    """At which commit, or by which code."""


COLUMNS = (
    HEAD.strip("| "),
    "what it is",
    "who decides",
    "inputs",
    "share of the most work, clean → attacked",
    "equals clean requests",
    "control",
    "command",
    "made at",
)


def registered(baseline: Baseline) -> Iterator[Line]:
    """Every victim of a name, families together."""
    ours = {n: e for n, e in entries(VICTIMS).items() if e.value.startswith(ZOO)}
    cards = {name: read_card(name) for name in ours}
    for name in sorted(ours, key=lambda name: (cards[name]["family"], name)):
        card, record = cards[name], baseline.victims.get(name)
        factory, command = ours[name].load(), f"effattack run --victim {name}"
        decides = decided(get_type_hints(factory)["return"])
        if record is None:
            clean = card["clean_macs"] / card["max_macs"]
            decides = CONSTANT if clean == 1 else decides
            scores, made = (f"{share(clean)} clean", MISSING, "–"), "its card"
        else:
            attacks = [each for each in record.series if each.kind == "compute"]
            decides = decides if attacks else CONSTANT
            command += "".join(f" --attack {each.attack}" for each in attacks)
            command += f" --samples {len(record.series[0].macs)}"
            scores, made = scored(record), f"`{baseline.made['commit'][:7]}`"
        yield Line(
            f"{card['family']}: `{name}`",
            summary(factory.__doc__),
            decides,
            inputs_of(card["data"]),
            *scores,
            f"`{command}`",
            made,
        )


def scored(record: Record) -> tuple[str, str, str]:
    """Work of a registered victim, its ratio, and what the strongest control does."""
    (union,) = (each for each in record.series if each.kind == "union")
    (clean,) = (each for each in record.series if each.attack == "clean")
    ceiling = sum(union.ceiling) or record.max_macs * len(union.macs)
    before, after = spent(clean), spent(union)
    inside = [
        each
        for each in record.series
        if each.kind == "control" and (each.threat, each.eps) == (union.threat, union.eps)
    ]
    strongest = max(inside, key=spent, default=clean)
    work = f"{share(before / ceiling)} → {share(after / ceiling)}"
    if ceiling > before:
        work += f", **{share((after - before) / (ceiling - before))}** of the savings"
    if record.currency != "macs":
        work += f"; in {record.currency}"
    control = f"{strongest.attack} {share(spent(strongest) / ceiling)}"
    return work, f"{after / before:.2f}", control


def spent(series: Series) -> float:
    """Work of all inputs, in the count that judges."""
    return sum(series.work or series.macs)


def tuned_and_distilled() -> Iterator[Line]:
    """What is made of registered victims, and scored where it is meant for."""
    by_form = {(row["victim"], row["form"], row["images"]): row for row in kept(tuned.ROWS)}
    for form in tuned.FORMS:
        row = by_form.get((form.of, form.name, form.images))
        if row is None or form.name == tuned.AS_IT_IS:
            continue
        yield Line(
            f"`{form.of}`",
            form.name,
            row["rule"],
            f"digits, {form.images}",
            f"{share(row['macs'] / row['max_macs'])} clean; **{share(row['back'])}** of the "
            "savings",
            "–",
            f"noise {share(row['back_in_noise'])} of them",
            "`python benchmarks/tuned.py`: [tuned](tuned.md)",
            f"`{row['code']}`",
        )


def real() -> Iterator[Line]:
    """Systems from packages."""
    for name, read in readme_table.SYSTEMS.items():
        system, about = read(), REAL[name]
        page = re.sub(r"\(docs/", "(", system.page)
        last = kept(about.rows)[-1]
        yield Line(
            system.model,
            f"{system.attack}; {system.knows}",
            about.decides,
            about.inputs,
            system.work,
            f"{system.ratio:.2f}",
            system.control,
            f"`python {about.command}`: {page}",
            f"`{last.get('commit') or last['code']}`",
        )


def decided(victim: type) -> str:
    """Who decides in victims of a class."""
    known = (DECIDES[base.__name__] for base in victim.__mro__ if base.__name__ in DECIDES)
    return next(known, "–")


def summary(text: str) -> str:
    """The first sentence of a docstring."""
    paragraph = " ".join(text.strip().partition("\n\n")[0].split())
    return re.split(r"(?<=\w)\.(?: |$)", paragraph)[0].replace("``", "`")


def inputs_of(data: str) -> str:
    """What a card says of its data, in short: no sizes, and of a module its name."""
    return re.split("[:;(]| enlarged", data)[0].strip().rpartition(".")[2]


def table() -> pd.DataFrame:
    """A line per system."""
    lines = [*registered(Baseline.load(BASELINE)), *tuned_and_distilled(), *real()]
    return pd.DataFrame([line._asdict() for line in lines]).set_axis(COLUMNS, axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--table", type=Path, help="a page that has the table, to be put there")
    args = parser.parse_args()
    if args.table is None:
        print(markdown(table()))
    else:
        put(args.table, HEAD, table())


if __name__ == "__main__":
    main()
