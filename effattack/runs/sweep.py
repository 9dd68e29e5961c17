"""A sweep: victims x attacks x budgets x seeds over data, on any executor.

    sweep = Sweep(victims=("digits_vit_ats",), attacks=("Slowdown",), seeds=(0, 1, 2))
    result = sweep.run("study", Workers())

It holds names only. What a name means (weights, data, code) is looked at when the sweep is planned,
and again by every process that runs a cell.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from effattack.attacks import UniversalAttack, attack_class, defaults
from effattack.attacks.by_name import spelled_out
from effattack.budgets import check_eps
from effattack.cells.by_name import Named, fresh, keep
from effattack.cells.held import Held
from effattack.cells.plan import Plan
from effattack.cells.planning import SLICE, listed, refused
from effattack.cells.spec import Timed
from effattack.cells.store import Store
from effattack.certify.kinds import check_kind
from effattack.errors import ContractError, MissingPackage, UsageError, expect_least, expect_seed
from effattack.inputs.readers import Stream
from effattack.inputs.source import Source, source_of
from effattack.registry import expect_twinned, is_file
from effattack.registry.borders import staying
from effattack.results.evaluation import Evaluation
from effattack.runs.certifying import certified
from effattack.runs.deadline import within
from effattack.runs.executors import Executor
from effattack.runs.executors.in_process import InProcess
from effattack.runs.keeping import keep_worst
from effattack.runs.run import failed, go_on, run
from effattack.runs.scheduling import Progress
from effattack.runs.sweepfile import read
from effattack.threats import parse_threat
from effattack.victim import Victim
from effattack.victim.checks import check_declared
from effattack.victim.entry import read_steps

Absent = Callable[[str, MissingPackage], None]
"""What is told of a victim that cannot be loaded here: its name, and which package it needs."""
MOST = 1_000_000
"""Cells of a sweep: beyond them, listing alone takes longer than anybody waits."""


@dataclass(frozen=True)
class Sweep:
    """What to score; the fields are the keys of a sweep file.

    Attributes:
        victims: registered names, ``module:factory``, or files that end in ``.onnx``.
        attacks: names, as ``effattack list attacks`` shows them; ``"shifts"``: all natural shifts;
            empty: all that apply by default.
        budgets: l-inf radii, or threats as text, ``"l2:1.0"``; in a file also ``"8/255"``. Empty:
            the usual one of the inputs, of images 8/255.
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
        skip_bad: pass over images of a folder that cannot be read, and count them.
        twin: name of the victim that victims that are files were exported from: attacks see it.
        through: the steps inside every victim's door: ``"resize(256),center_crop(224),jpeg(90)"``.
        certify: kind of certificate beside the attacks, or ``"auto"``; None: none.

    Raises:
        UsageError: for an empty matrix, one in which two cells are the same, or one of more than
            a million cells.
    """

    victims: tuple[str, ...]
    attacks: tuple[str, ...] = ()
    budgets: tuple[float | str, ...] = ()
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
    twin: str | None = None
    through: str | None = None
    certify: str | None = None

    def __post_init__(self) -> None:
        for axis in ("victims", "seeds"):
            if not getattr(self, axis):
                raise UsageError(f"{axis} is empty, and so is the matrix: name at least one")
        for axis in ("victims", "attacks", "budgets", "seeds"):
            value, times = next(iter(Counter(getattr(self, axis)).most_common(1)), ("", 1))
            if times > 1:
                raise UsageError(f"{axis} names {value!r} twice: two cells would have one identity")
        for key in ("victims", "twin", "through", "attacks", "data", "fit", "device", "certify"):
            _expect_filled(key, getattr(self, key))
        expect_twinned(self.victims, self.twin or "")
        if self.through:
            read_steps(self.through)
        if self.certify:
            check_kind(self.certify)
        expect_least("slice", self.slice, 1)
        _expect_listable(self._cells(len(self.attacks), 1) * len(self.victims))
        for seed in self.seeds:
            expect_seed(seed)
        Timed(self.timed, self.batch_size, self.seconds)
        if self.device not in ("cpu", "cuda"):
            raise UsageError(f"device = {self.device!r}: it is 'cpu' or 'cuda'")
        for name in spelled_out(self.attacks):
            attack_class(name)
        for budget in self.budgets:
            parse_threat(budget) if isinstance(budget, str) else check_eps(budget)

    @classmethod
    def load(cls, path: str | Path) -> Sweep:
        """Read a sweep file.

        Raises:
            UsageError: naming line and remedy.
        """
        return cls(**read(Path(path), cls.__dataclass_fields__))

    def victim(self, name: str) -> Victim:
        """One of its victims, loaded anew, with its twin and the steps inside its door."""
        return fresh(name, self._twin(name), self.through or "")

    def plan(self, timeout: float | None = None, absent: Absent | None = None) -> list[Plan]:
        """All cells, checked but not run; loads each victim once and goes through its data.

        Args:
            timeout: seconds after which it is given up; None: never.
            absent: called with each victim whose package is not installed, which is then left out;
                None: that is an error.

        Raises:
            ContractError: if what every victim says of itself breaks the contract; one that stands
                beside others is planned to be refused.
            UsageError: for victims, attacks or data that cannot be used.
            MeasurementError: if it takes longer than the timeout.
        """
        plans: list[Plan] = []
        with within(timeout, "planning (loading victims, reading data)"):
            for name in self.victims:
                with staying(f"{name}, or its data,"):
                    try:
                        victim = self.victim(name)
                    except MissingPackage as error:
                        if absent is None:
                            raise
                        absent(name, error)
                        continue
                    listed_before = sum(len(plan.cells) for plan in plans)
                    plans.append(self._plan(name, victim, listed_before))
        if not plans:
            raise UsageError("no victim is left whose packages are installed: name one")
        if all(plan.refused for plan in plans):
            raise ContractError("; ".join(plan.refused for plan in plans))
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
            out: folder of results; below it are finished cells in ``cells``, and the worst inputs
                in ``corpus``.
            executor: :class:`~effattack.runs.executors.in_process.InProcess` by default.
            progress: called after each cell.

        Raises:
            CellError: if cells failed; all others are finished.
            UsageError: for a sweep or a store that cannot be used.
        """
        executor = executor or InProcess()
        executor.check(self.device, self.timed > 0)
        store = Store(Path(out) / "cells")
        plans = self.plan(executor.timeout)
        evaluation, failures = run(plans, store, executor, go_on, progress)
        if self.certify:
            evaluation = certified(evaluation, plans, store, self.certify)
        evaluation.meta["notes"] += keep_worst(plans, store, evaluation, Path(out))
        if failures:
            raise failed(failures)
        return evaluation

    def _cells(self, attacks: int, slices: int) -> int:
        """Of a victim: its controls are one, one per seed, and one per seed and budget."""
        variants = 1 + len(self.seeds) + (1 + attacks) * len(self.seeds) * (len(self.budgets) or 1)
        return variants * slices

    def _twin(self, name: str) -> str:
        return self.twin or "" if is_file(name) else ""

    def _plan(self, name: str, victim: Victim, listed_before: int) -> Plan:
        twin, through = self._twin(name), self.through or ""
        device = "cuda:0" if self.device == "cuda" else "cpu"
        try:
            said = check_declared(victim.checked or victim)
        except ContractError as error:
            none = Source("", ())
            return refused(
                victim, Named(name, (), (), (), none, None, device, twin, through, str(error))
            )
        attacks = self.attacks or tuple(defaults(victim))
        source = source_of(self.data, victim, self.samples)
        fit = None if self.fit is None else source_of(self.fit, victim)
        if self.skip_bad:
            source, fit = source.without_bad(), fit and fit.without_bad()
        data = source.open(victim.domain)
        if not isinstance(data, Stream):
            cells = self._cells(len(attacks), ceil(len(data) / self.slice))
            _expect_listable(listed_before + cells)
        named = Named(name, attacks, self.budgets, self.seeds, source, fit, device, twin, through)
        ready, skipped = named.lineup(victim)
        notes = said + [f"{victim.name}: {remark}" for remark in data.remarks(victim.num_classes)]
        if fit is not None and any(isinstance(a, UniversalAttack) for a in ready):
            told = fit.open(victim.domain).remarks(victim.num_classes)
            notes += [f"{victim.name}: fitted on: {remark}" for remark in told]
        if device == "cpu":
            keep(named, Held(victim, ready, source))
        return listed(
            Held(victim, ready, data),
            named,
            skipped=skipped,
            notes=notes,
            size=self.slice,
            timed=Timed(self.timed, self.batch_size, self.seconds, self.energy),
        )


def _expect_filled(key: str, value: str | tuple[str, ...] | None) -> None:
    texts = value if isinstance(value, tuple) else (value,)
    if any(text is not None and not str(text).strip() for text in texts):
        raise UsageError(f"{key} is empty, as an unset variable leaves it: name one")


def _expect_listable(cells: int) -> None:
    if cells > MOST:
        raise UsageError(
            f"the sweep asks for {cells:,} cells, and {MOST:,} are the most: take larger slices, "
            "or fewer budgets and seeds"
        )
