"""Example images: clean, attacked, the difference, and which tokens were kept, as PNG."""

from __future__ import annotations

import base64
import io
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from effattack.reporting import words
from effattack.reporting.maps import token_map
from effattack.reporting.meta import Meta, section
from effattack.reporting.verdict import Row, Verdict, rows_of, samples_of, tag, unit_of

LARGEST_SIDE = 128
BUDGET = 3_000_000
"""Bytes of pixels in all galleries of one report together."""
EXAMPLES = 8


class Picture(NamedTuple):
    """One picture of an example."""

    caption: str
    uri: str
    alt: str


class Example(NamedTuple):
    """One image under attack."""

    sample: int
    label: str
    before: str
    after: str
    kept: bool
    macs: str
    ratio: str
    pictures: list[Picture]


class Gallery(NamedTuple):
    """The examples of one victim under one attack."""

    verdict: Verdict
    attack: str
    budget: str
    tag: str
    factor: int
    stride: int
    examples: list[Example]
    note: str


def gallery(samples: pd.DataFrame, scores: pd.DataFrame, verdict: Verdict, meta: Meta) -> Gallery:
    """Examples under the attack that got furthest; of a constant victim, in changing answers."""
    own = samples[samples["victim"].map(str) == verdict.victim]
    row = verdict.attack if verdict.worst else _instead(scores, verdict)
    about = section(meta, "victims").get(verdict.victim) or {}
    shape = tuple(int(side) for side in about.get("input_shape") or ())
    if row is None or own.empty:
        return _none(verdict, "No attack was run on this victim.")
    if len(shape) != 3 or shape[0] not in (1, 3):
        sides = " × ".join(map(str, shape)) if shape else "unknown shape"
        return _none(verdict, f"Its inputs ({sides}) cannot be shown as images.")
    pairs = _pairs(own, row, shape)
    if not pairs:
        return _none(verdict, "No images were stored for this victim.")
    stride = max(1, -(-max(shape[1:]) // LARGEST_SIDE))
    size = 5 * float(np.prod(shape)) / stride**2
    room = int(BUDGET / size / max(1, samples["victim"].nunique()))
    pairs = pairs[: max(1, min(EXAMPLES, room))]
    largest = max(int(np.abs(b.astype(int) - a).max()) for _, _, a, b in pairs)
    factor = max(1, 127 // max(largest, 1))
    return Gallery(
        verdict=verdict,
        attack=str(row["attack"]),
        budget=words.at(row),
        tag=tag(row),
        factor=factor,
        stride=stride,
        examples=[_example(*pair, factor, stride) for pair in pairs],
        note="",
    )


def _none(verdict: Verdict, note: str) -> Gallery:
    return Gallery(verdict, "", "", "", 1, 1, [], note)


def _instead(scores: pd.DataFrame, verdict: Verdict) -> Row | None:
    mine = (scores["victim"].map(str) == verdict.victim) & (scores["kind"] == "accuracy")
    return min(rows_of(scores[mine]), key=lambda row: row["agreement"], default=None)


def _pairs(
    own: pd.DataFrame, row: Row, shape: tuple[int, ...]
) -> list[tuple[Row, Row, np.ndarray, np.ndarray]]:
    """Attacked and clean rows that have images of the right size, in order of the samples."""
    clean = {record["sample"]: record for record in rows_of(own[own["attack"] == "clean"])}
    cell = samples_of(row, own)
    pairs = []
    first = cell[cell["seed"] == cell["seed"].min()].sort_values("sample")
    for record in rows_of(first):
        start = clean.get(record["sample"], {})
        before, after = (_pixels(one.get("image"), shape) for one in (start, record))
        if before is not None and after is not None:
            pairs.append((record, start, before, after))
    return pairs


def _pixels(raw: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    if not isinstance(raw, bytes | bytearray) or len(raw) != np.prod(shape):
        return None
    return np.frombuffer(raw, dtype=np.uint8).reshape(shape)


def _example(
    row: Row, start: Row, clean: np.ndarray, attacked: np.ndarray, factor: int, stride: int
) -> Example:
    signed = (attacked.astype(int) - clean) * factor + 128
    drawn = {
        "clean": clean,
        "attacked": attacked,
        "difference": np.clip(signed, 0, 255).astype(np.uint8),
    }
    about = f"image {int(row['sample'])}"
    pictures = [
        Picture(name, png(pixels[:, ::stride, ::stride]), f"{name}, {about}")
        for name, pixels in drawn.items()
    ]
    for name, pixels, record in (("kept, clean", clean, start), ("kept, attacked", attacked, row)):
        if found := token_map(pixels, record.get("decisions")):
            uri = png(found.pixels[:, ::stride, ::stride])
            pictures.append(Picture(name, uri, f"{name}, {about}: {found.words}"))
    change = row["macs"] / row["clean_macs"] if row["clean_macs"] else float("nan")
    like = unit_of(row)
    before, after = words.macs(row["clean_macs"], like=like), words.macs(row["macs"], like=like)
    return Example(
        sample=int(row["sample"]),
        label=str(row["label"]),
        before=str(row["clean_prediction"]),
        after=str(row["prediction"]),
        kept=bool(row["prediction"] == row["clean_prediction"]),
        macs=f"{before} → {after}",
        ratio=words.ratio(change),
        pictures=pictures,
    )


def png(pixels: np.ndarray) -> str:
    """(1 or 3, H, W) uint8 as a data URI."""
    image = Image.fromarray(pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, -1).copy())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
