"""The contract between a victim and everything else: Gate, Trace, Victim.

A victim is an efficient model that shows its decisions. It has two paths: ``forward`` is the
deployed one and really skips work; ``trace`` takes the same hard decisions in fixed shapes, is
differentiable in the pixels, and states the executed MACs in closed form.
:func:`effattack.audit` compares that statement with what is counted while ``forward`` runs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from effattack.domains import Domain, Pixels
from effattack.errors import ContractError, UsageError
from effattack.tasks import Classes, Task
from effattack.victim.door import answered, coarsest, enter, example_of


class Gate(NamedTuple):
    """One kind of input-dependent decision in one forward pass, for a batch of B images."""

    name: str
    """``"blocks.3.tokens"``, ``"exits.1"``, ``"saver"``."""
    margin: Tensor
    """(B,) or (B, units): differentiable push towards "computed", in [-1, 1] where reached; of
    stages in a row (``stage_logits``) also where not reached, as attacks push all of them."""
    active: Tensor
    """Same shape, bool: the decision; computed or not, upstream decisions included."""
    reached: Tensor
    """Same shape, bool: whether this decision was evaluated at all."""
    cost: Tensor | float
    """MACs that opening one unit makes possible, downstream included: a weight for attacks."""
    proxy: bool = False
    """True where the sign of ``margin`` is not the decision; else they agree where reached."""


class Trace(NamedTuple):
    """What one forward pass decided, for a batch of B images."""

    logits: Tensor
    """(B, classes), from the hard decisions, differentiable in the pixels."""
    gates: tuple[Gate, ...]
    """Every input-dependent decision, in the order of evaluation."""
    macs: Tensor
    """(B,) float64: executed MACs in closed form from the decisions."""
    stage_logits: Tensor | None = None
    """(B, stages, classes): every exit, saver and base, whether taken or not."""
    aux: dict[str, Tensor] = {}
    """What a paper's own loss needs beside the gates (CLS attention, halting scores)."""
    dtype: torch.dtype | None = None
    """The coarsest precision that it was computed in; the victim's door tells it, not you."""


class Victim(nn.Module):
    """An efficient model under test.

    Subclasses implement ``forward`` and ``trace``. Images are float tensors (B, *input_shape) in
    [0, 1]; normalisation and resizing belong inside the victim. Whoever calls one of the two passes
    the victim's door (:mod:`effattack.victim.door`): the path is given a copy of the images, in the
    precision of the parameters, and its answer comes back in the precision of the images.

    Args:
        name: how tables and files call this victim.
        family: "token sparsification", "early exit", "layer skipping", "cascade", "quantization".
        input_shape: (C, H, W) of one image.
        num_classes: width of the logits.
        max_macs: structural worst case, MACs of one image; NaN where unknown.
        dense_macs: MACs of one image without the mechanism; NaN where unknown.
        constant: the MACs cannot depend on the input.
        batch_coupled: a sample's work may depend on its batch mates; scored at batch 1.
        data: ``"module:factory"`` of images and labels to score when the user names none.
    """

    def __init__(
        self,
        *,
        name: str,
        family: str,
        input_shape: tuple[int, ...],
        num_classes: int,
        max_macs: float,
        dense_macs: float,
        constant: bool = False,
        batch_coupled: bool = False,
        data: str | None = None,
    ) -> None:
        super().__init__()
        self.training = False
        self.name = name
        self.family = family
        self.input_shape = tuple(input_shape)
        self.num_classes = num_classes
        self.domain: Domain = Pixels(self.input_shape)
        self.task: Task = Classes(num_classes)
        self.max_macs = float(max_macs)
        self.dense_macs = float(dense_macs)
        self.constant = constant
        self.batch_coupled = batch_coupled
        self.data = data

    def __init_subclass__(cls, **settings: Any) -> None:
        super().__init_subclass__(**settings)
        if not hasattr(cls.trace, "at_the_door"):
            cls.trace = _at_the_door(cls.trace)  # type: ignore[method-assign, assignment]

    def __call__(self, images: Tensor) -> Tensor:
        """The logits (B, classes) of images (B, *input_shape), by the deployed path.

        Raises:
            UsageError: for an empty batch, or images of another shape.
            ContractError: if ``forward`` returns no tensor, or the weights hold no numbers.
            MeasurementError: if this torch lacks a kernel that it needs.
        """
        if not len(images) or tuple(images.shape[1:]) != self.input_shape:
            raise UsageError(
                f"{self.name} got images of shape {tuple(images.shape)}: give at least one image "
                f"of shape {self.input_shape}"
            )
        logits = enter("forward", super().__call__, images, self, Tensor)
        return answered(logits, images.dtype)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all modules that have one: exported graphs keep theirs."""
        self.training = mode
        for part in self.children():
            set_mode(part, mode)
        return self

    def forward(self, images: Tensor) -> Tensor:
        """The deployed path: skips what it decides to skip; (B, *input_shape) -> (B, classes)."""
        raise ContractError(f"{type(self).__name__} must implement forward(images)")

    def trace(self, images: Tensor) -> Trace:
        """The same hard decisions in fixed shapes, differentiable in the pixels."""
        raise ContractError(f"{type(self).__name__} must implement trace(images)")

    @property
    def device(self) -> torch.device:
        """Where the parameters live (CPU for a victim without any)."""
        return example_of(self).device

    @property
    def dtype(self) -> torch.dtype:
        """Of the floating-point parameters: what images are cast to (float32 without any)."""
        return example_of(self).dtype


def _at_the_door(trace: Callable[[Any, Tensor], Trace]) -> Callable[[Any, Tensor], Trace]:
    """A victim's ``trace`` as everybody calls it."""

    @wraps(trace)
    def entered(self: Victim, images: Tensor) -> Trace:
        found = enter("trace", partial(trace, self), images, self, Trace)
        if not all(isinstance(gate, Gate) for gate in found.gates or ()):
            raise ContractError(
                f"{self.name}: trace().gates = {found.gates!r}: give a tuple of effattack.Gate"
            )
        return _answered(found, self.dtype, images.dtype)

    entered.at_the_door = True  # type: ignore[attr-defined]
    return entered


def _answered(trace: Trace, weights: torch.dtype, images: torch.dtype) -> Trace:
    """A trace in the precision of the images, which tells what it was computed in."""
    said = [trace.logits, *(gate.margin for gate in trace.gates)]
    floats = [t.dtype for t in said if isinstance(t, Tensor) and t.is_floating_point()]
    return trace._replace(
        logits=answered(trace.logits, images),
        gates=tuple(g._replace(margin=answered(g.margin, images)) for g in trace.gates),
        stage_logits=answered(trace.stage_logits, images),
        aux={key: answered(value, images) for key, value in trace.aux.items()},
        dtype=coarsest(trace.dtype or weights, weights, *floats),
    )


def set_mode(model: nn.Module, mode: bool) -> None:
    """``model.train(mode)``; exported graphs refuse that: theirs is fixed."""
    try:
        model.train(mode)
    except NotImplementedError:
        model.training = mode
        for child in model.children():
            set_mode(child, mode)
