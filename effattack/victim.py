"""The contract between a victim and everything else: Gate, Trace, Victim, Opaque, audit.

A victim is an efficient model that shows its decisions. It has two paths: ``forward`` is the
deployed one and really skips work; ``trace`` takes the same hard decisions in fixed shapes, is
differentiable in the pixels, and states the executed MACs in closed form. :func:`audit` compares
that statement with what is counted while ``forward`` runs.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from effattack.errors import AuditError, ContractError, UsageError
from effattack.measure.macs import MacsCounter
from effattack.measure.modelled import modelled_joules
from effattack.measure.origins import examine
from effattack.measure.sight import Known, Sight

_known: WeakKeyDictionary[nn.Module, Known] = WeakKeyDictionary()

MARGIN_SLACK = 1e-5
"""Decisions closer to their threshold than this may differ between paths in float32."""


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


class Victim(nn.Module):
    """An efficient model under test.

    Subclasses implement ``forward`` and ``trace``. Images are float tensors (B, *input_shape) in
    [0, 1]; normalisation and resizing belong inside the victim.

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
        self.max_macs = float(max_macs)
        self.dense_macs = float(dense_macs)
        self.constant = constant
        self.batch_coupled = batch_coupled
        self.data = data

    def __call__(self, images: Tensor) -> Tensor:
        """The logits (B, classes) of images (B, *input_shape), by the deployed path.

        Raises:
            UsageError: for an empty batch, or images of another shape.
        """
        if not len(images) or tuple(images.shape[1:]) != self.input_shape:
            raise UsageError(
                f"{self.name} got images of shape {tuple(images.shape)}: give at least one image "
                f"of shape {self.input_shape}"
            )
        return super().__call__(images)

    def forward(self, images: Tensor) -> Tensor:
        """The deployed path: skips what it decides to skip; (B, *input_shape) -> (B, classes)."""
        raise NotImplementedError(f"{type(self).__name__} must implement forward(images)")

    def trace(self, images: Tensor) -> Trace:
        """The same hard decisions in fixed shapes, differentiable in the pixels."""
        raise NotImplementedError(f"{type(self).__name__} must implement trace(images)")

    @property
    def device(self) -> torch.device:
        """Where the parameters live (CPU for a victim without any)."""
        return self._example().device

    @property
    def dtype(self) -> torch.dtype:
        """Of the floating-point parameters: what images must be (float32 without any)."""
        return self._example().dtype

    def _example(self) -> Tensor:
        tensors = (t for t in (*self.parameters(), *self.buffers()) if t.is_floating_point())
        return next(tensors, torch.empty(0, dtype=torch.float32))


class Opaque(Victim):
    """A model that cannot be opened: no gates, executed MACs counted by dispatch.

    Its ``trace`` runs the model image by image under the counter, the one exception to the closed
    form. Gradient compute attacks need gates and do not apply; query attacks do.

    Args:
        model: any module (B, *input_shape) -> (B, classes).
        input_shape: (C, H, W) of one image.
        name: how tables and files call it.
        max_macs: worst case if known; attack success is NaN without it, and the MACs ratio judges.
        dense_macs: MACs without the mechanism, if known.
        batch_coupled: as a model is whose int8 scales are taken over the batch; scored at batch 1.
        data: see :class:`Victim`.

    Raises:
        UsageError: if the model does not return plain logits.
    """

    def __init__(
        self,
        model: nn.Module,
        input_shape: tuple[int, ...],
        *,
        name: str | None = None,
        max_macs: float = float("nan"),
        dense_macs: float = float("nan"),
        batch_coupled: bool = False,
        data: str | None = None,
    ) -> None:
        model.eval()
        parameter = next(model.parameters(), torch.empty(0))
        with torch.no_grad():
            logits = model(parameter.new_full((1, *input_shape), 0.5))
        if not isinstance(logits, Tensor) or logits.dim() != 2:
            found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise UsageError(
                f"Opaque needs a model that returns plain logits (B, classes), not {found}: wrap "
                "it in a module whose forward returns the logits only"
            )
        super().__init__(
            name=name or type(model).__name__,
            family="opaque",
            input_shape=input_shape,
            num_classes=logits.shape[1],
            max_macs=max_macs,
            dense_macs=dense_macs,
            batch_coupled=batch_coupled,
            data=data,
        )
        self.model = model.eval()

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)

    def trace(self, images: Tensor) -> Trace:
        logits, macs = [], []
        for image in images.split(1):
            with MacsCounter() as counter:
                logits.append(self.model(image))
            macs.append(counter.total)
        return Trace(
            logits=torch.cat(logits),
            gates=(),
            macs=torch.tensor(macs, dtype=torch.float64, device=images.device),
        )


class Audit(NamedTuple):
    """What the deployed path did, image by image."""

    logits: Tensor
    """(B, classes): from ``forward``, one image at a time."""
    macs: Tensor
    """(B,) float64: MACs counted while ``forward`` ran."""
    elementwise: Tensor
    """(B,) float64: elements multiplied one by one beside them; see :class:`MacsCounter`."""
    outside: tuple[dict[str, float], ...]
    """Per image, name -> seconds of the work declared by :func:`effattack.outside`."""
    modelled_joules: Tensor
    """(B,) float64: by :mod:`effattack.measure.modelled` from what was counted."""
    knife_edge: Tensor
    """(B,) bool: a decision fell within rounding of its threshold; float64 paths agree there."""
    decisions: tuple[dict[str, Tensor], ...]
    """Per image, gate name -> (units,) bool: what ``trace`` computed."""


def audit(victim: Victim, images: Tensor) -> Audit:
    """Check that the MACs a victim declares are the ones it executes.

    Runs the deployed path image by image under the dispatch counter and compares with
    ``victim.trace(image).macs``; on float victims they must be equal, to the last MAC. Where a
    float32 decision lies within rounding of its threshold and the two paths disagree, the same
    image is audited in float64; if it agrees there, the executed count stands.

    Args:
        victim: in eval mode.
        images: (B, *input_shape) in [0, 1].

    Raises:
        AuditError: with the first image that differs, by how much, the module whose MACs are just
            that many, if there is one, where the MACs went, and which gates were open.
        UnseenWork: if what decides the logits was computed where the counter cannot see.
        ContractError: for an image on which nothing is multiplied.
    """
    logits, counters, knife_edge, decisions = [], [], [], []
    known = _known.setdefault(victim, Known())
    for index, image in enumerate(images.split(1)):
        with torch.no_grad():
            counter, found = _executed(victim, image, known)
            logits.append(found)
            trace = victim.trace(image)
        if not counter.total:
            raise ContractError(
                f"{victim.name}: image {index}: forward multiplies nothing at all (0 MACs): "
                "make the deployed path compute with torch operators, or nothing was measured"
            )
        declared = trace.macs.item()
        agrees = declared == counter.total
        if not agrees and not (_near_threshold(trace) and _agrees_in_float64(victim, image)):
            raise AuditError(_difference(victim, image, index, trace))
        counters.append(counter)
        knife_edge.append(not agrees)
        decisions.append({gate.name: gate.active.flatten().cpu() for gate in trace.gates})
    return Audit(
        logits=torch.cat(logits),
        macs=torch.tensor([c.total for c in counters], dtype=torch.float64),
        elementwise=torch.tensor([c.elementwise for c in counters], dtype=torch.float64),
        outside=tuple(dict(c.outside) for c in counters),
        modelled_joules=torch.tensor([*map(modelled_joules, counters)], dtype=torch.float64),
        knife_edge=torch.tensor(knife_edge),
        decisions=tuple(decisions),
    )


def _executed(victim: Victim, image: Tensor, known: Known) -> tuple[MacsCounter, Tensor]:
    """What forward executes on an image, all of it in sight, and its logits."""
    sight = Sight(image, known)
    with MacsCounter(witness=sight) as counter:
        logits = victim(image)
    sight.using("the logits", None, (logits,), {})
    if sight.is_news:
        examine(victim.name, victim, image, known)
    return counter, logits


def _near_threshold(trace: Trace) -> bool:
    return trace.logits.dtype != torch.float64 and any(
        gate.proxy or bool((gate.margin.abs() <= MARGIN_SLACK)[gate.reached].any())
        for gate in trace.gates
    )


def in_float64(victim: Victim) -> Victim | None:
    """A copy in double precision, where rounding does not blur decisions.

    None where there is no such thing: quantized victims, and models that cannot be opened.
    """
    if victim.family == "quantization" or isinstance(victim, Opaque):
        return None
    return copy.deepcopy(victim).double()


def _agrees_in_float64(victim: Victim, image: Tensor) -> bool:
    if (twin := in_float64(victim)) is None:
        return False
    image = image.double()
    with torch.no_grad():
        with MacsCounter() as counter:
            twin(image)
        return twin.trace(image).macs.item() == counter.total


def _difference(victim: Victim, image: Tensor, index: int, trace: Trace) -> str:
    with torch.no_grad(), MacsCounter(victim) as counter:
        victim(image)
    declared, executed = trace.macs.item(), counter.total
    by_module = {k: macs for k, macs in counter.by_module.items() if k != "Global"}
    suspects = [name for name, macs in by_module.items() if macs == abs(declared - executed)]
    largest = sorted(_own(by_module).items(), key=lambda item: -item[1])
    decided = [
        f"{gate.name} {int(gate.active.sum())} of {int(gate.reached.sum())} reached"
        for gate in trace.gates
    ]
    parts = [
        f"{victim.name}: image {index}: trace declares {declared:,.0f} MACs, forward executed "
        f"{executed:,} ({declared - executed:+,.0f})",
        f"executed: {_listed(f'{name} {macs:,}' for name, macs in largest)}",
        f"correct the closed form in {type(victim).__name__}.trace, or make forward skip what it "
        "declares skipped",
    ]
    if decided:
        parts.insert(-1, f"active gates: {_listed(decided)}")
    if suspects:
        parts.insert(1, f"the difference is exactly what {' or '.join(sorted(suspects)[:3])} costs")
    return "; ".join(parts)


def _own(by_module: Mapping[str, int]) -> dict[str, int]:
    """MACs of every module without those of the modules inside it; modules without any left out."""
    own = dict(by_module)
    for name, macs in by_module.items():
        outer = [other for other in by_module if name.startswith(f"{other}.")]
        if outer:
            own[max(outer, key=len)] -= macs
    return {name: macs for name, macs in own.items() if macs}


def _listed(parts: Iterable[str], most: int = 8) -> str:
    parts = list(parts)
    return ", ".join(parts[:most]) + f" and {len(parts) - most} more" * (len(parts) > most)
