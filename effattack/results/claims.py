"""What a server claims to have written, beside what was counted of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd

from effattack.victim.endpoint import slack

COUNTED, CLAIMED = "output_tokens", "claimed_tokens"


class Claim(NamedTuple):
    """Whether a server's usage is what was counted; the fields of a self-check."""

    victim: str
    check: str
    passed: bool | None
    """None where it says nothing of its usage."""
    message: str


def claims(samples: pd.DataFrame) -> Iterator[Claim]:
    """One per victim that was asked over a network.

    Args:
        samples: the per-sample frame.
    """
    if CLAIMED not in samples:
        return
    for victim, rows in samples[samples.currency == COUNTED].groupby("victim", sort=False):
        yield Claim(str(victim), "the server's usage is what was counted", *_compared(rows))


def _compared(rows: pd.DataFrame) -> tuple[bool | None, str]:
    told = rows[rows[CLAIMED].notna()]
    none = len(rows) - len(told)
    if told.empty:
        return None, "it claims no usage: what was counted here stands alone"
    gaps = (told[CLAIMED] - told[COUNTED]).abs()
    apart = gaps > told[f"max_{COUNTED}"].map(lambda cap: slack(int(cap)))
    silent = f"; {none} of {len(rows)} rows have none" * (none > 0)
    if not apart.any():
        return True, f"in {len(told)} rows, up to how a text is cut into tokens{silent}"
    worst = told.loc[gaps.idxmax()]
    return False, (
        f"in {int(apart.sum())} of {len(told)} rows it is not: at worst {worst[CLAIMED]:,.0f} "
        f"claimed, {worst[COUNTED]:,.0f} counted{silent}: reasoning that stays hidden is claimed "
        "alone; judge by neither before you know which is right"
    )
