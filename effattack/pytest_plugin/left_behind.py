"""What the pytest plugin leaves behind at the end of a session: frames, report, baseline.

An xdist worker only hands its results over, in a folder that the controller collects.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from effattack.pytest_plugin.session import Session, for_pytest
from effattack.results.limits import results

if TYPE_CHECKING:
    from effattack.results.evaluation import Evaluation

WORKERS = ".workers"
_SAME_ROW = ["victim", "attack", "threat", "eps", "seed", "sample", "prediction", "macs"]


def prepare(session: Session) -> None:
    """Forget what the workers of an interrupted session left."""
    if (folder := _handover(session)) and not session.worker:
        shutil.rmtree(folder, ignore_errors=True)


def finish(session: Session) -> None:
    """Write what the options ask for; what goes wrong is said, and never hides a test result."""
    folder = _handover(session)
    if folder is None or not (session.evaluations or any(folder.glob("*"))):
        return
    if session.worker:
        from effattack.results.evaluation import Evaluation

        Evaluation.concat(session.evaluations).save(folder / session.worker)
        return
    if session.settings.out:
        _told(session, "report", _report, folder)
    if session.settings.save:
        _told(session, "baseline", _baseline, folder)
    prepare(session)


def _handover(session: Session) -> Path | None:
    """Where workers leave their results; None where nothing is to be written."""
    out, save = session.settings.out, session.settings.save
    if out is not None:
        return out / WORKERS
    return save.parent / WORKERS if save is not None else None


def _told(
    session: Session, what: str, write: Callable[[Session, Path], Path], folder: Path
) -> None:
    try:
        session.written.append((f"{what}: {write(session, folder)}", False))
    except Exception as error:  # whatever it is, the results of the tests come first
        said = f"no {what} was written: {type(error).__name__}: {for_pytest(error)}"
        session.written.append((said, True))


def _found(session: Session, folder: Path) -> Evaluation:
    """All results, this process's or its workers'."""
    from effattack.inputs.generated import called
    from effattack.results.evaluation import Evaluation

    parts = map(Evaluation.load, sorted(folder.glob("*")))
    found = Evaluation.concat([*session.evaluations, *parts])
    samples = found.samples.drop_duplicates(_SAME_ROW, ignore_index=True)
    given = session.settings.data
    data = called(given) if given else "the victims' own inputs, or those of the tests"
    found = Evaluation(samples, {**found.meta, "command": session.command, "data": data})
    held = results(found.scores(), session.settings.limits, found.meta.get("skipped", []))
    return Evaluation(samples, {**found.meta, "limits": held})


def _report(session: Session, folder: Path) -> Path:
    from effattack.reporting.html import write

    evaluation, out = _found(session, folder), session.settings.out
    assert out is not None
    evaluation.save(out)
    write(*evaluation.report(), out / "report.html")
    return out / "report.html"


def _baseline(session: Session, folder: Path) -> Path:
    from effattack.results.baselines import Baseline

    assert session.settings.save is not None
    return Baseline.of(_found(session, folder)).save(session.settings.save)
