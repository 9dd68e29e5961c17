"""Matches as lines between the two images of an input, clean and attacked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from effattack.reporting import pictures, stored, svg
from effattack.reporting.stored import Description
from effattack.reporting.strips import Pair, Shown, Strips

COLUMNS = ("x", "y", "x there", "y there", "score")
WIDTH, GAP = 480.0, 6.0
LARGEST_SIDE = 256
HOW = (
    "Lines are the matches between both images. Those that have a counterpart in the other answer, "
    "both ends as near as the task asks, are light; the others, lost by the attack or new under "
    "it, are orange and dashed. " + pictures.DIFFERENCE
)

Images = dict[str, NDArray[np.uint8]]
"""Name of a part -> (C, H, W) levels."""


def can(domain: Description) -> bool:
    """Two images that are answered in matches."""
    told = tuple(domain.get("answer", {}).get("columns", ())) == COLUMNS
    parts = [*domain.get("parts", {}).values()]
    images = [part["kind"] == "pixels" and pictures.can(part) for part in parts]
    return told and images == [True, True]


def size(domain: Description) -> float:
    """Bytes of both images twice and of the lines, beside those of what changed."""
    total = 40_000.0
    for part in domain["parts"].values():
        channels, *sides = part["shape"]
        drawn = [min(side or LARGEST_SIDE, LARGEST_SIDE) for side in sides]
        total += 2.0 * channels * drawn[0] * drawn[1] + pictures.size(part)
    return total


def read(raw: bytes, domain: Description) -> Images | None:
    """Both images of a stored input; None where the bytes are none."""
    parts = domain["parts"]
    if (rows := stored.parts(raw, len(parts))) is None:
        return None
    found = {
        name: pixels
        for (name, part), row in zip(parts.items(), rows, strict=True)
        if (pixels := stored.pixels(row, part)) is not None
    }
    return found if len(found) == len(parts) else None


def show(pairs: Sequence[Pair], domain: Description) -> Strips:
    """Both answers, then the images that changed by themselves."""
    examples = [_both(pair, domain["answer"]) for pair in pairs]
    details = []
    for name, part in domain["parts"].items():
        own = [p._replace(clean=p.clean[name], attacked=p.attacked[name]) for p in pairs]
        if all(np.array_equal(one.clean, one.attacked) for one in own):
            continue
        plain = pictures.show(own, part)
        details.append(f"{name}: {plain.detail}")
        for strip, found in zip(examples, plain.examples, strict=True):
            strip += [one._replace(caption=f"{name}: {one.caption}") for one in found]
    return Strips(examples, "; ".join(details))


def _both(pair: Pair, answer: Description) -> list[Shown]:
    clean, attacked = (stored.members(row["prediction"], answer) for row in (pair.before, pair.row))
    within = float(answer.get("pixels", 0.0))
    return [
        _shown(f"{name}, input {pair.sample}", images, mine, other, within)
        for name, images, mine, other in (
            ("clean", pair.clean, clean, attacked),
            ("attacked", pair.attacked, attacked, clean),
        )
    ]


def _shown(
    name: str,
    images: Images,
    mine: NDArray[np.float64] | None,
    other: NDArray[np.float64] | None,
    within: float,
) -> Shown:
    one, two = images.values()
    share = (WIDTH - GAP) / (one.shape[2] + two.shape[2])
    begin = one.shape[2] * share + GAP
    marks = [_placed(one, 0, share), _placed(two, begin, share)]
    caption = f"{name.partition(',')[0]}: matches not stored"
    if mine is not None and other is not None:
        ends = mine[:, :4] * share + (0, 0, begin, 0)
        kept = near(mine, other, within)
        marks += [_lines("halo", ends), _lines("found", ends[kept]), _lines("lost", ends[~kept])]
        apart = "lost when attacked" if name.startswith("clean") else "new when attacked"
        caption = (
            f"{name.partition(',')[0]}: {len(mine):,} matches, {(~kept).sum():,} of them {apart}"
        )
    height = share * max(one.shape[1], two.shape[1])
    return Shown(caption, svg.draw(WIDTH, height, f"{name}: {caption}", *marks), "whole")


def near(mine: NDArray[np.float64], other: NDArray[np.float64], within: float) -> NDArray[np.bool_]:
    """(n,): which matches have one among the other (m) whose both ends are within some pixels."""
    change = mine[:, None, :4] - other[None, :, :4]
    ends = np.hypot(change[..., 0::2], change[..., 1::2])
    found: NDArray[np.bool_] = np.any(np.all(ends <= within, axis=2), axis=1)
    return found


def _placed(pixels: NDArray[np.uint8], left: float, share: float) -> Markup:
    height, width = pixels.shape[1:]
    uri = pictures.png(pictures.fitting(pixels, LARGEST_SIDE))
    return svg.image(uri, left, 0, width * share, height * share)


def _lines(css: str, ends: NDArray[np.float64]) -> Markup:
    line = "".join(f"M{x:.1f},{y:.1f}L{a:.1f},{b:.1f}" for x, y, a, b in ends)
    return svg.element("path", class_=f"match {css}", d=line) if line else Markup("")
