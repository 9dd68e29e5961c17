"""Certificates beside the rows of a run: what no attack in a budget that was asked for can pass.

They stand above cells, and are stored next to them, so that a run that resumes does not make them
again. Each is of one victim, all its scored inputs and one threat; the rows of these, and their
union, get it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from effattack.budgets import at_budget
from effattack.cells.plan import Plan
from effattack.cells.spec import CellSpec, Work
from effattack.cells.store import Shelf
from effattack.certify.by_name import certify
from effattack.certify.certificate import Certificate
from effattack.errors import NotApplicable
from effattack.results.currency import with_work
from effattack.results.evaluation import Evaluation
from effattack.results.frame import CERTIFIED, completed
from effattack.results.selfchecks import Check
from effattack.results.union import asked
from effattack.threats import parse_threat
from effattack.victim.digests import hash_text


class Wanted(NamedTuple):
    """A certificate that is asked for: of a victim, in one budget."""

    plan: Plan
    threat: str
    """Name of the threat, as the frame has it."""
    eps: float
    text: str
    """The threat, to be read again."""
    spec: CellSpec


def certified(
    evaluation: Evaluation, plans: Sequence[Plan], shelf: Shelf, kind: str, *, again: bool = False
) -> Evaluation:
    """The evaluation with certificates of a kind in its rows, and in ``meta`` what they rest on.

    Where none covers a victim in a budget, a note says why.

    Args:
        evaluation: of these plans.
        plans: one per victim.
        shelf: where the cells are, and finished certificates.
        kind: of :data:`effattack.certify.kinds.KINDS`, or ``"auto"``.
        again: make those anew that are stored.

    Raises:
        UsageError: if one cannot be made as asked for.
        StoreError: if one cannot be stored.
    """
    samples, meta = evaluation.samples.copy(), dict(evaluation.meta)
    meta["certificates"] = dict(meta.get("certificates", {}))
    meta["notes"] = list(meta.get("notes", []))
    for wanted in _wanted(evaluation, plans, kind):
        if again and shelf.has(wanted.spec):
            shelf.remove(wanted.spec)
        name = wanted.plan.about.name
        try:
            rows = _rows(wanted, shelf, kind)
        except NotApplicable as error:
            where = at_budget(wanted.threat, wanted.eps)
            meta["notes"].append(f"{name}: no certificate {where}: {error}")
            continue
        mine = (samples.victim == name) & (samples.threat == wanted.threat)
        mine &= samples.eps == wanted.eps
        by_sample = rows.set_index("sample")
        for column in CERTIFIED:
            found = samples.loc[mine, "sample"].map(by_sample[column])
            samples.loc[mine, column] = found.astype(float)
        told = _told(wanted, rows)
        meta["certificates"].setdefault(name, []).append(told)
        if not told["error"]:
            meta["checks"] = [*meta.get("checks", []), _held(samples, wanted)._asdict()]
    return Evaluation(samples, meta)


def _wanted(evaluation: Evaluation, plans: Sequence[Plan], kind: str) -> Iterator[Wanted]:
    for plan in plans:
        own = evaluation.samples[evaluation.samples.victim == plan.about.name]
        for threat, eps in asked(own) if len(own) else ():
            texts = plan.threats.get((threat, eps), ())
            if len(texts) == 1:
                (text,) = texts
                yield Wanted(plan, threat, eps, text, _spec(plan, kind, text, eps))


def _spec(plan: Plan, kind: str, threat: str, eps: float) -> CellSpec:
    """By victim, kind, threat and all inputs together."""
    slices = [*dict.fromkeys((cell.spec.last, cell.spec.data_digest) for cell in plan.attacks)]
    return replace(
        plan.contract.spec,
        work=Work.CERTIFICATE,
        options=f"{kind} {threat}",
        eps=eps,
        first=0,
        last=max(last for last, _ in slices),
        data_digest=hash_text(str(slices)),
    )


def _rows(wanted: Wanted, shelf: Shelf, kind: str) -> pd.DataFrame:
    """One row per input, as stored, or made now.

    Raises:
        NotApplicable: where no certificate of the kind covers victim and threat.
    """
    if shelf.has(wanted.spec) and (rows := shelf.read(wanted.spec)) is not None:
        return rows
    held = wanted.plan.contract.made_from.open(wanted.plan.contract.spec)
    inputs, _ = held.data.read(0, wanted.spec.last)
    rows = as_rows(certify(held.victim, inputs, parse_threat(wanted.text), kind))
    shelf.write(wanted.spec, rows)
    return rows


def as_rows(certificate: Certificate) -> pd.DataFrame:
    """One row per input; what is said of all of them stands in each."""
    p99 = certificate.p99
    work, clean, most = (f.cpu().numpy() for f in _three(certificate))
    return pd.DataFrame(
        {
            "sample": np.arange(len(work)),
            "certified_work": work,
            "certified_clean_work": clean,
            "certified_max_work": most,
            "known": certificate.known.cpu().numpy(),
            "p99": np.nan if p99 is None else p99.cpu().numpy(),
            "kind": certificate.kind,
            "currency": certificate.currency,
            "error": certificate.error,
            "seconds": certificate.seconds,
            "passes": certificate.passes,
            "note": certificate.note,
        }
    )


def _three(certificate: Certificate) -> tuple[Any, Any, Any]:
    return certificate.most, certificate.clean, certificate.ceiling


def _held(samples: pd.DataFrame, wanted: Wanted) -> Check:
    """Whether no row of the budget took more than a proof admits."""
    name = wanted.plan.about.name
    own = with_work(completed(samples[samples.victim == name]))
    own = own[(own.threat == wanted.threat) & (own.eps == wanted.eps)]
    over = own[own.work > own.certified_work * (1 + 1e-9)]
    where = at_budget(wanted.threat, wanted.eps)
    said = f"no input {where} took more than its certificate admits"
    if len(over):
        row = over.iloc[0]
        said = (
            f"input {row['sample']} under {row.attack} {where} took {row.work:,.0f}, and its "
            f"certificate admits {row.certified_work:,.0f}: the certificate is wrong, or the "
            "deployed path differs from what was bounded"
        )
    return Check(name, "certificates", over.empty, said)


def _told(wanted: Wanted, rows: pd.DataFrame) -> dict[str, Any]:
    """What a report says of a certificate; plain JSON."""
    first = rows.iloc[0]
    p99 = float(rows.p99.mean())
    return {
        "threat": wanted.threat,
        "eps": wanted.eps,
        "kind": str(first.kind),
        "inputs": len(rows),
        "known": int(rows.known.sum()),
        "error": float(first.error),
        "seconds": float(first.seconds),
        "passes": float(first.passes),
        "p99": None if np.isnan(p99) else p99,
        "note": str(first.note),
    }
