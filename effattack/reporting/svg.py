"""Small helpers that write inline SVG: no plotting library and no script.

Colours, dashes and sizes of text come from the classes in ``charts.css``, so that a figure follows
the page into the dark, onto paper, and down to the width of a phone; a figure in a file of its own
takes them along.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from markupsafe import Markup, escape


class Drawing(NamedTuple):
    """A picture with a fixed view box; in a page it scales to its container."""

    width: float
    height: float
    label: str
    """Describes it to who cannot see it."""
    marks: Markup
    css: str = ""

    def __html__(self) -> str:
        return (
            f'<svg class="{escape(f"chart {self.css}".strip())}" role="img" '
            f'viewBox="0 0 {self.width:g} {self.height:g}" '
            f'aria-label="{escape(self.label)}">{self.marks}</svg>'
        )


def element(tag: str, *children: object, **attributes: object) -> Markup:
    """``<tag class="..." stroke-width="...">``; ``class_`` and underscores as in HTML builders."""
    parts = []
    for key, value in attributes.items():
        if value is None:
            continue
        text = f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
        parts.append(f' {key.rstrip("_").replace("_", "-")}="{escape(text)}"')
    inner = "".join(escape(child) for child in children)
    return Markup(f"<{tag}{''.join(parts)}>{inner}</{tag}>")


def draw(width: float, height: float, label: str, *marks: object, css: str = "") -> Drawing:
    """A drawing of these marks."""
    return Drawing(width, height, label, Markup("").join(map(escape, marks)), css)


def rect(css: str, x: float, y: float, width: float, height: float) -> Markup:
    """A filled rectangle."""
    return element("rect", class_=css, x=x, y=y, width=max(width, 0.0), height=height)


def image(uri: str, x: float, y: float, width: float, height: float, css: str = "") -> Markup:
    """Pixels, stretched to that size."""
    return element(
        "image",
        class_=css or None,
        href=uri,
        x=x,
        y=y,
        width=width,
        height=height,
        preserveAspectRatio="none",
    )


def vertical(css: str, x: float, top: float, bottom: float) -> Markup:
    """A vertical line."""
    return element("line", class_=css, x1=x, x2=x, y1=top, y2=bottom)


def text(words: object, css: str, x: float, y: float) -> Markup:
    """Words on a baseline; the classes ``end`` and ``middle`` anchor them there."""
    return element("text", words, class_=css, x=x, y=y)


def path(css: str, corners: list[tuple[float, float]], closed: bool = False) -> Markup:
    """A line through the corners."""
    line = "M" + "L".join(f"{x:g},{y:.1f}" for x, y in corners) + ("Z" if closed else "")
    return element("path", class_=css, d=line)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers from ``low`` to ``high``, about ``count`` of them."""
    span = high - low
    if not 0 < span < math.inf:
        return [low]
    raw = span / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = power * next(m for m in (1, 2, 2.5, 5, 10) if m * power >= raw * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def clip(words: str, length: int = 30) -> str:
    """A name that fits into a figure; the tables have the whole of it."""
    return words if len(words) <= length else words[: length - 1] + "…"
