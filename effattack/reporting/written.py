"""What a generator wrote after a prompt, clean and attacked, and what ended it."""

from __future__ import annotations

from markupsafe import Markup

from effattack.reporting.strips import Pair, Shown
from effattack.reporting.verdict import Row
from effattack.reporting.words import missing

MOST = 1000
"""Characters that are shown of a text."""


def written(pair: Pair) -> list[Shown]:
    """Both texts of an input; nothing of victims that do not tell whether their cap ended one."""
    told = [("clean", pair.before), ("attacked", pair.row)]
    if any(missing(row.get("capped")) for _, row in told):
        return []
    return [Shown(_caption(name, row), _body(str(row["prediction"]))) for name, row in told]


def _caption(name: str, row: Row) -> str:
    tokens = row.get("output_tokens")
    count = "" if missing(tokens) else f", {tokens:,.0f} tokens"
    return f"written, {name}{count}, ended by {'the cap' if row['capped'] else 'itself'}"


def _body(text: str) -> Markup:
    more = f" and {len(text) - MOST:,} characters more" if len(text) > MOST else ""
    return Markup('<p class="ids text">{}{}</p>').format(text[:MOST], more)
