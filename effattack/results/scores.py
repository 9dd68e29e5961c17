"""From per-sample rows to scores, one row per victim, attack, threat and eps; seeds pooled.

Below them stand the unions, one row per victim and asked budget: see
:mod:`effattack.results.union`. Which scores there are: :mod:`effattack.results.table`.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import nan

import pandas as pd

from effattack.errors import MeasurementError
from effattack.registry.borders import blaming
from effattack.results.currency import MACS, unit, with_work
from effattack.results.frame import completed, knew
from effattack.results.rows import Rows
from effattack.results.score import Score
from effattack.results.table import GAINED, IDENTITY, OUTPUT, SCORES, known
from effattack.results.union import CELL, with_unions


def columns_of(scores: Iterable[Score]) -> list[str]:
    """Columns of ``scores.csv``."""
    return [*IDENTITY, *(column for score in scores for column in score.columns)]


COLUMNS = columns_of(SCORES)
"""Those of our own scores; others follow."""
WRITTEN = tuple(
    column for score in SCORES if score.shown.group in (OUTPUT, GAINED) for column in score.columns
)
"""Of what generators write, which earlier versions did not score."""


def score_table(samples: pd.DataFrame) -> pd.DataFrame:
    """Scores of every victim, attack, threat and eps, in the order of the samples; then the unions.

    Raises:
        MeasurementError: if a sample executed more than the declared max, or a constant victim's
            MACs moved: then the victim's declaration is wrong and no score can be trusted.
        FactoryError: if the score of another package raises.
    """
    check_declarations(samples)
    scores = known().values()
    groups = with_unions(samples).groupby(CELL, sort=False)
    return pd.DataFrame(
        [_row(key, Rows(rows), scores) for key, rows in groups], columns=columns_of(scores)
    )


def completed_scores(scores: pd.DataFrame) -> pd.DataFrame:
    """Stored scores with what those of earlier versions lack: they were judged by MACs."""
    told = {
        "currency": MACS,
        "work": scores.macs,
        "clean_work": scores.clean_macs,
        "max_work": scores.max_macs,
        "equals_n_requests": scores.macs_ratio,
        "knowledge": knew(scores),
        "twin_agreement": nan,
        "twin_agreement_low": nan,
        "twin_agreement_high": nan,
        "unlike_twin": "",
        "certified_retained": nan,
        "certified_factor": nan,
        **dict.fromkeys(WRITTEN, nan),
    }
    return scores.assign(**{name: value for name, value in told.items() if name not in scores})


def check_declarations(samples: pd.DataFrame) -> None:
    """Refuse samples that contradict what their victim declares."""
    samples = with_work(completed(samples))
    for attacked, most in (("macs", "max_macs"), ("work", "max_work")):
        over = samples[samples[attacked] > samples[most]]
        if len(over):
            row = over.iloc[0]
            count = unit(row) if attacked == "work" else "MACs"
            raise MeasurementError(
                f"{row.victim}: sample {row['sample']} under {row.attack} executed "
                f"{row[attacked]:,.0f} {count}, above the declared max of {row[most]:,.0f}: "
                f"correct {'max_macs' if count == 'MACs' else f'the ceiling of {count}'}"
            )
    moved = samples[samples.constant & (samples.macs != samples.clean_macs)]
    if len(moved):
        row = moved.iloc[0]
        raise MeasurementError(
            f"{row.victim} declares constant MACs, but sample {row['sample']} went from "
            f"{row.clean_macs:,.0f} to {row.macs:,.0f} under {row.attack}: set constant=False"
        )


def _row(key: tuple[object, ...], rows: Rows, scores: Iterable[Score]) -> dict[str, object]:
    row = {**{name: rows.first(name) for name in IDENTITY}, **dict(zip(CELL, key, strict=True))}
    for score in scores:
        with blaming(f"score {score.name}"):
            row |= score(rows)
    return row
