"""Boxes in their images, clean and attacked, over a heat map of the candidates they came from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from effattack.reporting import pictures, stored, svg, warmth
from effattack.reporting.stored import Description
from effattack.reporting.strips import Pair, Shown, Strips
from effattack.reporting.verdict import Row
from effattack.results import heat
from effattack.results.heat import Heat

COLUMNS = ("left", "top", "right", "bottom", "score", "class")
WIDTH = 320.0
LARGEST_SIDE = 320
OPACITY = 0.35, 0.8
"""Of a place that one candidate covers, and of the one that most do."""
HOW = (
    "White frames are the boxes that the victim answered. The heat map below them shows how many "
    "candidates cover a place before non-maximum suppression: none where the image is as it was, "
    "then violet, orange and, at the most of both images, light yellow, on a logarithmic scale. "
    + pictures.DIFFERENCE
)


def can(domain: Description) -> bool:
    """Images that are answered in boxes."""
    told = tuple(domain.get("answer", {}).get("columns", ())) == COLUMNS
    return told and domain["kind"] == "pixels" and pictures.can(domain)


def size(domain: Description) -> float:
    """Bytes of both images, beside those of :mod:`effattack.reporting.pictures`."""
    channels, *sides = domain["shape"]
    drawn = [min(side or LARGEST_SIDE, LARGEST_SIDE) for side in sides]
    return pictures.size(domain) + 2.0 * channels * drawn[0] * drawn[1]


def show(pairs: Sequence[Pair], domain: Description) -> Strips:
    """Both images with their boxes, then the images by themselves."""
    plain = pictures.show(pairs, domain)
    examples = [
        [*_both(pair, domain["answer"]), *strip]
        for pair, strip in zip(pairs, plain.examples, strict=True)
    ]
    return Strips(examples, plain.detail)


def _both(pair: Pair, answer: Description) -> list[Shown]:
    told = [("clean", pair.clean, pair.before), ("attacked", pair.attacked, pair.row)]
    heats = [_heat(row) for _, _, row in told]
    most = max((int(one.counts.max()) for one in heats if one), default=0)
    return [
        _shown(name, pair.sample, pixels, stored.members(row["prediction"], answer), found, most)
        for (name, pixels, row), found in zip(told, heats, strict=True)
    ]


def _heat(row: Row) -> Heat | None:
    """The candidates of a row; None where the frame holds none: earlier ones, and artefacts."""
    raw = row.get("heat")
    return heat.from_bytes(bytes(raw)) if isinstance(raw, bytes | bytearray) else None


def _shown(
    name: str,
    sample: int,
    pixels: NDArray[np.uint8],
    boxes: NDArray[np.float64] | None,
    found: Heat | None,
    most: int,
) -> Shown:
    height, width = pixels.shape[1:]
    count = "boxes not stored" if boxes is None else f"boxes {len(boxes):,}"
    of = "candidates not stored"
    if found:
        of = f"candidates {found.boxes:,}, at most {int(found.counts.max()):,} in one place"
    down = WIDTH * height / width
    marks = [svg.image(pictures.png(pictures.fitting(pixels, LARGEST_SIDE)), 0, 0, WIDTH, down)]
    if found and found.boxes:
        rows, columns = found.counts.shape
        side = WIDTH * heat.side_of((height, width)) / width
        warm = pictures.png(_warm(found.counts, most))
        marks.append(svg.image(warm, 0, 0, columns * side, rows * side, "crisp"))
    for box in () if boxes is None else boxes:
        marks.append(_frame(box, WIDTH / width))
    label = f"image {sample}, {name}: {count}, {of}"
    return Shown(f"{name}: {count}, {of}", svg.draw(WIDTH, down, label, *marks), "half")


def _warm(counts: NDArray[np.uint16], most: int) -> NDArray[np.uint8]:
    """(4, rows, columns): colours and opacity of a grid, ``most`` in any of its squares."""
    value = np.log1p(counts) / np.log1p(most)
    faint, strong = OPACITY
    opacity = np.where(counts > 0, faint + (strong - faint) * value, 0.0)
    return np.concatenate([warmth.colours(value), (255 * opacity).round().astype(np.uint8)[None]])


def _frame(box: NDArray[np.float64], scale: float) -> Markup:
    """A white frame with a dark one behind it: seen on any image."""
    left, top, right, bottom = (float(edge) * scale for edge in box[:4])
    score, number = float(box[4]), float(box[5])
    about = svg.element("title", f"class {number:g}, score {score:.2f}")
    place = {"x": left, "y": top, "width": max(right - left, 0.5), "height": max(bottom - top, 0.5)}
    return svg.element("rect", class_="halo", **place) + svg.element(
        "rect", about, class_="found", **place
    )
