"""A sweep: victims x attacks x budgets x seeds over data, on any executor.

    sweep = Sweep(victims=("digits_vit_ats",), attacks=("Slowdown",), seeds=(0, 1, 2))
    result = sweep.run("study", Workers())

It holds names only. What a name means (weights, data, code) is looked at when the sweep is planned,
and again by every process that runs a cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from effattack.assembly import assembled
from effattack.attacks import attack_class, defaults
from effattack.budgets import check_eps
from effattack.contract import check_declared
from effattack.data import source_of
from effattack.errors import CellError, UsageError, expect_least
from effattack.evaluation import Evaluation
from effattack.execution import Outcome, described
from effattack.executors import Executor
from effattack.executors.in_process import InProcess
from effattack.materials import Held
from effattack.named import Named, fresh
from effattack.planning import SLICE, listed
from effattack.plans import Plan, check_timing
from effattack.scheduling import Progress, execute
from effattack.store import Store
from effattack.sweepfile import read


@dataclass(frozen=True)
class Sweep:
    """What to score; the fields are the keys of a sweep file.

    Attributes:
        victims: registered names, or ``module:factory``.
        attacks: names, as ``effattack list attacks`` shows them; empty: all that apply by default.
        budgets: l-inf radii in [0, 1] pixels; in a file also ``"8/255"``.
        seeds: of each attack.
        data: folder by class, ``.npz``, or ``module:factory``; None: the victims' own.
        fit: what universal attacks learn from; None: those of the data that are not scored.
        samples: images, evenly spread over the data; None: all.
        slice: images per cell: what an interruption can lose.
        timed: calls whose latency is measured; 0: none.
        batch_size: images per timed call.
        seconds: of timing per attack, at least; three passes over the images in any case.
        energy: also meter their energy.
        device: ``"cpu"`` or ``"cuda"``.
        skip_bad: pass over unreadable images of a folder, and count them.

    Raises:
        UsageError: for an empty matrix, or one in which two cells are the same.
    """

    victims: tuple[str, ...]
    attacks: tuple[str, ...] = ()
    budgets: tuple[float, ...] = (8 / 255,)
    seeds: tuple[int, ...] = (0,)
    data: str | None = None
    fit: str | None = None
    samples: int | None = None
    slice: int = SLICE
    timed: int = 16
    batch_size: int = 1
    seconds: float = 0.0
    energy: bool = False
    device: str = "cpu"
    skip_bad: bool = False

    def __post_init__(self) -> None:
        for axis in ("victims", "budgets", "seeds"):
            if not getattr(self, axis):
                raise UsageError(f"{axis} is empty, and so is the matrix: name at least one")
        for axis in ("victims", "attacks", "budgets", "seeds"):
            if twice := {v for v in getattr(self, axis) if getattr(self, axis).count(v) > 1}:
                raise UsageError(
                    f"{axis} names {twice.pop()!r} twice: two cells would have one identity"
                )
        expect_least("slice", self.slice, 1)
        for seed in self.seeds:
            expect_least("seed", seed, 0)
        check_timing(self.timed, self.batch_size, self.seconds)
        if self.device not in ("cpu", "cuda"):
            raise UsageError(f"device = {self.device!r}: it is 'cpu' or 'cuda'")
        for name in self.attacks:
            attack_class(name)
        for eps in self.budgets:
            check_eps(eps)

    @classmethod
    def load(cls, path: str | Path) -> Sweep:
        """Read a sweep file.

        Raises:
            UsageError: naming line and remedy.
        """
        return cls(**read(Path(path), cls.__dataclass_fields__))

    def plan(self) -> list[Plan]:
        """All cells, checked but not run; loads each victim once and goes through its data.

        Raises:
            UsageError: for victims, attacks or data that cannot be used.
        """
        plans = [self._plan(name) for name in self.victims]
        names = [plan.about.name for plan in plans]
        if twice := {name for name in names if names.count(name) > 1}:
            raise UsageError(
                f"two victims are called {twice.pop()!r}: two cells would have one identity; give "
                "them different names"
            )
        return plans

    def run(
        self,
        out: str | Path,
        executor: Executor | None = None,
        progress: Progress | None = None,
    ) -> Evaluation:
        """Run what is not finished yet; the same call with the same folder resumes.

        Args:
            out: folder of results; finished cells are in ``cells`` below it.
            executor: :class:`~effattack.executors.in_process.InProcess` by default.
            progress: called after each cell.

        Raises:
            CellError: if cells failed; all others are finished.
            UsageError: for a sweep or a store that cannot be used.
        """
        executor = executor or InProcess()
        executor.check(self.device, self.timed > 0)
        store = Store(Path(out) / "cells")
        evaluation, failures = complete(self.plan(), store, executor, progress)
        if failures:
            raise failed(failures)
        return evaluation

    def _plan(self, name: str) -> Plan:
        victim = fresh(name)
        notes = check_declared(victim)
        attacks = self.attacks or tuple(defaults(victim))
        source = source_of(self.data, victim, self.samples)
        if self.skip_bad and (source := source.without_bad()).leave_out:
            notes.append(
                f"{victim.name}: {len(source.leave_out)} unreadable images were passed over: "
                f"{', '.join(source.leave_out[:5])}{' ...' * (len(source.leave_out) > 5)}"
            )
        fit = None if self.fit is None else source_of(self.fit, victim)
        named = Named(name, attacks, self.budgets, self.seeds, source, fit, self.device)
        ready, skipped = named.made_attacks(victim)
        return listed(
            Held(victim, ready, source.open()),
            named,
            skipped=skipped,
            notes=notes,
            size=self.slice,
            timed=self.timed,
            batch_size=self.batch_size,
            seconds=self.seconds,
            energy=self.energy,
            device="cuda:0" if self.device == "cuda" else "cpu",
            threads=1,
        )


def complete(
    plans: Sequence[Plan], store: Store, executor: Executor, progress: Progress | None = None
) -> tuple[Evaluation, list[str]]:
    """Run what is not finished; the evaluation of all that is, and why cells failed.

    Raises:
        CellError: if nothing could be finished.
    """
    failures: dict[str, str] = {}

    def note(outcome: Outcome) -> None:
        assert outcome.error is not None
        failures[outcome.cell.spec.key] = described(outcome.error)

    place = execute(plans, store, executor, note, progress)
    parts = [Evaluation(*assembled(plan, store, place, failures)) for plan in plans]
    if not any(len(part.samples) for part in parts):
        raise failed(list(failures.values()))
    return Evaluation.concat(parts), list(failures.values())


def failed(reasons: Sequence[str]) -> CellError:
    """What to say when cells failed."""
    return CellError(
        f"{len(reasons)} cells failed, the first one because: {reasons[0]}; all others are "
        "finished, and the same command tries these again"
    )
