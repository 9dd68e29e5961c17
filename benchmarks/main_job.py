"""Where the time of ``effattack run`` goes: of the default run, or of one with your options.

    python benchmarks/main_job.py
    python benchmarks/main_job.py -- --victim digits_vit_ats --attack "Slowdown(steps=50)"

The run is a process of its own, with an empty folder, as a user starts it. Without options it is
the default one without its bracket. The first table is by the clock, from phase to phase; the
second adds up what the journal of the store says of each cell, in whatever process it ran: so with
two workers its seconds are more than those of the clock. An attack of a library stands under its
own name; a control searches nothing, and its audit is compared with none. Run it on a machine that
does nothing else; the load before it is printed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
from tables import markdown

from effattack.attacks.by_name import CONTROLS
from effattack.cells.spec import Work, code_version
from effattack.cells.store.journal import Journal
from effattack.measure.environment import environment

DEFAULT = ("--seed", "0")
"""Whoever asks for anything, be it the default seed, is shown no bracket."""
PHASES = {
    Work.CONTRACT: "start, plan and contracts",
    Work.ATTACK: "attacks",
    Work.TIMING: "timings",
}
LAST = "report, and what else follows"
Entry = dict[str, Any]


def timed(options: Sequence[str]) -> tuple[list[Entry], float, float]:
    """Run it: the journal of finished cells, when it started, and when it was over."""
    here = os.pathsep.join([os.getcwd(), str(Path(__file__).parent), *sys.path])
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "effattack", "run", *options, "--out", folder, "--quiet"]
        started = time.time()
        subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": here})
        over = time.time()
        journal = list(Journal(Path(folder) / "cells" / "journal.jsonl"))
    return [entry for entry in journal if entry["state"] == "done"], started, over


def by_clock(journal: Sequence[Entry], started: float, over: float) -> pd.DataFrame:
    """Seconds of each phase: it ends with its last cell, and the next one begins."""
    lines, before = [], started
    for work, name in PHASES.items():
        ended = [entry["time"] for entry in journal if entry["spec"]["work"] == work]
        if ended:
            lines.append((name, max(ended) - before))
            before = max(ended)
    lines += [(LAST, over - before), ("all", over - started)]
    return pd.DataFrame([{"phase": name, "seconds": f"{spent:.1f}"} for name, spent in lines])


def by_work(journal: Sequence[Entry]) -> pd.DataFrame:
    """Seconds of each attack, contract and timing, added up over cells, and what they part into."""
    cells = pd.DataFrame([_told(entry) for entry in journal])
    found = cells.groupby("work", sort=False).sum().sort_values("all", ascending=False)
    found.loc["all"] = found.sum()
    beside, rate = (found.audit + found.storage) / found.attack, found.inputs / found["all"]
    attacked = found.attack > 0
    searched = attacked & ~found.index.to_series().isin(CONTROLS)
    return (
        found.drop(columns="inputs")
        .map("{:.1f}".format)
        .assign(
            **{
                "audit and storage, of attack": beside.map("{:.0%}".format).where(searched, ""),
                "inputs per second": rate.map("{:.3g}".format).where(attacked, ""),
            }
        )
        .reset_index()
    )


def _told(entry: Entry) -> Entry:
    spec, parts = entry["spec"], entry["parts"]
    attacked = spec["work"] == Work.ATTACK
    split = {name: parts.get(name, 0.0) for name in ("attack", "audit", "storage")}
    return {
        "work": spec["attack"] if attacked else f"all {spec['work']}s",
        "inputs": (spec["last"] - spec["first"]) * attacked,
        **split,
        "other": entry["seconds"] - sum(split.values()),
        "all": entry["seconds"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("options", nargs="*", help="of effattack run, after --")
    options = parser.parse_args().options or list(DEFAULT)
    load = os.getloadavg()[0]
    journal, started, over = timed(options)
    about = environment("cpu")
    print(f"{about['cpu']}, {about['cores']} cores, load {load:.1f} before, {code_version()}\n")
    print(markdown(by_clock(journal, started, over)), markdown(by_work(journal)), sep="\n\n")


if __name__ == "__main__":
    main()
