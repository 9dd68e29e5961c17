"""Baselines: the scores of an evaluation as a file to be kept under version control.

A baseline is readable JSON with a line of numbers per image-wise series, so that a later evaluation
of the same images can be compared pair by pair (:mod:`.changes`). It needs no model and
no torch.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from math import isnan
from pathlib import Path
from reprlib import repr as shortened
from typing import TYPE_CHECKING, Any

from effattack.errors import UsageError
from effattack.results.baseline_schema import FILE, OPTIONAL, read, wrong
from effattack.results.currency import MACS, currency_of
from effattack.results.table import known
from effattack.results.unmeasured import UNKNOWN_WORK

if TYPE_CHECKING:
    import pandas as pd

    from effattack.results.evaluation import Evaluation

SCHEMA = 1
"""Of the file; raised when its fields change meaning."""
MACHINE = ("device", "device_name", "driver", "cuda", "cpu", "cores", "threads", "batch_size")
"""Facts that two machines must share before their times and energies may be compared."""
PACKAGES = ("effattack", "torch", "numpy", "timm", "torchao", "torchattacks", "foolbox", "pytest")
"""Whose versions are stored, where installed."""

_REMEDY = "restore it from version control, or save it again with --save"


@dataclass(frozen=True)
class Series:
    """One victim, attack and budget; the lists hold one value per input, averaged over seeds."""

    attack: str
    kind: str
    threat: str
    eps: float
    scores: dict[str, float]
    """Of the score table, for people; NaN where not measured."""
    macs: list[float]
    correct: list[float]
    slowdown: list[float]
    """Attacked over clean seconds of the timed inputs."""
    work: list[float] = field(default_factory=list)
    """In the count that judges, where that is not MACs, or where the ceiling is not one for all."""
    ceiling: list[float] = field(default_factory=list)
    """Of that work, per input."""
    capped: list[float] = field(default_factory=list)
    """Whether the cap ended the text that was written, where the victim tells."""


@dataclass(frozen=True)
class Record:
    """One victim, and what it was scored on."""

    family: str
    input_shape: list[int | None]
    """None where a size is free."""
    num_classes: int
    """0 where answers are no classes."""
    max_macs: float
    digest: str
    """Of weights, settings and source: what was scored."""
    data: list[str]
    """Hashes of the scored inputs and labels, slice by slice."""
    series: list[Series]
    currency: str = MACS


@dataclass(frozen=True)
class Baseline:
    """Scored victims by name, and how the scores came to be."""

    made: dict[str, Any]
    """When, by which command, at which commit, with which attacks, seeds, packages, machine."""
    victims: dict[str, Record]

    @classmethod
    def of(cls, evaluation: Evaluation) -> Baseline:
        """The baseline of an evaluation.

        Raises:
            UsageError: for a victim whose executed work is unknown.
        """
        from effattack.results.union import with_unions

        meta, table = evaluation.meta, evaluation.scores()
        if unknown := table[table.clean_macs.isna()].victim.tolist():
            raise UsageError(
                f"no baseline of {unknown[0]} can be kept: {UNKNOWN_WORK}, and work is what is "
                "compared with it: give Deployed(work=...), or leave --save out"
            )
        where = meta.get("environment", {})
        made = {
            "created": meta.get("created"),
            "command": meta.get("command"),
            "commit": commit(),
            "attacks": meta.get("attacks", []),
            "seeds": meta.get("seeds", []),
            "packages": packages(),
            "machine": {key: where.get(key) for key in MACHINE},
        }
        victims = {
            str(name): _record(rows, table[table.victim == name], meta["victims"][name])
            for name, rows in with_unions(evaluation.samples).groupby("victim", sort=False)
        }
        return cls(made, victims)

    def save(self, path: Path) -> Path:
        """Write the file, all at once; returns its path.

        Raises:
            UsageError: if it cannot be written.
        """
        content = _plain({"schema": SCHEMA, **asdict(self, dict_factory=_unusual)})
        text = json.dumps(content, indent=1, allow_nan=False)
        draft = path.with_suffix(f".{os.getpid()}.draft")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_text(_on_one_line(text) + "\n", encoding="utf-8")
            draft.replace(path)
        except OSError as error:
            raise UsageError(
                f"cannot write {path} ({error.strerror}): give another folder with --baselines"
            ) from error
        return path

    @classmethod
    def load(cls, path: Path) -> Baseline:
        """Read what :meth:`save` wrote.

        Raises:
            UsageError: if there is no such file, it is damaged, of another schema, or holds what a
                baseline cannot.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            others = sorted(file.stem for file in path.parent.glob("*.json"))
            known = f"there are {', '.join(others)}" if others else "save it first with --save"
            raise UsageError(f"no baseline {path} ({error.strerror}): {known}") from error
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{path} is damaged or cut off ({error}): {_REMEDY}") from error
        schema = content.get("schema") if isinstance(content, dict) else None
        if schema != SCHEMA:
            raise UsageError(
                f"{path} has schema {shortened(schema)}, this version reads schema {SCHEMA}: save "
                "it again with --save"
            )
        try:
            found = read(content, FILE)
            victims = {
                name: _read_record(record, f"victims.{name}")
                for name, record in found["victims"].items()
            }
        except ValueError as error:
            raise UsageError(f"{path}: {error}: {_REMEDY}") from error
        return cls(found["made"], victims)


def packages() -> dict[str, str]:
    """Installed versions of what decides a score."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """The commit of the working folder, ``-dirty`` if it has changes; None outside of git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _record(rows: pd.DataFrame, scores: pd.DataFrame, about: Mapping[str, Any]) -> Record:
    of_series = rows.groupby(["attack", "threat", "eps"], sort=False)
    kept = ("input_shape", "max_macs", "digest", "data")
    return Record(
        family=str(rows.family.iloc[0]),
        num_classes=about.get("num_classes") or 0,
        currency=currency_of(scores.iloc[0]),
        series=[
            _series(own, score)
            for score, (_, own) in zip(scores.to_dict("records"), of_series, strict=True)
        ],
        **{key: about[key] for key in kept},
    )


def _series(rows: pd.DataFrame, score: Mapping[str, Any]) -> Series:
    per_input = rows.assign(slowdown=rows.seconds / rows.clean_seconds).groupby("sample")
    alike = currency_of(score) == MACS and rows.max_macs.nunique(dropna=False) == 1
    return Series(
        attack=score["attack"],
        kind=str(rows.kind.iloc[0]),
        threat=score["threat"],
        eps=float(score["eps"]),
        scores={name: float(score[name]) for name, one in known().items() if one.kept},
        macs=per_input.macs.mean().tolist(),
        correct=per_input.right.mean().tolist(),
        slowdown=per_input.slowdown.mean().dropna().tolist(),
        work=[] if alike else per_input.work.mean().tolist(),
        ceiling=[] if alike else per_input.max_work.mean().tolist(),
        capped=[] if rows.capped.isna().any() else per_input.capped.mean().tolist(),
    )


def _read_record(content: dict[str, Any], field: str) -> Record:
    """One victim, whose series are all of the same images, the clean ones among them."""
    series = [Series(**entry) for entry in content["series"]]
    images = len(series[0].macs)
    for at, one in enumerate(series):
        for name, values in (("macs", one.macs), ("correct", one.correct)):
            if len(values) != images:
                raise wrong(f"{field}.series[{at}].{name}", values, f"a list of {images}")
        optional = {"work": one.work, "ceiling": one.ceiling, "capped": one.capped}
        for name, values in optional.items():
            if len(values) not in (0, images):
                raise wrong(f"{field}.series[{at}].{name}", values, f"a list of {images} or none")
        if len(one.slowdown) > images:
            raise wrong(f"{field}.series[{at}].slowdown", one.slowdown, f"at most {images} long")
    if not any(one.attack == "clean" for one in series):
        raise ValueError(f"{field}.series lacks the clean images")
    return Record(**{**content, "series": series})


def _unusual(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    """Without optional fields that are as usual."""
    return {key: value for key, value in fields if key not in OPTIONAL or value != OPTIONAL[key]}


def _plain(value: Any) -> Any:
    """Whole numbers without a point, NaN as null."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float):
        return None if isnan(value) else int(value) if value.is_integer() else value
    return value


def _on_one_line(text: str) -> str:
    """A list of numbers takes one line."""
    return re.sub(r"\[[-+\d.e,\s]+\]", lambda found: re.sub(r"\s+", " ", found[0]), text)
