"""How numbers and terms are written, the same way in HTML and Markdown."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from effattack.budgets import budget_text
from effattack.results.score import Form, Score
from effattack.results.unmeasured import NOT_TIMED, no_latency

MISSING = "–"
CHEAPER = "cheaper than clean"
"""More than all savings retained."""
NBSP = "\u00a0"
SLACK = 1e-9
"""Rounding that a share of 1 is allowed."""
UNITS = ("", "k", "M", "G", "T", "P")


def missing(value: Any) -> bool:
    """None, NaN, or not a number at all."""
    return value is None or (isinstance(value, float) and math.isnan(value)) or value != value


def decimal(value: float, digits: int) -> str:
    """Fixed decimals with a true minus sign, and no negative zero."""
    text = f"{value:,.{digits}f}"
    if float(text.replace(",", "")) == 0:
        text = text.lstrip("-")
    return text.replace("-", "−")


def percent(value: float, digits: int = 1) -> str:
    """0.164 -> "16.4 %"."""
    return MISSING if missing(value) else f"{decimal(100 * value, digits)}{NBSP}%"


def at_least(value: float) -> str:
    """A share that is proven, rounded down: 0.6667 -> "66.6 %"."""
    return percent(value if missing(value) else math.floor(1000 * value + 1e-9) / 1000)


def retained(value: float, digits: int = 1) -> str:
    """Savings retained: 0.164 -> "16.4 %"; above 100 % the attacked input cost less than clean."""
    above = not missing(value) and value > 1 + SLACK
    return CHEAPER if above else percent(value, digits)


def span(low: float, high: float) -> str:
    """Of savings retained: (0.281, 0.379) -> "28 to 38 %"; nothing where there is no interval."""
    if missing(low) or missing(high):
        return ""
    if high > 1 + SLACK:
        return CHEAPER if low > 1 + SLACK else f"{percent(low, 0)} to {CHEAPER}"
    digits = 1 if low < high and round(100 * low) == round(100 * high) else 0
    return f"{decimal(100 * low, digits)} to {percent(high, digits)}"


def points(change: float) -> str:
    """0.123 -> "+12.3": a difference of shares, in percentage points."""
    text = decimal(100 * change, 1)
    return MISSING if missing(change) else text if text.startswith("−") else f"+{text}"


def headline_percent(value: float) -> str:
    """Savings retained in whole percents, but never a rounded 0 or 100."""
    exact = value in (0.0, 1.0)
    return retained(value, 0 if exact or 0.01 <= value <= 0.99 else 1)


def ratio(value: float) -> str:
    """2.345 -> "×2.35"."""
    return MISSING if missing(value) else f"×{decimal(value, 2 if value < 100 else 0)}"


def interval(low: float, high: float) -> str:
    """(1.2, 1.4) -> "1.20 to 1.40"."""
    return MISSING if missing(low) or missing(high) else f"{decimal(low, 2)} to {decimal(high, 2)}"


def latency(row: Mapping[str, Any], many: str) -> str:
    """The latency of a row of scores: "×1.21 (1.15 to 1.27)", or why it was not measured.

    Args:
        row: of the scores.
        many: what to call its inputs.
    """
    if missing(row["latency_ratio"]):
        why = no_latency(row).why
        return MISSING if why == NOT_TIMED else f"not measured: {why}"
    spread = interval(row["latency_low"], row["latency_high"])
    return f"{ratio(row['latency_ratio'])} ({f'too few {many}' if spread == MISSING else spread})"


def scale_of(value: float) -> tuple[float, str]:
    """The factor and the letter of the unit that suits a number of MACs."""
    if missing(value) or value < 1000 or math.isinf(value):
        return 1.0, ""
    power = min(int(math.log10(value) // 3), len(UNITS) - 1)
    return 1000.0**power, UNITS[power]


def macs(value: float, like: float | None = None) -> str:
    """2_100_000 -> "2.10 M"; in the unit and with the decimals of ``like``, if that is given."""
    if missing(value):
        return MISSING
    like = value if like is None or missing(like) or like <= 0 else like
    scale, unit = scale_of(like)
    size = like / scale
    digits = 0 if not unit else 2 if size < 10 else 1 if size < 100 else 0
    return f"{decimal(value / scale, digits)}{NBSP}{unit}".rstrip(NBSP)


def work(value: float, like: float | None = None) -> str:
    """A count as :func:`macs` writes it; below a thousand, whatever its row is like, as it is: a
    mean with its first decimal."""
    if missing(value) or value >= 1000:
        return macs(value, like)
    return decimal(value, 0 if float(value).is_integer() else 1)


def macs_tick(value: float, like: float) -> str:
    """A round number of MACs on an axis: "0", "2.5 M"."""
    scale, unit = scale_of(like)
    return f"{value / scale:g}{NBSP}{unit}".rstrip(NBSP) if value else "0"


FORMS: dict[Form, Callable[[Any, float], str]] = {
    "percent": lambda value, like: percent(value),
    "retained": lambda value, like: retained(value),
    "ratio": lambda value, like: ratio(value),
    "macs": macs,
    "amount": lambda value, like: work(value),
    "count": lambda value, like: f"{value:,}",
    "number": lambda value, like: MISSING if missing(value) else f"{decimal(value, 2)}",
    "text": lambda value, like: MISSING if missing(value) or not value else str(value),
}
"""How a value is written, given the number of MACs whose unit suits its row."""


def score(of: Score, row: Mapping[str, Any], like: float = math.nan) -> str:
    """A score of a row; scores of earlier versions lack some."""
    value = row.get(of.name)
    return MISSING if value is None else FORMS[of.shown.form](value, like)


def brief(of: Score, row: Mapping[str, Any]) -> str:
    """The same where there is little room: shares in whole percents."""
    whole = of.shown.form == "percent"
    return percent(row[of.name], 0).replace(NBSP, "") if whole else score(of, row)


def budget(row: Mapping[str, Any]) -> str:
    """The budget of a row: "8/255" for l-inf, "l2 0.5", "patch 16 px", "pixel box", "none"."""
    if missing(row["eps"]):
        return MISSING
    threat, eps = str(row["threat"]), row["eps"]
    if row.get("domain", "pixels") != "pixels" and threat in ("linf", "box"):
        return "box" if threat == "box" else f"{eps:.3g}"
    return budget_text(threat, eps)


def at(row: Mapping[str, Any]) -> str:
    """The same inside a sentence: "ε = 8/255", "l2 0.5"."""
    linf = str(row["threat"]).partition("@")[0] == "linf"
    return f"ε = {budget(row)}" if linf else budget(row)


def moment(text: Any) -> str:
    """An ISO date and time, for people; as it came if it is no such thing."""
    try:
        when = datetime.fromisoformat(str(text))
    except ValueError:
        return str(text)
    zone = f" {when.tzname()}" if when.tzinfo else ""
    return f"{when:%Y-%m-%d %H:%M}{zone}"
