"""One run of a user's model on one input, its compared tensors read, some decisions forced."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

from torch import Tensor, nn

from effattack.errors import ContractError, UsageError
from effattack.victim.hooked.decision import Attribute, Decision


class Pass(NamedTuple):
    """What one run did."""

    logits: Tensor
    """(1, classes), or what another task reads answers from."""
    tensors: dict[str, Tensor]
    """By the names of the decisions that were reached, in the order of evaluation: what was
    compared."""


def run(
    model: nn.Module,
    image: Tensor,
    decisions: Sequence[Decision],
    forced: Mapping[str, float] | None = None,
) -> Pass:
    """Run a model on one input (1, *input_shape).

    A decision is forced as soon as the tensor that it compares is there, so that several may share
    one attribute. Hooks and attributes are taken back whatever happens.

    Args:
        model: in eval mode.
        image: one input.
        decisions: to be watched.
        forced: names of decisions with a ``threshold`` -> what to set it to.

    Raises:
        UsageError: if the answer is no plain logits.
        ContractError: if a watched module runs twice.
    """
    forced = forced or {}
    tensors: dict[str, Tensor] = {}
    with ExitStack() as stack:
        held: dict[str, Attribute] = {}
        for decision in decisions:
            path = decision.threshold
            if path is not None and decision.name in forced and path not in held:
                held[path] = Attribute(model, path)
                stack.callback(held[path].restore)
                held[path].set(forced[decision.name])
        for decision in reversed(decisions):  # each hook goes before those that are there
            attribute = held.get(decision.threshold or "")
            seeing = _seeing(decision, tensors, attribute, forced.get(decision.name))
            module = model.get_submodule(decision.module)
            stack.callback(module.register_forward_hook(seeing, prepend=True).remove)
        return Pass(answer(model, image), tensors)


def answer(model: nn.Module, image: Tensor) -> Tensor:
    """What a model says of one input: the tensor (1, ...) that it returns, or its ``logits``.

    Raises:
        UsageError: if that is none.
    """
    returned = model(image.clone())
    logits = getattr(returned, "logits", returned)
    if not isinstance(logits, Tensor) or logits.shape[:1] != (1,):
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UsageError(
            f"{type(model).__name__} answers one input with {found}: return plain logits "
            "(1, classes), or an object that has them as .logits"
        )
    return logits


def _seeing(
    decision: Decision,
    tensors: dict[str, Tensor],
    attribute: Attribute | None,
    force: float | None,
) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
    def seen(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if decision.name in tensors:
            raise ContractError(
                f"decision {decision.name}: {decision.module} runs more than once in one pass: "
                "name a module that runs once, such as an nn.Identity where the tensor is compared"
            )
        tensors[decision.name] = decision.read(module, inputs, output)
        if attribute is not None:
            attribute.restore() if force is None else attribute.set(force)

    return seen
