"""The exam: every attack, graded by how near it comes to the worst case that a solver proved.

    python benchmarks/exam.py                  # solves what reports/exam lacks, then grades
    python benchmarks/exam.py --attacks AutoSlow --seeds 0,1,2 --out exam-again
    python benchmarks/exam.py --choose         # the budgets, on held-out images

The answers are a record of the witnesses per victim and budget, and beside it a CSV file of what
was proven per image; both stay. Attacks run with at most 200 gradients per image on the same
images. Their share of the optimum is (attacked - clean) / (optimum - clean) in executed MACs.
Finished cells lie in ``--out``: the same command resumes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import torch
from strength import LEFT_OUT, attack_names, numbers
from tables import markdown

from effattack.attacks import attack_class, build, names
from effattack.attacks.by_name import OF_LIBRARIES
from effattack.attacks.naming import options_of, written
from effattack.budgets import LEVELS
from effattack.certify.exact import Optimum, optima
from effattack.certify.exact.optimum import Status
from effattack.errors import NotApplicable
from effattack.models_zoo.digits import small_digits
from effattack.registry import read_name
from effattack.results.files import replaced
from effattack.results.records.record import file_name
from effattack.runs.executors.workers import Workers
from effattack.runs.records.making import recorded
from effattack.runs.sweep import Sweep
from effattack.threats import parse_threat
from effattack.victim import Victim, load_victim

BUDGETS = {
    "exam_exit": (10, 14, 18),
    "exam_cascade": (10, 14, 18),
    "exam_skip": (8, 12, 16),
}
"""Grey levels at which the optimum takes back about .3, .5 and .7 of the savings of the held-out
images (``--choose``)."""
TRIED = (8, 10, 12, 14, 16, 18, 20)
GRADIENTS = 200
OTHERS = (
    "Slowdown(steps=50)",
    "Slowdown(steps=20, restarts=10)",
    "QueryAttack(queries=1000)",
)
"""Beside the attacks with 200 gradients: the house attack with its usual 50, and with restarts;
longer queries."""
STATUS: tuple[Status, ...] = ("solved", "open", "timed out")


def threats(name: str) -> list[str]:
    return [f"linf:{levels}/{LEVELS}" for levels in BUDGETS[name]]


def spread(count: int, among: int) -> list[int]:
    """Evenly, as sweeps and records choose their inputs."""
    return [i * among // count for i in range(count)]


def answers(name: str, threat: str, count: int, limit: float, folder: Path) -> pd.DataFrame:
    """What was proven, solved unless it lies there already."""
    path = folder / file_name(name, threat).replace(".record", ".csv")
    if path.exists() and path.with_suffix(".record").exists():
        return pd.read_csv(path)
    victim, (images, _) = load_victim(name), small_digits("test")
    indices = spread(count, len(images))
    started = time.process_time()
    found = optima(victim, images[indices], threat, time_limit=limit)
    taken = time.process_time() - started
    record = recorded(
        victim,
        torch.cat([each.witness for each in found]),
        threat=threat,
        attack="exact optimum, by HiGHS",
        indices=indices,
    )
    proven = as_table(found, indices)
    record.save(path.with_suffix(".record"))
    replaced(path, proven.to_csv(index=False, lineterminator="\n").encode())
    print(f"{path}: {told(found, victim)}, {taken:.0f} s of a core", flush=True)
    return proven


def as_table(found: Sequence[Optimum], indices: Sequence[int]) -> pd.DataFrame:
    rows = [
        (index, each.clean, each.found, each.bound, each.status, round(each.seconds, 2))
        for index, each in zip(indices, found, strict=True)
    ]
    return pd.DataFrame(rows, columns=["index", "clean", "found", "bound", "status", "seconds"])


def told(found: Sequence[Optimum], victim: Victim) -> str:
    """Shares of the savings that are taken back: found, at most; and how many were solved."""
    clean, best, most = (
        sum(getattr(each, key) for each in found) for key in ("clean", "found", "bound")
    )
    saved = len(found) * victim.max_macs - clean
    status = [each.status for each in found]
    counts = ", ".join(f"{sum(one == key for one in status)} {key}" for key in STATUS)
    slowest = max(each.seconds for each in found)
    return (
        f"clean work {clean / len(found) / victim.max_macs:.3f} of max, takes back "
        f"{(best - clean) / saved:.3f}, at most {(most - clean) / saved:.3f}; {counts}; slowest "
        f"{slowest:.1f} s"
    )


def choose(victims: Sequence[str], limit: float, count: int = 40) -> None:
    """Print what the optimum takes back on held-out images, budget by budget."""
    images, _ = small_digits("heldout")
    images = images[spread(count, len(images))]
    for name in victims:
        victim = load_victim(name)
        for levels in TRIED:
            found = optima(victim, images, f"linf:{levels}/{LEVELS}", time_limit=limit)
            print(f"{name} {levels}/{LEVELS}: {told(found, victim)}", flush=True)


def applicable(asked: Sequence[str], victim: Victim, threat: str) -> Iterator[str]:
    """Names of the attacks that apply, in the steps that 200 gradients allow."""
    for text in asked:
        try:
            yield budgeted(text, victim, threat)
        except NotApplicable as error:
            print(f"{victim.name}: {text} is left out: {error}", flush=True)


def budgeted(text: str, victim: Victim, threat: str) -> str:
    """An attack in at most 200 gradients per image, unless its name tells its steps."""
    name, options = read_name(text)
    takes_steps = "steps" in options_of(attack_class(name)) or name in OF_LIBRARIES
    if takes_steps and "steps" not in options:
        per_step = build(f"{name}(steps=1)", victim, parse_threat(threat)).gradients
        options = {**options, "steps": GRADIENTS // per_step}
    text = f"{name}({written(options)})" if options else name
    build(text, victim, parse_threat(threat))
    return text


def graded(samples: pd.DataFrame, proven: pd.DataFrame) -> pd.DataFrame:
    """Attack -> share of the optimum, and the images on which it is reached.

    Raises:
        AssertionError: where an attack ends above what was proven: then one of the two is wrong;
            or the answers are of other inputs.
    """
    both = samples.merge(proven, left_on="sample", right_index=True, validate="many_to_one")
    untouched = both[both.attack == "clean"]
    same = len(both) == len(samples) and (untouched.macs == untouched.clean).all()
    assert same, "the answers are of other inputs: solve them anew, in another --answers"
    both = both[both.attack != "clean"]
    above = both[both.macs > both.bound]
    assert above.empty, f"ended above the optimum:\n{above[['attack', 'sample', 'macs', 'bound']]}"
    gained = both.macs - both.clean
    possible = both.bound - both.clean
    sums = both.assign(gained=gained, possible=possible).groupby("attack", sort=False)
    reached = both.assign(reached=both.macs == both.bound).groupby("attack", sort=False).reached
    return pd.DataFrame(
        {"share": sums.gained.sum() / sums.possible.sum(), "reached": reached.mean()}
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="share of the optimum of every attack")
    everything = [*(n for n in names() if n not in LEFT_OUT), *OTHERS]
    parser.add_argument("--victims", default=",".join(BUDGETS))
    parser.add_argument("--attacks", type=attack_names, default=everything, metavar="'NAME NAME'")
    parser.add_argument("--seeds", type=numbers(int), default=[0])
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--limit", type=float, default=120.0, help="seconds per image (120)")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes (1)")
    parser.add_argument("--answers", type=Path, default=Path("reports/exam"), metavar="DIR")
    parser.add_argument("--out", type=Path, default=Path("exam"), metavar="DIR")
    parser.add_argument("--choose", action="store_true", help="budgets on held-out images")
    args = parser.parse_args()
    torch.set_num_threads(1)
    victims = args.victims.split(",")
    if args.choose:
        choose(victims, args.limit)
        return
    for folder in (args.answers, args.out):
        folder.mkdir(parents=True, exist_ok=True)
    columns = {}
    for name in victims:
        for threat in threats(name):
            proven = answers(name, threat, args.images, args.limit, args.answers)
            samples = attacked(name, threat, args)
            grades = graded(samples, proven)
            columns[f"{name.removeprefix('exam_')}, {threat.removeprefix('linf:')}"] = grades
            print(f"\n{name}, {threat}\n{grades.round(4).to_string()}\n", flush=True)
    table = pd.DataFrame({key: grades.share for key, grades in columns.items()})
    table.insert(0, "mean", table.mean(axis=1))
    table = table.sort_values("mean", ascending=False)
    shown = table.map(lambda share: "" if pd.isna(share) else f"{share:.3f}").reset_index()
    (args.out / "exam.md").write_text(markdown(shown) + "\n", encoding="utf-8")
    print(markdown(shown))


def attacked(name: str, threat: str, args: argparse.Namespace) -> pd.DataFrame:
    """The rows of all attacks that apply, counted on the deployed path."""
    victim: Victim = load_victim(name)
    attacks = tuple(dict.fromkeys(applicable(args.attacks, victim, threat)))
    sweep = Sweep((name,), attacks, (threat,), tuple(args.seeds), samples=args.images, timed=0)
    samples = sweep.run(args.out, Workers(args.workers)).samples
    return samples[(samples.attack == "clean") | (samples.threat == threat.partition(":")[0])]


if __name__ == "__main__":
    main()
