"""The contract between a victim and everything else: Gate, Trace, Victim, Opaque, audit.

A victim is an efficient model that shows its decisions. It has two paths: ``forward`` is the
deployed one and really skips work; ``trace`` takes the same hard decisions in fixed shapes, is
differentiable in the pixels, and states the executed MACs in closed form. :func:`audit` compares
that statement with what is counted while ``forward`` runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial, wraps
from typing import Any, NamedTuple, Self
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from effattack.door import answered, blank, coarsest, enter, example_of, without_numbers
from effattack.errors import AuditError, ContractError, EffattackError, UsageError, first_line
from effattack.measure.macs import MacsCounter
from effattack.measure.modelled import modelled_joules
from effattack.measure.origins import examine
from effattack.measure.sight import Known, Sight
from effattack.twins import twin_in_float64

_known: WeakKeyDictionary[nn.Module, Known] = WeakKeyDictionary()


def margin_slack(dtype: torch.dtype | None) -> float:
    """Decisions closer to their threshold than this may differ between paths in a precision."""
    return 1e-5 if dtype is None else {torch.float16: 0.01, torch.bfloat16: 0.05}.get(dtype, 1e-5)


ONE_LOGIT = (
    "one logit z per image stands for two classes: return torch.cat([torch.zeros_like(z), z], 1), "
    "whose softmax is sigmoid(z), with z of shape (B, 1)"
)


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
    the victim's door (:mod:`effattack.door`): the path is given a copy of the images, in the
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


class Opaque(Victim):
    """A model that cannot be opened: no gates, executed MACs counted by dispatch.

    Its ``trace`` runs the model image by image under the counter, the one exception to the closed
    form. Gradient compute attacks need gates and do not apply; query attacks do.

    Args:
        model: any module (B, *input_shape) -> (B, classes): compiled, exported and scripted ones,
            too; or a function. One that takes a single image at a time runs through a batch in a
            loop.
        input_shape: (C, H, W) of one image.
        name: how tables and files call it.
        max_macs: worst case if known; attack success is NaN without it, and the MACs ratio judges.
        dense_macs: MACs without the mechanism, if known.
        batch_coupled: as a model is whose int8 scales are taken over the batch; scored at batch 1.
        data: see :class:`Victim`.

    Raises:
        UsageError: if the model does not run on one image, or does not return plain logits.
    """

    def __init__(
        self,
        model: nn.Module | Callable[[Tensor], Tensor],
        input_shape: tuple[int, ...],
        *,
        name: str | None = None,
        max_macs: float = float("nan"),
        dense_macs: float = float("nan"),
        batch_coupled: bool = False,
        data: str | None = None,
    ) -> None:
        called = model if isinstance(model, nn.Module) else Function(model)
        name = name or str(getattr(model, "__name__", type(model).__name__))
        _expect_seen(called, name)
        set_mode(called, False)
        super().__init__(
            name=name,
            family="opaque",
            input_shape=input_shape,
            num_classes=_classes(called, input_shape, name),
            max_macs=max_macs,
            dense_macs=dense_macs,
            batch_coupled=batch_coupled,
            data=data,
        )
        self.model = called
        self.one_by_one = not _takes_two(called, input_shape)

    def forward(self, images: Tensor) -> Tensor:
        if self.one_by_one:
            return torch.cat([self.model(image.clone()) for image in images.split(1)])
        return self.model(images)

    def trace(self, images: Tensor) -> Trace:
        logits, macs = [], []
        for image in images.split(1):
            with MacsCounter() as counter:
                logits.append(self.model(image.clone()))
            macs.append(counter.total)
        return Trace(
            logits=torch.cat(logits),
            gates=(),
            macs=torch.tensor(macs, dtype=torch.float64, device=images.device),
        )


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> Tensor:
        return self.function(images)


def set_mode(model: nn.Module, mode: bool) -> None:
    """``model.train(mode)``; exported graphs refuse that: theirs is fixed."""
    try:
        model.train(mode)
    except NotImplementedError:
        model.training = mode
        for child in model.children():
            set_mode(child, mode)


def _expect_seen(model: nn.Module, name: str) -> None:
    """Refuse TorchScript whose convolutions pass torch's dispatcher, and so the counter, by.

    Raises:
        UsageError: with the remedy.
    """
    graphs = [part.graph for part in model.modules() if isinstance(part, torch.jit.ScriptModule)]
    if any(graph.findAllNodes("prim::mkldnn_convolution", True) for graph in graphs[:1]):
        raise UsageError(
            f"{name} was made by torch.jit.optimize_for_inference, whose convolutions no counter "
            "sees: score what torch.jit.script or torch.jit.freeze gave, which multiplies as much"
        )


def _classes(model: nn.Module, input_shape: tuple[int, ...], name: str) -> int:
    """How many classes the logits of a model tell, by one grey image.

    Raises:
        UsageError: where it gives no plain logits, with the remedy.
    """
    grey = blank(model, (1, *input_shape))
    if grey.is_meta:
        raise UsageError(without_numbers(name))
    try:
        with torch.no_grad():
            logits = model(grey)
    except EffattackError:
        raise
    except Exception as error:  # whatever a user's model raises
        raise UsageError(
            f"{name} does not run on one image, {tuple(grey.shape)} in {grey.dtype} "
            f"({first_line(error)}): correct input_shape; a model that was exported or compiled "
            "for batches of another size needs a dynamic batch dimension"
        ) from error
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        hint = f" ({ONE_LOGIT})" if found == (1,) else ""
        raise UsageError(
            f"Opaque needs a model that returns plain logits (B, classes), not {found}: wrap "
            f"it in a module whose forward returns the logits only{hint}"
        )
    if logits.shape[1] == 1:
        raise UsageError(f"{name} has one class: {ONE_LOGIT}")
    return logits.shape[1]


def _takes_two(model: nn.Module, input_shape: tuple[int, ...]) -> bool:
    """Whether a model takes more than one image at once: exported ones may be fixed to one."""
    try:
        with torch.no_grad():
            return len(model(blank(model, (2, *input_shape)))) == 2
    except Exception:  # whatever a user's model raises
        return False


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
    ``victim.trace(image).macs``: they must be equal, to the last MAC. Where a decision lies within
    rounding of its threshold (:func:`margin_slack`) and the two paths disagree, the same image is
    audited in float64; if it agrees there, or there is no such twin, the executed count stands, and
    the image is on a knife edge.

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
        if not agrees and not _on_knife_edge(victim, image, trace):
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


def in_float64(victim: Victim) -> Victim | None:
    """A copy in double precision, where rounding does not blur decisions.

    None where there is no such thing: quantized victims, models that cannot be opened, and those
    that do not compute in double precision throughout.
    """
    return None if isinstance(victim, Opaque) else twin_in_float64(victim)


def _on_knife_edge(victim: Victim, image: Tensor, trace: Trace) -> bool:
    """Whether rounding alone may be why the paths of a victim differ on an image."""
    slack = margin_slack(trace.dtype)
    near = any(bool((gate.margin.abs() <= slack)[gate.reached].any()) for gate in trace.gates)
    proxies = any(gate.proxy for gate in trace.gates)
    if trace.dtype == torch.float64 or not (near or proxies):
        return False
    if (twin := in_float64(victim)) is None:
        return near
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
