"""Why a score is empty, in words: the same ones in tables, reports, limits and summaries."""

from __future__ import annotations

from collections.abc import Mapping
from math import isnan
from typing import Any, NamedTuple

from effattack.results.currency import MACS, currency_of, unit, work_of

WIDEST = 1.5
"""The widest interval of a latency ratio, upper over lower bound, that is a measurement."""
NOTHING_SAVED = "nothing was saved on clean inputs, so nothing can be retained"
UNKNOWN_WORK = "its executed work is unknown"
GIVE_WORK = (
    "give Deployed(work=...), which tells the executed MACs of each input; answers and "
    "latency are judged without"
)
NOT_TIMED = "not timed"
NO_ENERGY = "no energy counter was read"
LONGER = "time the victim longer (--timing 5), on a calm machine, without xdist"
METER = "effattack doctor says which counter is missing; run asks for it with --energy"

Row = Mapping[str, Any]
"""One row of scores."""


class Reason(NamedTuple):
    """Why a score is empty, and what to do about it."""

    why: str
    remedy: str = ""
    brief: str = ""
    """Why, alike for every row; as ``why`` where empty."""


def is_nan(row: Row) -> Reason:
    """Of a score that says no more."""
    return Reason("it is NaN", "look at the rows it is made from")


def unknown_work(row: Row) -> bool:
    """Whether nobody knows what was executed: an artefact that does not tell."""
    return isnan(work_of(row).clean)


def unknown_max(row: Row) -> bool:
    """Whether nobody knows the most that its inputs can be made to cost."""
    return isnan(work_of(row).most)


def no_work(row: Row) -> Reason:
    """Of all that is made from executed work."""
    if unknown_work(row):
        return Reason(UNKNOWN_WORK, GIVE_WORK)
    if currency_of(row) != MACS:
        return Reason("its executed MACs are unknown", f"judge it by its {unit(row)}")
    return is_nan(row)


def no_savings(row: Row) -> Reason:
    """Of savings retained and attack success."""
    if unknown_work(row):
        return Reason(UNKNOWN_WORK, GIVE_WORK)
    if unknown_max(row):
        why = f"its max {unit(row)} are not known"
        return Reason(why, "give the victim max_macs, or limit macs_ratio, which needs none")
    return Reason(NOTHING_SAVED, "check its thresholds, and the normalisation of its inputs")


def no_dense(row: Row) -> Reason:
    """Of attack success as papers divide."""
    return Reason("its dense MACs are not known", "give the victim dense_macs")


def no_latency(row: Row) -> Reason:
    """Of the median latency ratio."""
    low, high = row["latency_low"], row["latency_high"]
    if isnan(low):
        return no_timing(row)
    why = f"its interval, {low:.2f} to {high:.2f}, is wider than a factor of {WIDEST:g}"
    return Reason(why, LONGER, f"not measured: the interval is wider than a factor of {WIDEST:g}")


def no_timing(row: Row) -> Reason:
    """Of all else that the clock tells."""
    return Reason(NOT_TIMED, LONGER)


def no_energy(row: Row) -> Reason:
    """Of what the meter tells."""
    return Reason(NO_ENERGY, METER)


def no_twin(row: Row) -> Reason:
    """Of how far an artefact decides as its twin does."""
    return Reason("there is no twin that it could differ from", "give Deployed(twin=...)")


def no_certificate(row: Row) -> Reason:
    """Of what no attack can pass."""
    return Reason(
        "no certificate is known",
        "ask for one with --certify auto, which says what covers the victim; a cap says nothing of "
        "savings",
    )


def no_cap(row: Row) -> Reason:
    """Of whether a cap ended a text."""
    return Reason(
        "it does not tell which of its texts a cap ended",
        "let trace() give them as aux['capped'], (B,) bool",
    )


def no_count(row: Row) -> Reason:
    """Of a count that only some victims have."""
    return Reason(
        "the victim has no such count",
        "give it to Victim.__init__ as counts={name: Count(unit, ceiling)}",
    )


def no_tokens(row: Row) -> Reason:
    """Of work per token sent."""
    return Reason(
        "its inputs are no tokens, or the victim has no such count",
        "limit equals_n_requests, which needs neither",
    )


def nobody(row: Row) -> Reason:
    """Of what the attacker knew."""
    if unknown_work(row):
        return Reason(UNKNOWN_WORK, GIVE_WORK)
    return Reason("nothing cost more than the clean inputs")
