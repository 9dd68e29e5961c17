"""What a smaller cap would have let through: from the rows of one run, without another.

A generator writes a token from those before it, so under a cap of c it writes the first c tokens
of what it wrote: its passes are min(passes, c), and the cap ended the text if it had more to say.
What lies beyond the cap that ended a text nobody knows; such prompts are to be run again. Of a
reasoner it is a cap on chain and answer together; its budget stays.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from effattack.errors import UsageError
from effattack.results.union import CELL, with_unions

PASSES = "passes"


def cap_sweep(samples: pd.DataFrame, caps: Sequence[int] | None = None) -> pd.DataFrame:
    """Passes and cap-hit rate of every victim and attack as functions of the cap.

    Args:
        samples: the per-sample frame of an evaluation.
        caps: tokens; by default the powers of two below the victim's own, and that.

    Returns:
        ``victim``, ``attack``, ``threat``, ``eps``, ``cap``, ``passes`` (the mean over rows) and
        ``cap_hit_rate``; unions as well. Victims that do not tell whether a cap ended a text are
        left out.

    Raises:
        UsageError: for a cap below 1, or beyond that under which a text was written.
    """
    columns = [*CELL, "cap", PASSES, "cap_hit_rate"]
    if PASSES not in samples or samples.capped.isna().all():
        return pd.DataFrame(columns=columns)
    rows = with_unions(samples[samples.capped.notna() & samples[PASSES].notna()])
    found = []
    for key, own in rows.groupby(CELL, sort=False):
        most = int(own[f"max_{PASSES}"].max())
        for cap in _below(most) if caps is None else caps:
            _expect_known(str(key[0]), cap, most)
            hit = (own[PASSES] > cap) | own.capped.astype(bool)
            found.append([*key, cap, own[PASSES].clip(upper=cap).mean(), hit.mean()])
    return pd.DataFrame(found, columns=columns)


def _below(most: int) -> list[int]:
    return [*(2**power for power in range(most.bit_length()) if 2**power < most), most]


def _expect_known(victim: str, cap: int, most: int) -> None:
    """Refuse a cap under which the stored texts say nothing.

    Raises:
        UsageError: with the remedy.
    """
    if cap < 1:
        raise UsageError(f"a cap of {cap}: give a whole number of at least 1")
    if cap > most:
        raise UsageError(
            f"{victim} wrote under a cap of {most}, and what it would have written behind it is "
            f"not known: run its stored prompts again on the victim built with cap={cap}"
        )
