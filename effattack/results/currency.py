"""The count that judges: MACs, unless the victim declares another audited one as its currency.

A count named ``passes`` stands in the columns ``passes``, ``clean_passes`` and ``max_passes`` of
the per-sample frame, as MACs stand in theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from effattack.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

MACS = "macs"


class Work(NamedTuple):
    """Of the inputs of one row of scores, the mean in the currency that judges."""

    clean: float
    attacked: float
    most: float


def work_of(row: Mapping[str, Any]) -> Work:
    """Of a row of scores, also of versions that knew MACs alone."""
    if currency_of(row) == MACS:
        return Work(row["clean_macs"], row["macs"], row["max_macs"])
    return Work(row["clean_work"], row["work"], row["max_work"])


def currency_of(row: Mapping[str, Any]) -> str:
    """The count that judges a row of scores."""
    currency = row.get("currency", MACS)
    return currency if isinstance(currency, str) else MACS


def unit(row: Mapping[str, Any]) -> str:
    """What the count is called in a sentence: "MACs", "passes"."""
    return "MACs" if (currency := currency_of(row)) == MACS else currency


def counts_in(samples: pd.DataFrame) -> list[str]:
    """The counts that a frame holds, MACs first."""
    found = [column.removeprefix("max_") for column in samples if str(column).startswith("max_")]
    told = {*samples} - {"work"}
    return [count for count in found if {count, f"clean_{count}"} <= told]


def with_work(samples: pd.DataFrame) -> pd.DataFrame:
    """The samples with ``work``, ``clean_work`` and ``max_work``, in each victim's currency.

    Raises:
        UsageError: for a currency that the frame does not hold.
    """
    columns = ("", "clean_", "max_")
    work = samples.assign(**{f"{of}work": samples[f"{of}macs"] for of in columns})
    for currency in samples.currency.unique():
        if currency == MACS:
            continue
        rows = samples.currency == currency
        for of in columns:
            if f"{of}{currency}" not in samples:
                raise UsageError(
                    f"no column {of}{currency} among the samples: judge by "
                    f"{' or '.join(counts_in(samples))}"
                )
            work.loc[rows, f"{of}work"] = samples.loc[rows, f"{of}{currency}"]
    return work


def judged_by(samples: pd.DataFrame, by: str, victims: Mapping[str, Any]) -> pd.DataFrame:
    """The samples with another count as currency.

    Args:
        samples: the per-sample frame.
        by: the name of a count that every victim has, and that is audited; or ``"macs"``.
        victims: what the provenance tells of each: ``counts``, by name, each with ``audited``.

    Raises:
        UsageError: for a count that a victim lacks, or that nobody audits.
    """
    for victim, rows in samples.groupby("victim", sort=False):
        counts = victims.get(str(victim), {}).get("counts") or {}
        told = {name: bool(count.get("audited")) for name, count in counts.items()}
        expect_audited(str(victim), by, told)
        if by not in rows or rows[by].isna().all():
            raise UsageError(f"{victim} has no {by} in its rows: run it again")
    proven = [column for column in samples if str(column).startswith("certified_")]
    others = samples.currency != by  # a certificate is of the count that judged
    return samples.assign(
        currency=by, **{column: samples[column].mask(others) for column in proven}
    )


def expect_audited(victim: str, by: str, counts: Mapping[str, bool]) -> None:
    """Refuse to judge a victim by what nobody audits.

    Args:
        victim: its name.
        by: what is to judge.
        counts: the victim's, and whether each is audited; MACs always are.

    Raises:
        UsageError: naming what may judge.
    """
    audited = [MACS, *(name for name, sure in counts.items() if sure)]
    if by not in audited:
        why = "is declared, not audited" if by in counts else "is no count of it"
        raise UsageError(
            f"{victim} cannot be judged by {by!r}, which {why}: judge it by {' or '.join(audited)}"
        )
