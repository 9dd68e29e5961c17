"""The table of real systems that README opens with, from the rows that are kept.

python benchmarks/real_systems.py --table
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import tables
from kept_rows import kept
from real_latency import ROWS as LATENCY
from real_latency import ratio, written

from effattack.measure.statistics import Interval, median_ratio

REAL = LATENCY.parent
HEAD = "| model, from a package |"
SMOLLM2 = Path(__file__).with_name("smollm2.jsonl")


class System(NamedTuple):
    """A line of the table."""

    model: str
    attack: str
    knows: str
    work: str
    """Of one input, clean → attacked."""
    ratio: float
    """So many clean requests does an attacked one equal, on average."""
    control: str
    """What a change of the same size without an attacker does."""
    seconds: Interval
    """Attacked over clean."""
    lost: str
    """By the answer."""
    page: str


def mtcnn() -> System:
    frame = pd.DataFrame(kept(REAL / "mtcnn.jsonl"))
    house, noise, same = (
        frame[frame.attack == name] for name in ("house", "noise", "house, same faces")
    )
    clean = house.macs / house.ratio
    return System(
        "MTCNN, faces in photographs",
        "l-inf 8/255, 20 gradients",
        "white box",
        f"MACs {clean.mean() / 1e9:.2f} → {house.macs.mean() / 1e9:.2f} G",
        house.ratio.mean(),
        f"noise {times(noise.ratio.mean())}",
        median_ratio(house.ours_seconds_attacked, house.ours_seconds_clean),
        f"{house.faces.mean():.0f} faces in place of {house.clean_faces.mean():.1f}"
        + (f"; with the faces kept {times(same.ratio.mean())}" if len(same) else ""),
        f"{len(house)} photographs: [detection](docs/detection.md#mtcnn)",
    )


def lightglue() -> System:
    frame = pd.DataFrame(kept(REAL / "lightglue.jsonl"))
    by_inputs = {str(name): some.set_index("photograph") for name, some in frame.groupby("inputs")}
    clean, noise, attacked = (by_inputs[name] for name in ("clean", "noise", "attacked"))
    room = clean.ceiling - clean.macs
    back, by_noise = (((some.macs - clean.macs) / room).mean() for some in (attacked, noise))
    return System(
        "LightGlue, matching pairs of photographs",
        "first image, l-inf 8/255, 15 gradients",
        "white box",
        f"{clean.layers.mean():.1f} → {attacked.layers.mean():.1f} of 9 layers, **{share(back)}** "
        "of the savings",
        (attacked.macs / clean.macs).mean(),
        f"noise {share(by_noise)} of them",
        timed("lightglue"),
        f"{share(attacked.kept.mean())} of the matches kept",
        f"{len(clean)} pairs: [matching](docs/matching.md)",
    )


def sounds(system: str, index: str, *, eps: float, steps: int) -> Iterator[pd.DataFrame]:
    """Rows of a system that hears: clean, in noise, and under ``Slowdown``, by their sound."""
    frame = pd.DataFrame(kept(REAL / f"{system}.jsonl"))
    for attack, size in (("clean", 0.0), ("noise", eps), (f"Slowdown(steps={steps})", eps)):
        yield frame[(frame.attack == attack) & (frame.eps == size)].set_index(index)


def whisper() -> System:
    clean, noise, attacked = sounds("whisper", "sentence", eps=0.002, steps=25)
    return System(
        "Whisper tiny.en, spoken sentences",
        f"samples, l-inf .002, {attacked.snr_db.mean():.0f} dB, 25 gradients",
        "white box",
        f"{clean.passes.mean():.0f} → {attacked.passes.mean():.0f} passes, "
        f"{attacked.capped.sum()} of {len(attacked)} at the cap of 224",
        (attacked.passes / clean.passes).mean(),
        f"noise {noise.passes.mean():.0f} passes",
        timed("whisper"),
        f"{(attacked.text != clean.text).sum()} of {len(attacked)} transcripts changed",
        f"{len(attacked)} sentences: [sound](docs/sound.md)",
    )


def faster_whisper() -> System:
    clean, noise, attacked = sounds("faster_whisper", "sentence", eps=0.01, steps=10)
    return System(
        "the same in `faster-whisper`, with its retries",
        f"samples, l-inf .01, {attacked.snr_db.mean():.0f} dB, 10 gradients on a twin",
        "white box of the twin",
        f"{clean.passes.mean():.0f} → {attacked.passes.mean():.0f} passes, "
        f"{(attacked.retries > 0).sum()} of {len(attacked)} decoded again",
        (attacked.passes / clean.passes).mean(),
        f"noise {noise.passes.mean():.0f} passes",
        timed("faster_whisper"),
        f"{(attacked.text != clean.text).sum()} of {len(attacked)} transcripts changed",
        f"{len(attacked)} sentences: [sound](docs/sound.md#as-it-is-installed-faster-whisper)",
    )


def voice_gate() -> System:
    clean, noise, attacked = sounds("voice_gate", "sound", eps=0.002, steps=25)
    return System(
        "silero-vad before a Whisper, no speech",
        "samples, l-inf .002, 25 gradients",
        "white box",
        f"{clean.windows.sum()} → {attacked.windows.sum()} of {attacked['of'].sum()} windows "
        "heard as speech",
        (attacked.macs / clean.macs).mean(),
        f"noise {noise.windows.sum()} windows",
        timed("voice_gate"),
        "words where nobody spoke",
        f"{', '.join(attacked.index)}: [sound](docs/sound.md#a-voice-detector-before-it)",
    )


def smollm2() -> System:
    frame = pd.DataFrame(kept(SMOLLM2))
    clean, attacked, drawn = (
        frame[(frame.cap == 160) & (frame.threat == threat) & (frame.attack == attack)]
        for threat, attack in (
            ("", "clean"),
            ("suffix:1", "Slowdown(steps=25)"),
            ("suffix:1", "BestOfRandom(draws=16)"),
        )
    )
    return System(
        "SmolLM2-135M, plain questions",
        "one word more, 25 gradients, restarted",
        "white box",
        f"{clean.passes.mean():.0f} → {attacked.passes.mean():.0f} passes, "
        f"{attacked.capped.sum()} of {len(attacked)} at the cap of 160 (clean "
        f"{clean.capped.sum()})",
        (attacked.set_index("prompt").passes / clean.set_index("prompt").passes).mean(),
        f"the best of random words: {drawn.passes.mean():.0f} passes, {drawn.capped.sum()} at the "
        "cap",
        timed("smollm2"),
        "what is asked for changes",
        f"{len(attacked)} questions: "
        "[generation](docs/generation.md#what-smollm2-is-made-to-write)",
    )


def ats() -> System:
    frame = pd.DataFrame(kept(REAL / "ats.jsonl"))
    by_inputs = {str(name): some for name, some in frame.groupby("inputs")}
    names = ("random pixels", "SlowFormer", "UniversalSlowdown")
    random, published, learnt = (by_inputs[name] for name in names)
    room = (learnt.ceiling - learnt.clean_macs).sum()
    by_random, by_published, back = (
        (some.macs - some.clean_macs).sum() / room for some in (random, published, learnt)
    )
    return System(
        "ViT-Tiny with ATS, photographs",
        "one patch for all, 64 of 224 pixels wide",
        "white box, on other photographs",
        f"MACs {learnt.clean_macs.mean() / 1e9:.3f} → {learnt.macs.mean() / 1e9:.3f} G, "
        f"**{share(back)}** of the savings",
        (learnt.macs / learnt.clean_macs).mean(),
        f"random pixels {share(by_random)} of them, SlowFormer's loss {share(by_published)}",
        timed("ats"),
        f"the class of {share((~learnt.same_class).mean())}",
        f"{len(learnt)} photographs: [ImageNet](docs/imagenet.md#one-patch-for-all-photographs)",
    )


SYSTEMS: Mapping[str, Callable[[], System]] = {
    "mtcnn": mtcnn,
    "lightglue": lightglue,
    "whisper": whisper,
    "faster_whisper": faster_whisper,
    "voice_gate": voice_gate,
    "smollm2": smollm2,
    "ats": ats,
}


def table() -> pd.DataFrame:
    """A line per system."""
    lines = []
    for read in SYSTEMS.values():
        system = read()
        lines.append(
            {
                "model, from a package": system.model,
                "attack": f"{system.attack}; {system.knows}",
                "what an input moves, clean → attacked": system.work,
                "equals clean requests": f"**{system.ratio:.2f}**",
                "in seconds": written(system.seconds),
                "control": system.control,
                "what the answer lost": system.lost,
                "more": system.page,
            }
        )
    return pd.DataFrame(lines)


def timed(system: str) -> Interval:
    """By the rows of ``real_latency.py``."""
    return ratio(kept(LATENCY), system)


def times(value: float) -> str:
    """×1.23"""
    return f"×{value:.2f}"


def share(value: float) -> str:
    """12 %"""
    return f"{round(100 * value)} %"


def put(page: Path) -> None:
    """Put the table in place of the one on a page.

    Raises:
        UsageError: where there is none.
    """
    tables.put(page, HEAD, table())
