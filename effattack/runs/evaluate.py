"""victim x data x attacks -> Evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from effattack.attacks import Attack
from effattack.cells.lineup import Budget
from effattack.cells.planning import plan
from effattack.cells.spec import Timed
from effattack.cells.store import Memory, Store
from effattack.certify.kinds import check_kind
from effattack.domains import Batch
from effattack.registry.borders import staying
from effattack.results.currency import expect_audited
from effattack.results.evaluation import Evaluation
from effattack.runs.certifying import certified
from effattack.runs.executors.in_process import InProcess
from effattack.runs.keeping import MOST, keep_worst
from effattack.runs.run import give_up, go_on, run
from effattack.runs.scheduling import Progress, discard_damaged
from effattack.victim import Victim


def evaluate(
    victim: Victim,
    inputs: Batch,
    labels: Tensor,
    attacks: Sequence[Attack | str],
    *,
    eps: Budget = None,
    seeds: Sequence[int] = (0,),
    timed: int = 16,
    batch_size: int = 1,
    seconds: float = 0.0,
    energy: bool = False,
    fit: tuple[Batch, Tensor] | None = None,
    out: str | Path | None = None,
    corpus_mb: float = MOST,
    by: str | None = None,
    certify: str | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Score a victim under attacks, beside the controls ``clean``, ``noise`` and ``uniform``.

    Args:
        victim: used in eval mode; its own mode is restored.
        inputs: of the victim's domain: (B, *input_shape) float in [0, 1] for images; rounded
            to the 8-bit grid, with a note.
        labels: of the victim's task: (B,) class indices.
        attacks: attack objects made for this victim, or names (``"Slowdown"``,
            ``"Slowdown(threat='l2:1.0')"``; once per seed). Names that cannot apply are skipped,
            with the reason in ``meta``.
        eps: budget of attacks given by name, where the name tells none: an l-inf radius, a threat,
            or its text (``"l2:1.0"``); by default the usual one of the inputs, of images 8/255.
        seeds: of attacks given by name, and of the controls.
        timed: calls whose latency is measured, clean and attacked; 0 measures none.
        batch_size: inputs per timed call: 1, or the deployment's. All else is scored input by
            input.
        seconds: of timing per attack, at least; three passes over the inputs in any case.
        energy: also meter their energy, where a counter is reachable; 30 s per attack.
        fit: inputs and labels that unfitted universal attacks learn from; none may be scored.
        out: folder of finished cells; the same call with the same folder resumes. The worst
            inputs are kept in ``corpus`` below it, for a replay.
        corpus_mb: MB of a corpus, at most; 0: none is kept.
        by: an audited count that judges in place of the victim's own currency.
        certify: kind of certificate that stands beside the attacks in each asked budget, or
            ``"auto"``: :data:`effattack.certify.kinds.KINDS`; None: none.
        progress: called after each cell.

    Raises:
        UsageError: for input that cannot be scored.
        ContractError: if the victim breaks the contract: before any attack, or in a scored row.
        MeasurementError: if anything else cannot be measured. Of a remote victim, rows that are
            finished stay, and ``meta["skipped"]`` tells why others are not; it is raised where
            there is none.
    """
    with staying("the victim, or its data,"):
        planned = plan(
            victim,
            inputs,
            labels,
            attacks,
            eps=eps,
            seeds=seeds,
            timed=Timed(timed, batch_size, seconds, energy),
            fit=fit,
        )
    if certify is not None:
        check_kind(certify)
    if by is not None:
        counts = {name: count.audited for name, count in victim.counts.items()}
        expect_audited(victim.name, by, counts)
    shelf, executor = Memory() if out is None else Store(Path(out) / "cells"), InProcess()
    discard_damaged([planned], shelf, executor)
    on_failure = go_on if victim.remote else give_up
    found = run([planned], shelf, executor, on_failure, progress)[0]
    if certify is not None:
        found = certified(found, [planned], shelf, certify)
    found = found if by is None else found.judged_by(by)
    if out is not None:
        found.meta["notes"] += keep_worst([planned], shelf, found, Path(out), corpus_mb)
    return found
