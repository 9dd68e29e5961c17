"""Made-up frames of victims whose inputs are no images: series, prompts, an image and a prompt."""

from __future__ import annotations

import json
import struct
from typing import Any

import frames
import numpy as np
import pandas as pd

LENGTH, PIECES = 128, 32
SERIES = {
    "kind": "series",
    "noun": "series",
    "nouns": "series",
    "shape": [1, LENGTH],
    "low": -16.0,
    "high": 16.0,
    "step": 2.0**-7,
}
TOKENS = {"kind": "tokens", "noun": "prompt", "nouns": "prompts", "shape": [None]}
IMAGE = {"kind": "pixels", "noun": "image", "nouns": "images", "shape": [3, 32, 32]}
PARTS = {
    "kind": "parts",
    "noun": "input",
    "nouns": "inputs",
    "shape": [],
    "parts": {"picture": IMAGE, "question": TOKENS},
}


def series(sample: int, attacked: bool) -> np.ndarray:
    """(1, LENGTH) levels of ``step`` above ``low``: a slope, and one value moved by the attack."""
    levels = (2048 + np.arange(LENGTH) * (sample + 1)).astype("<i4")[None]
    levels[0, 5] += 128 * attacked
    return levels


def tokens(sample: int, attacked: bool) -> np.ndarray:
    """Ids; the attack changes the second and adds one at the end."""
    ids = [10 + sample, 11, 12, 13]
    return np.array([ids[0], 999, *ids[2:], 77] if attacked else ids, dtype="<i4")


def stored(kind: str, sample: int, attacked: bool, picture: bytes) -> bytes:
    """As the domain of that kind packs it."""
    if kind == "series":
        return series(sample, attacked).tobytes()
    if kind == "tokens":
        return tokens(sample, attacked).tobytes()
    question = tokens(sample, attacked).tobytes()
    return struct.pack("<2q", len(picture), len(question)) + picture + question


def read_on(pieces: int) -> str:
    """What is stored of a model that stopped after so many pieces."""
    return json.dumps({"steps": "1" * (pieces - 1) + "0" * (PIECES - pieces)})


def evaluated(domain: dict[str, Any], name: str = "reader") -> tuple[Any, Any, dict[str, Any]]:
    """Samples, scores and meta of one victim of that domain; clean reads 8 pieces, attacked 20."""
    kind = str(domain["kind"])
    rows = frames.samples(12)
    rows = rows[rows.victim == "digits_cnn_early_exit"].reset_index(drop=True)
    shown = rows["image"].notna()
    for at in rows.index[shown]:
        row = rows.loc[at]
        attacked = row.attack != "clean"
        rows.at[at, "image"] = stored(kind, int(row["sample"]), attacked, row.image)
        rows.at[at, "decisions"] = read_on(20 if attacked else 8)
    rows["opened"] = [np.array([19 if a != "clean" else 7]) for a in rows.attack]
    rows["victim"] = name
    meta = frames.meta()
    meta["data"] = "mypackage.data:heldout"
    meta["victims"] = {name: {"family": "early exit", "domain": domain}}
    meta["notes"], meta["skipped"], meta["checks"], meta["latency"] = [], [], [], {}
    return rows, frames.scores(rows), meta


def joined(*parts: tuple[Any, Any, dict[str, Any]]) -> tuple[Any, Any, dict[str, Any]]:
    """Several evaluations as one."""
    rows = pd.concat([one[0] for one in parts], ignore_index=True)
    meta = dict(parts[0][2])
    meta["data"] = "mypackage.data:heldout"
    meta["victims"] = {name: about for one in parts for name, about in one[2]["victims"].items()}
    return rows, frames.scores(rows), meta
