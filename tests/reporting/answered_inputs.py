"""Made-up frames of victims that answer in places, or hear: what pictures are drawn of."""

from __future__ import annotations

import json
import struct
from typing import Any

import frames
import numpy as np
import other_inputs as others

from effattack.results.heat import covered, to_bytes

BOXES = {"noun": "boxes", "columns": ["left", "top", "right", "bottom", "score", "class"]}
MATCHES = {"noun": "matches", "columns": ["x", "y", "x there", "y there", "score"], "pixels": 3.0}
PAIR = {
    "kind": "parts",
    "noun": "input",
    "nouns": "inputs",
    "shape": [],
    "parts": {"first": others.IMAGE, "second": others.IMAGE},
}
RATE = 1600
RECORDING = {
    **others.SERIES,
    "noun": "recording",
    "nouns": "recordings",
    "shape": [1, None],
    "low": -1.0,
    "high": 1.0,
    "step": 2.0**-15,
    "rate": RATE,
}
CLEAN_BOXES = "2 4 12 20 0.9 7"
ATTACKED_BOXES = "2 4 12 20 0.8 7; 0 0 3 3 0.31 1; 20 20 32 32 0.3 0"
CLEAN_MATCHES = "1 1 2 2 0.9; 30 30 29 29 0.8; 5 5 20 20 0.5"
ATTACKED_MATCHES = "2 2 3 3 0.9; 30 30 10 10 0.8"
CANDIDATES = np.array([[0, 0, 8, 8], [0, 0, 16, 16], [0, 0, 16, 16]], dtype=float)
"""The first of which is that of clean images, too."""
STAGES = {True: {"finds": 30.0, "looks": 10.0}, False: {"finds": 30.0, "looks": 50.0}}
"""Of clean images, and of others."""


def tone(attacked: bool) -> np.ndarray:
    """(n,) half a second at a quarter of the rate's half; attacked, a tenth of it is added."""
    steps = np.arange(RATE // 2)
    change = 0.05 * np.sin(2 * np.pi * steps * 3 / 8) if attacked else 0
    return 0.5 * np.sin(2 * np.pi * steps / 8) + change


def recorded(sound: np.ndarray) -> bytes:
    """As the domain packs it."""
    levels = ((sound + 1) * 2**15).round().astype("<i4")
    return struct.pack("<i", len(sound)) + levels.tobytes()


def answered(
    domain: dict[str, Any], answer: dict[str, Any], clean: str, attacked: str
) -> tuple[Any, Any, dict[str, Any]]:
    """Samples, scores and meta of a victim that says ``clean``, and ``attacked`` of all else."""
    rows, _, meta = others.evaluated(others.SERIES, "answerer")
    pictures = frames.samples(12)
    rows["image"] = pictures[pictures.victim == "digits_cnn_early_exit"]["image"].to_numpy()
    is_clean = rows["attack"] == "clean"
    said = {True: clean, False: attacked}
    rows["prediction"] = is_clean.map(said)
    rows["clean_prediction"] = rows["label"] = clean
    rows["right"] = rows["same"] = is_clean
    rows["stage_macs"] = is_clean.map({one: json.dumps(macs) for one, macs in STAGES.items()})
    rows["heat"] = None
    meta["victims"]["answerer"] |= {"domain": domain, "answer": answer}
    return rows, frames.scores(rows), meta


def boxes() -> tuple[Any, Any, dict[str, Any]]:
    """A detector of images of 32 pixels."""
    rows, scores, meta = answered(others.IMAGE, BOXES, CLEAN_BOXES, ATTACKED_BOXES)
    for at in rows.index[rows["image"].notna()]:
        found = CANDIDATES if rows.attack[at] != "clean" else CANDIDATES[:1]
        rows.at[at, "heat"] = to_bytes(covered(found, (32, 32)))
    return rows, scores, meta


def matches() -> tuple[Any, Any, dict[str, Any]]:
    """A matcher of two such images, of which the first is attacked."""
    rows, scores, meta = answered(PAIR, MATCHES, CLEAN_MATCHES, ATTACKED_MATCHES)
    second = rows[rows.attack == "clean"].set_index("sample")["image"].to_dict()
    for at in rows.index[rows["image"].notna()]:
        one, two = rows.at[at, "image"], second[rows.at[at, "sample"]]
        rows.at[at, "image"] = struct.pack("<2q", len(one), len(two)) + one + two
    return rows, scores, meta


def sound() -> tuple[Any, Any, dict[str, Any]]:
    """A recogniser of half a second."""
    rows, scores, meta = answered(RECORDING, {"noun": "text"}, "one word", "one word after another")
    for at in rows.index[rows["image"].notna()]:
        rows.at[at, "image"] = recorded(tone(rows.attack[at] != "clean"))
    rows["capped"] = rows["attack"] != "clean"
    rows["output_tokens"] = 3.0
    return rows, scores, meta


DRAWN = {"boxes": boxes, "matches": matches, "sound": sound}
