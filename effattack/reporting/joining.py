"""Several evaluations as one, for a comparison: equal names are told apart by their folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from effattack.errors import UsageError
from effattack.reporting import words
from effattack.reporting.meta import section
from effattack.results.editions import grown
from effattack.results.evaluation import Evaluation


def loaded(folders: Sequence[Path]) -> Evaluation:
    """What one folder holds, or several as one.

    Raises:
        UsageError: for a folder without an evaluation, or the same folder twice.
    """
    if len(folders) == 1:
        return Evaluation.load(folders[0])
    found = [Evaluation.load(folder) for folder in folders]
    return joined(dict(zip(_labels(folders), found, strict=True)))


def joined(evaluations: Mapping[str, Evaluation]) -> Evaluation:
    """One evaluation of all victims, in the order given.

    Args:
        evaluations: what to call each folder -> what it holds.
    """
    names = Counter(name for one in evaluations.values() for name in one.samples["victim"].unique())
    renamed = []
    for label, one in evaluations.items():
        own = {name: f"{name} ({label})" for name in names if names[name] > 1}
        renamed.append(_renamed(one, own))
    result = Evaluation.concat(renamed)
    for key in ("command", "data", "created", "energy"):
        result.meta.pop(key, None)
    made = [f"{label}: {_made(one.meta)}" for label, one in evaluations.items()]
    result.meta["notes"] = made + _grown(evaluations) + result.meta.get("notes", [])
    result.meta["compared"] = list(evaluations)
    return result


def _labels(folders: Sequence[Path]) -> list[str]:
    """What to call each folder: its name, or its path where two share a name."""
    whole = [folder.resolve() for folder in folders]
    if len(set(whole)) < len(whole):
        raise UsageError("the same folder is given twice: there is nothing to compare")
    names = [folder.name for folder in whole]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def _renamed(evaluation: Evaluation, names: Mapping[str, str]) -> Evaluation:
    meta = dict(evaluation.meta)
    for key in ("victims", "latency"):
        meta[key] = {names.get(name, name): about for name, about in section(meta, key).items()}
    for key in ("skipped", "checks", "limits"):
        records = meta.get(key) or []
        meta[key] = [{**one, "victim": names.get(one["victim"], one["victim"])} for one in records]
    samples = evaluation.samples.replace({"victim": dict(names)})
    return Evaluation(samples, meta)


def _grown(evaluations: Mapping[str, Evaluation]) -> list[str]:
    """Attacks of which a folder holds another edition than the first one, the reference."""
    (first, reference), *others = evaluations.items()
    then = reference.meta.get("attacks", [])
    return [
        f"{label}: {line}"
        for label, one in others
        for line in grown(one.meta.get("attacks", []), then, first)
    ]


def _made(meta: Mapping[str, Any]) -> str:
    facts = [meta.get("command"), meta.get("data"), meta.get("energy")]
    when = [words.moment(meta["created"])] if meta.get("created") else []
    return "; ".join([*when, *(str(fact) for fact in facts if fact)])
