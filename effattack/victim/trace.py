"""What one forward pass decided: Gate and Trace, and Ran where an artefact tells it itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from effattack.victim.door import answered, coarsest

CAPPED = "capped"
"""In ``Trace.aux`` of a generator: (B,) bool, which texts the cap ended."""
CANDIDATES = "candidates"
"""In ``Trace.aux`` of a detector: (B, N, 4), the boxes before non-maximum suppression: left, top,
right, bottom in pixels of the image; NaN in rows that are none."""

CHOSEN_FROM = "chosen_from"
"""In ``Trace.aux``, where work is done before an answer is chosen: all members that it was chosen
from, (B, N, numbers) as the task has them, but in place of the score the log-odds by which each is
let into the answer, negative where it is not; rows that pad are -1."""


class Gate(NamedTuple):
    """One kind of input-dependent decision in one forward pass, for a batch of B inputs.

    (B, units), whoever reads it: where a path gives (B,), the victim's door makes it (B, 1).
    """

    name: str
    """``"blocks.3.tokens"``, ``"exits.1"``, ``"saver"``."""
    margin: Tensor
    """(B, units): differentiable push towards "computed", in [-1, 1] where reached; where
    ``pushed``, everywhere."""
    active: Tensor
    """Same shape, bool: the decision; computed or not, upstream decisions included."""
    reached: Tensor
    """Same shape, bool: whether this decision was evaluated at all."""
    cost: Tensor | float
    """MACs that opening one unit makes possible, downstream included: a weight for attacks."""
    proxy: bool = False
    """True where the sign of ``margin`` is not the decision; else they agree where reached."""
    pushed: bool = False
    """Margins count where the decision was not reached, too, as those of stages in a row do: every
    stage gives an answer, and pushed only once it is reached, a later one pulls the earlier ones
    shut again."""


class Trace(NamedTuple):
    """What one forward pass decided, for a batch of B inputs."""

    logits: Tensor
    """(B, classes), from the hard decisions, differentiable in the input; for tasks other than
    ``Classes`` what the task reads answers from."""
    gates: tuple[Gate, ...]
    """Every input-dependent decision, in the order of evaluation."""
    macs: Tensor
    """(B,) float64: executed MACs in closed form from the decisions."""
    stage_logits: Tensor | None = None
    """(B, stages, classes): every exit, saver and base, whether taken or not."""
    aux: dict[str, Tensor] = {}
    """What a paper's own loss needs beside the gates (CLS attention, halting scores)."""
    also: Mapping[str, Tensor] = {}
    """(B,) float64 each, by the names of ``Victim.counts``: work that is no MAC."""
    slack: Tensor | None = None
    """(B,): the smallest distance of any hard choice to its tie, in units of margins, those without
    a gate included (which token, which box); beside the margins, it tells knife edges."""
    stages: Mapping[str, Tensor] = {}
    """(B,) float64 each, by name and in their order: how ``macs`` part into stages, whose sum they
    are; of victims that tell it."""
    dtype: torch.dtype | None = None
    """The coarsest precision that it was computed in; the victim's door tells it, not you."""


class Ran(NamedTuple):
    """What an artefact did with one input, by its own record: no counter sees into it."""

    outputs: Tensor
    """(1, classes), or other outputs, as the task has them."""
    macs: float
    """Executed; NaN where it does not tell."""
    counts: Mapping[str, float] = {}
    """By the names of ``Victim.counts``."""
    decisions: Mapping[str, Tensor] = {}
    """Gate name -> (units,) bool; of the gates that it shows."""
    as_twin: bool | None = None
    """Whether its twin takes the same decisions and gives the same answer; None without a twin."""
    capped: bool | None = None
    """Whether the cap ended the text that was written, where the victim tells."""


def as_answered(trace: Trace, weights: torch.dtype, inputs: torch.dtype) -> Trace:
    """A trace in the precision of the inputs, which tells what it was computed in."""
    said = [trace.logits, *(gate.margin for gate in trace.gates)]
    floats = [t.dtype for t in said if isinstance(t, Tensor) and t.is_floating_point()]
    return trace._replace(
        logits=answered(trace.logits, inputs),
        gates=tuple(_widened(g._replace(margin=answered(g.margin, inputs))) for g in trace.gates),
        stage_logits=answered(trace.stage_logits, inputs),
        aux={key: answered(value, inputs) for key, value in trace.aux.items()},
        dtype=coarsest(trace.dtype or weights, weights, *floats),
    )


def _widened(gate: Gate) -> Gate:
    """(B,) -> (B, 1): units have a dimension of their own."""
    fields = ("margin", "active", "reached", *(["cost"] if _is_flat(gate.margin) else []))
    flat = {name: getattr(gate, name) for name in fields}
    return gate._replace(**{name: v[:, None] for name, v in flat.items() if _is_flat(v)})


def _is_flat(value: object) -> bool:
    return isinstance(value, Tensor) and value.dim() == 1
