"""Figures as files of their own: SVG, and PDF through the extra ``[pdf]``, in light colours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from markupsafe import Markup, escape

from effattack.errors import MissingPackage, install
from effattack.reporting import svg
from effattack.reporting.charts import figures
from effattack.reporting.comparison import scatter
from effattack.reporting.figure import Figure
from effattack.reporting.meta import Meta
from effattack.reporting.nouns import shared_noun, with_domains
from effattack.reporting.page import source
from effattack.reporting.verdict import verdicts

SCALE = 1.5
"""Width of a figure in pixels at 96 dpi, over the width of its view box."""


def write(
    samples: pd.DataFrame, scores: pd.DataFrame, meta: Meta, folder: Path, form: str
) -> list[Path]:
    """Every figure of a report as a file; returns their paths.

    Raises:
        MissingPackage: for PDF without the extra.
    """
    convert = _to_pdf if form == "pdf" else _to_svg
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, figure in named(samples, scores, meta):
        path = folder / f"{name}.{form}"
        convert(standalone(figure), path)
        paths.append(path)
    return paths


def named(samples: pd.DataFrame, scores: pd.DataFrame, meta: Meta) -> Iterator[tuple[str, Figure]]:
    """File name and figure, for every figure of a report."""
    scores = with_domains(scores, meta)
    found = [verdict for verdict in verdicts(scores, meta) if verdict.shown]
    seen: dict[str, int] = {}
    for verdict in found:
        stem = _plain(verdict.victim)[:80].strip("_.") or "victim"
        seen[stem] = seen.get(stem, 0) + 1
        stem += f"_{seen[stem]}" if seen[stem] > 1 else ""
        for figure in figures(samples, scores, verdict).figures:
            yield f"{stem}_{_plain(figure.slug)}", figure
    if "compared" in meta and (together := scatter(found, shared_noun(meta))):
        yield together.slug, together


def _plain(text: str) -> str:
    return re.sub(r"[^\w.-]+", "_", text)


def standalone(figure: Figure) -> str:
    """The figure as a document, with its caption, its legend and its style."""
    width, top = figure.drawing.width, 22.0
    marks = [svg.text(figure.caption, "label", 0, 12)]
    drawn = svg.element("g", figure.drawing.marks, transform=f"translate(0 {top:g})")
    y = top + figure.drawing.height + 14
    for key in figure.legend:
        marks.append(svg.path(f"curve {key.css}", [(0, y - 4), (26, y - 4)]))
        detail = svg.element("tspan", key.detail, class_="tick", dx="6")
        marks.append(svg.text(escape(svg.clip(key.name, 40)) + detail, "label", 34, y))
        y += 16
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" viewBox="0 0 {width:g} {y:g}" '
        f'width="{SCALE * width:g}" height="{SCALE * y:g}" role="img">'
        f"<title>{escape(figure.drawing.label)}</title><style>{_style()}</style>"
        f"{drawn}{Markup('').join(marks)}</svg>\n"
    )


def _style() -> str:
    """``charts.css`` with the light palette filled in, as no other program reads variables."""
    page = source("report.css")
    palette = dict(re.findall(r"--([\w-]+): ([^;]+);", page[: page.index("}")]))
    rules = re.sub(r"var\(--([\w-]+)\)", lambda name: palette[name[1]], source("charts.css"))
    return f".chart {{ font-family: {palette['figure-font']}; }}\n{rules}"


def _to_svg(document: str, path: Path) -> None:
    path.write_text(document, encoding="utf-8")


def _to_pdf(document: str, path: Path) -> None:
    try:
        from cairosvg import svg2pdf
    except (ImportError, OSError) as error:
        raise MissingPackage(
            f"PDF needs cairosvg and the cairo library ({error}): {install('pdf')}, or use "
            "--figures svg"
        ) from error
    svg2pdf(bytestring=document.encode(), write_to=str(path))
