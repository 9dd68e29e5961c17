"""Records of the zoo: one file per victim and threat, made by one attack; what is there stays.

    python benchmarks/records.py                                 # what reports/records lacks
    python benchmarks/records.py --attack "AutoSlow" --seed 1 --victims digits_vit_ats --again
    EFFATTACK_CIFAR10=DIR python benchmarks/records.py --victims cifar10_sdn

The same command resumes. With ``--again`` those that are there are attacked too, and the new file
takes the place of the old one where its attack success is higher. A victim that is constant has no
record: there is nothing to take back.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

from effattack.cells.by_name import fresh
from effattack.errors import MissingPackage, RecordError
from effattack.registry import VICTIMS, entries
from effattack.results.records.record import Record, file_name
from effattack.runs.records.checking import expect_better
from effattack.runs.records.making import attacked

THREATS = {
    "pixels": ("linf:2/255", "linf:4/255", "linf:8/255"),
    "series": ("linf:.05sd", "linf:.1sd", "linf:.2sd"),
}
LEFT_OUT = (
    "digits_vit_llm_int8",
    *("cifar10_sdn", "cifar10_tinysaver_cascade", "cifar10_vit_ats"),
    *("exam_exit", "exam_cascade", "exam_skip"),
)
"""Half an hour on one core; data that do not come along; no attack's, but proven ones, by
``exam.py``. They are made where they are named."""


def victims() -> Iterator[str]:
    """Those that are registered, come with their data, and can spend more on one input than on
    another."""
    for name in sorted(entries(VICTIMS).keys() - {*LEFT_OUT}):
        try:
            if not fresh(name).constant:
                yield name
        except MissingPackage as error:
            print(f"{name} is left out: {error}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="records of the zoo, one file each")
    parser.add_argument("--victims", help="names, separated by commas (those with data)")
    parser.add_argument("--threats", help="separated by blanks (of images 2, 4, 8/255)")
    parser.add_argument("--attack", default="AutoSlow")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--samples", type=int, default=50)
    parser.add_argument("--by", default="", help="who publishes them")
    parser.add_argument("--again", action="store_true", help="attack what is there, too")
    parser.add_argument("--out", type=Path, default=Path("reports/records"), metavar="DIR")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.victims.split(",") if args.victims else victims():
        victim = fresh(name)
        for threat in args.threats.split() if args.threats else THREATS[victim.domain.kind]:
            file = args.out / file_name(victim.name, threat)
            if args.again or not file.exists():
                started = time.perf_counter()
                made = attacked(name, args.attack, threat, args.samples, seed=args.seed, by=args.by)
                print(f"{kept(made, file)} ({time.perf_counter() - started:.0f} s)", flush=True)


def kept(made: Record, file: Path) -> str:
    """Save a record unless a better one is there; what became of it."""
    if file.exists():
        try:
            expect_better(made, Record.load(file))
        except RecordError as error:
            return f"{file} stays: {error}"
    made.save(file)
    return f"{file}: attack success {made.rows.success():.1%}"


if __name__ == "__main__":
    main()
