"""The contract between a victim and everything else: its two paths, and what it declares.

A victim is an efficient model that shows its decisions. It has two paths: ``forward`` is the
deployed one and really skips work; ``trace`` takes the same hard decisions in fixed shapes, is
differentiable in the input, and states the executed MACs in closed form.
:func:`effattack.audit` compares that statement with what is counted while ``forward`` runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial, wraps
from math import nan
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from effattack.counting.tallies import Count
from effattack.domains import Batch, Domain, Pixels
from effattack.domains.base import shape_of
from effattack.errors import ContractError, UsageError, unknown_name
from effattack.tasks import Classes, Task
from effattack.victim.door import answered, enter, example_of, precision
from effattack.victim.leaf import Leaf
from effattack.victim.structure import Structure
from effattack.victim.trace import Gate, Ran, Trace, as_answered
from effattack.victim.twins import twin_in_float64


class Victim(nn.Module):
    """An efficient model under test.

    Subclasses implement ``forward`` and ``trace``. Images are float tensors (B, *input_shape) in
    [0, 1]; normalisation and resizing belong inside the victim. Whoever calls one of the two passes
    the victim's door (:mod:`effattack.victim.door`): the path is given a copy of the batch, in the
    precision of the parameters, and its answer comes back in the precision of the batch.

    Args:
        name: how tables and files call this victim.
        family: "token sparsification", "early exit", "layer skipping", "cascade", "quantization".
        input_shape: (C, H, W) of one image.
        num_classes: width of the logits.
        max_macs: structural worst case, MACs of one input; NaN where unknown. May be set later in
            ``__init__``, once the parts are there to count.
        dense_macs: MACs of one input without the mechanism; NaN where unknown.
        constant: the MACs cannot depend on the input.
        batch_coupled: a sample's work may depend on its batch mates; scored at batch 1.
        pads: shorter inputs of a batch are padded, and padding costs MACs.
        data: ``"module:factory"`` of inputs and labels to score when the user names none.
        domain: what inputs are, in place of ``input_shape``, where they are no images.
        task: what is asked for, in place of ``num_classes``, where it is no class.
        counts: work that is no MAC, by name (see :mod:`effattack.counting.tallies`).
        currency: what judges: ``"macs"``, or the name of a count that is audited.

    Raises:
        ContractError: where inputs or answers are said twice or not at all, or the currency is no
            audited count.
    """

    sees: Literal["gates", "answers"] = "gates"
    """What an attacker sees of it: decisions and their margins, or answers alone."""
    counted: bool = True
    """Whether the work of its deployed path is known; else only answers and latency are judged."""
    long_request: str = ""
    """Of prompts: a plain request, as a user would write it, for the longest work of its kind."""
    remote: bool = False
    """Whether its answers come from elsewhere, so that one input may fail while others do not: each
    is a cell of its own, asked one by one from one process, and timed as it is answered."""

    def __init__(
        self,
        *,
        name: str,
        family: str,
        input_shape: tuple[int | None, ...] | None = None,
        num_classes: int | None = None,
        max_macs: float | None = None,
        dense_macs: float = nan,
        constant: bool = False,
        batch_coupled: bool = False,
        pads: bool = False,
        data: str | None = None,
        domain: Domain | None = None,
        task: Task | None = None,
        counts: Mapping[str, Count] | None = None,
        currency: str = "macs",
    ) -> None:
        super().__init__()
        self.training = False
        self.name = name
        self.family = family
        self.domain: Domain = either(name, "input_shape", input_shape, "domain", domain, Pixels)
        self.task: Task = either(name, "num_classes", num_classes, "task", task, Classes)
        self.max_macs = max_macs
        self.dense_macs = float(dense_macs)
        self.constant = constant
        self.batch_coupled = batch_coupled
        self.pads = pads
        self.data = data
        self.counts = dict(counts or {})
        self.currency = currency
        if currency != "macs" and not (currency in self.counts and self.counts[currency].audited):
            raise ContractError(
                f"{name}: currency = {currency!r} is no audited count: give 'macs' or one of "
                f"{[key for key, count in self.counts.items() if count.audited]}"
            )

    def __init_subclass__(cls, **settings: Any) -> None:
        super().__init_subclass__(**settings)
        if not hasattr(cls.trace, "at_the_door"):
            cls.trace = _at_the_door(cls.trace)  # type: ignore[method-assign]

    def __call__(self, batch: Batch) -> Tensor:
        """What the deployed path says of a batch: logits (B, classes) of images (B, *input_shape).

        Raises:
            UsageError: for an empty batch, or inputs of another shape.
            ContractError: if ``forward`` returns no tensor, or the weights hold no numbers.
            MeasurementError: if this torch lacks a kernel that it needs.
        """
        if not self.domain.fits(batch):
            given, shape = shape_of(batch), self.input_shape
            raise UsageError(
                f"{self.name} got {self.domain.nouns} of shape {given}: give at least one "
                f"{self.domain.noun} {f'of shape {shape}' if shape else 'as in victim.example(1)'}"
            )
        outputs = enter("forward", super().__call__, batch, self, Tensor, self.task.outputs)
        return answered(outputs, precision(batch, self.dtype))

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all modules that have one: exported graphs keep theirs."""
        self.training = mode
        for part in self.children():
            set_mode(part, mode)
        return self

    def forward(self, batch: Batch) -> Tensor:
        """The deployed path: skips what it decides to skip; (B, *input_shape) -> (B, classes)."""
        raise ContractError(f"{type(self).__name__} must implement forward(images)")

    def trace(self, batch: Batch) -> Trace:
        """The same hard decisions in fixed shapes, differentiable in the input.

        A victim that implements :meth:`lift` takes ``leaf=None`` as well, and reads it in its
        places.
        """
        raise ContractError(f"{type(self).__name__} must implement trace(images)")

    def lift(self, batch: Batch, places: Tensor) -> Leaf:
        """What gradients are taken in where inputs are words: embedding rows of places (B, k).

        ``batch`` are prompts; of inputs of several parts, those of their part of tokens. Not part
        of the MACs. Victims of prompts implement it; without, only queries apply to them.
        """
        raise ContractError(
            f"{type(self).__name__} lifts no words: implement lift(batch, places), which returns "
            "effattack.victim.leaf.Leaf, and trace(batch, leaf=None)"
        )

    @property
    def lifts(self) -> bool:
        """Whether it implements :meth:`lift`."""
        return type(self).lift is not Victim.lift

    def ceiling(self, batch: Batch, count: str = "macs") -> Tensor:
        """(B,) float64: the most work that any inputs of these sizes can cause; NaN where unknown.

        By default ``max_macs`` of all; a victim whose work grows with its input says by how much.

        Args:
            batch: inputs of some sizes.
            count: ``"macs"``, or the name of one of ``counts``.
        """
        if count == "macs":
            most = torch.full((len(batch),), self.max_macs, dtype=torch.float64)
            return most.to(batch.device)
        if count not in self.counts:
            raise unknown_name("count", count, ["macs", *self.counts])
        return self.counts[count].ceiling(batch).double()

    def spent(self, trace: Trace) -> Tensor:
        """(B,) float64: the work that judges, in the victim's currency."""
        return trace.macs if self.currency == "macs" else trace.also[self.currency]

    @property
    def correction(self) -> str:
        """What an author is to do where the MACs that he declares are not the executed ones."""
        return (
            f"correct the closed form in {type(self).__name__}.trace, or make forward skip what it "
            "declares skipped"
        )

    def structure(self) -> Structure | None:
        """What it is made of: stages, classifiers, models and the rule that stops them.

        None where it is no chain of stages, or does not say.
        """
        return None

    @property
    def checked(self) -> Victim | None:
        """Whose two paths the contract is checked on: its own; None where there are no two."""
        return self

    @property
    def provenance(self) -> Mapping[str, str]:
        """What a report tells of where it runs, and who allows it; by default nothing."""
        return {}

    @property
    def answer_form(self) -> Mapping[str, Any]:
        """What a report must know to show answers beside their inputs; by default of the task."""
        return self.task.describe()

    @property
    def queried(self) -> Victim:
        """The victim as those see it who only query it: by default as it is."""
        return self

    def searched(self, seed: int) -> Victim:
        """The victim as the searches of an attack see it; by default as it is.

        A randomised one gives draws of the search's own, by its seed: none that a score is of.
        """
        return self

    def ran(self, single: Batch) -> Ran | None:
        """What the deployed path did with one input, where that has a record of its own.

        None, as here: ``forward`` runs under the counter.
        """
        return None

    def in_float64(self) -> Victim | None:
        """A copy in double precision, where rounding does not blur decisions.

        None where there is no such thing: quantized victims, and those that do not compute in
        double precision throughout.
        """
        return twin_in_float64(self)

    def example(self, count: int) -> Batch:
        """Inputs that mean nothing, to look at the victim with, where it is."""
        return self.domain.place(self.domain.example(count), self.device)

    @property
    def input_shape(self) -> tuple[Any, ...]:
        """Of one input: (C, H, W) of an image; None where a size is free."""
        return self.domain.shape

    @property
    def num_classes(self) -> int:
        """How many classes or tags there are; 0 where answers are neither."""
        return getattr(self.task, "count", 0)

    @property
    def max_macs(self) -> float:
        """Structural worst case, MACs of one input; NaN where unknown.

        Raises:
            ContractError: if it was never declared.
        """
        if self._max_macs is None:
            raise ContractError(
                f"{self.name}: max_macs was never declared: give it to Victim.__init__, or set "
                "self.max_macs behind it; NaN where it is unknown"
            )
        return self._max_macs

    @max_macs.setter
    def max_macs(self, macs: float | None) -> None:
        self._max_macs = None if macs is None else float(macs)

    @property
    def device(self) -> torch.device:
        """Where the parameters live (CPU for a victim without any)."""
        return example_of(self).device

    @property
    def dtype(self) -> torch.dtype:
        """Of the floating-point parameters: what inputs are cast to (float32 without any)."""
        return example_of(self).dtype


def either(
    victim: str, short: str, given: Any, long: str, whole: Any, default: Callable[[Any], Any]
) -> Any:
    """Domain or task of a victim: as an image's author says it, or as an object.

    Raises:
        ContractError: where both are given, or neither, or the object is of another kind.
    """
    if (given is None) == (whole is None):
        what = "say the same: give one of them" if whole is not None else "are missing: give one"
        raise ContractError(f"{victim}: {short} and {long} {what}")
    kind = {"domain": Domain, "task": Task}[long]
    if whole is not None and not isinstance(whole, kind):
        raise ContractError(f"{victim}: {long} = {whole!r}: give an effattack {kind.__name__}")
    return default(given) if whole is None else whole


def _at_the_door(trace: Callable[..., Trace]) -> Callable[..., Trace]:
    """A victim's ``trace`` as everybody calls it."""

    @wraps(trace)
    def entered(self: Victim, batch: Batch, leaf: Leaf | None = None) -> Trace:
        run = partial(trace, self)
        if leaf is not None:
            run = partial(run, leaf=leaf._replace(rows=leaf.rows.to(self.dtype)))
        expected = "effattack.Trace(logits, gates, macs)"
        found = enter("trace", run, batch, self, Trace, expected)
        if not all(isinstance(gate, Gate) for gate in found.gates or ()):
            raise ContractError(
                f"{self.name}: trace().gates = {found.gates!r}: give a tuple of effattack.Gate"
            )
        return as_answered(found, self.dtype, precision(batch, self.dtype))

    entered.at_the_door = True  # type: ignore[attr-defined]
    return entered


def set_mode(model: nn.Module, mode: bool) -> None:
    """``model.train(mode)``; exported graphs refuse that: theirs is fixed."""
    try:
        model.train(mode)
    except NotImplementedError:
        model.training = mode
        for child in model.children():
            set_mode(child, mode)
