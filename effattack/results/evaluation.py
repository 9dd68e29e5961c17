"""The result of an evaluation: a long frame with one row per attacked sample, and its scores."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from effattack.budgets import budget_text
from effattack.errors import UsageError
from effattack.results.currency import judged_by
from effattack.results.files import writable
from effattack.results.frame import COLUMNS, LATER, SCHEMA, arranged, storable
from effattack.results.scores import score_table
from effattack.results.selfchecks import Check, check_scores
from effattack.results.union import CELL


@dataclass(frozen=True)
class Evaluation:
    """The result: per-sample rows, and how they came to be.

    Attributes:
        samples: one row per victim, attack, threat, eps, seed and sample.
        meta: provenance, self-checks, what was skipped; plain JSON.
    """

    samples: pd.DataFrame
    meta: dict[str, Any] = field(default_factory=dict)

    def scores(self, by: str | None = None) -> pd.DataFrame:
        """One row per victim, attack, threat and eps, then the unions, as in ``scores.csv``.

        Args:
            by: an audited count that judges in place of each victim's currency.

        Raises:
            UsageError: for a count that a victim lacks, or that nobody audits.
        """
        return self._scores.copy() if by is None else self.judged_by(by).scores()

    def judged_by(self, by: str) -> Evaluation:
        """The same rows, judged by another audited count than each victim's currency.

        Raises:
            UsageError: for a count that a victim lacks, or that nobody audits.
        """
        return Evaluation(judged_by(self.samples, by, self.meta.get("victims", {})), self.meta)

    @cached_property
    def _scores(self) -> pd.DataFrame:
        """Made once: a run asks for them ten times, and every interval costs milliseconds."""
        return score_table(self.samples)

    def __repr__(self) -> str:
        """The main columns of the scores; whole frames are behind ``samples`` and ``scores()``."""
        return self._main().to_string(index=False)

    def _repr_html_(self) -> str:
        """The same, as a notebook shows it."""
        return self._main().to_html(index=False)

    def _main(self) -> pd.DataFrame:
        scores = self.scores()
        told = zip(scores.threat, scores.eps, strict=True)
        found = scores[["victim", "attack"]].assign(budget=[budget_text(*pair) for pair in told])
        for name in ("savings_retained", "macs_ratio", "accuracy", "agreement"):
            found[name] = scores[name].astype(float).round(3)
        return found

    @property
    def kinds(self) -> dict[str, str]:
        """Attack name -> "compute", "accuracy" or "control"."""
        return dict(zip(self.samples.attack, self.samples.kind, strict=True))

    def checks(self) -> list[Check]:
        """All self-checks: those made with the victim at hand and those on the scores, which hold
        attacks against each other; of replayed inputs there are no attacks."""
        made = [Check(**check) for check in self.meta.get("checks", [])]
        if "replayed" in self.meta:
            return made
        return made + check_scores(self.samples, self.scores())

    def report(self) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
        """What :mod:`effattack.reporting` draws: samples, scores, provenance."""
        checks = [check._asdict() for check in self.checks()]
        return self.samples, self.scores(), {**self.meta, "checks": checks}

    @staticmethod
    def concat(evaluations: Iterable[Evaluation]) -> Evaluation:
        """Several evaluations as one; their provenance is merged, equal rows stand once.

        Raises:
            UsageError: for none, or for two victims of one name.
        """
        evaluations = list(evaluations)
        if not evaluations:
            raise UsageError("there is nothing to join: give at least one evaluation")
        meta: dict[str, Any] = {}
        for evaluation in evaluations:
            for key, value in evaluation.meta.items():
                if isinstance(value, dict):
                    meta[key] = {**meta.get(key, {}), **value}
                elif isinstance(value, list):
                    meta[key] = meta.get(key, []) + [v for v in value if v not in meta.get(key, [])]
                else:
                    meta[key] = value
        identity = [*CELL, "seed", "sample"]
        samples = pd.concat([e.samples for e in evaluations])
        same = [*identity, "prediction", "clean_prediction", "macs", "clean_macs", "max_macs"]
        samples = samples.drop_duplicates(same, ignore_index=True)  # the controls stand in each
        if samples.duplicated(identity).any():
            raise UsageError(
                "two evaluations differ on the same victim, attack, budget and seed: give the "
                "victims different names"
            )
        return Evaluation(samples, meta)

    def save(self, folder: str | Path) -> Path:
        """Write ``samples.parquet``, ``scores.csv`` and ``meta.json``; returns the folder."""
        folder = writable(Path(folder))
        scores = self.scores()
        storable(self.samples).to_parquet(folder / "samples.parquet", index=False)
        scores.to_csv(folder / "scores.csv", index=False)
        (folder / "meta.json").write_text(json.dumps(self.meta, indent=2), encoding="utf-8")
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> Evaluation:
        """Read what :meth:`save` wrote; needs neither model nor GPU.

        Raises:
            UsageError: if the folder holds no evaluation, or one of another schema.
        """
        folder = Path(folder)
        try:
            samples = pd.read_parquet(folder / "samples.parquet")
            meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(
                f"{folder} holds no readable evaluation ({error}): run effattack run --out {folder}"
            ) from error
        if not isinstance(meta, dict) or meta.get("schema") != SCHEMA:
            raise UsageError(
                f"{folder} was not written by this version (schema {SCHEMA}): run again"
            )
        if lacking := [c for c in COLUMNS if c not in samples and c not in LATER]:
            raise UsageError(
                f"{folder}/samples.parquet lacks the columns {', '.join(lacking)}: run again"
            )
        return cls(arranged(samples), meta)
