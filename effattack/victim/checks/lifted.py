"""Gradients reach the words of a prompt, and the words read are those of its ids."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from effattack.errors import ContractError, GradientError
from effattack.victim import Trace, Victim
from effattack.victim.checks.blame import first_of, per_image
from effattack.victim.undisturbed import undisturbed


def check_lifted(victim: Victim, prompts: Tensor) -> list[str]:
    """Invariant 4 where inputs have no gradients: they reach the rows of ``victim.lift``.

    And a leaf holds what stands there: read in place of the ids, it decides nothing else.

    A victim that lifts nothing is left to queries: there, this does not apply.

    Returns:
        a warning for every gate whose gradient is zero over the whole batch.

    Raises:
        GradientError: where a gate's gradient is missing, NaN or infinite.
        ContractError: where the leaf of the prompts is another than their ids.
    """
    if not victim.lifts:
        return []
    run: Callable[..., Trace] = victim.trace
    with undisturbed(victim):
        places = torch.arange(prompts.shape[1], device=prompts.device).repeat(len(prompts), 1)
        leaf = victim.lift(prompts, places)
        rows = leaf.rows.detach().requires_grad_()
        trace = run(prompts, leaf._replace(rows=rows))
        _expect_same(victim, trace, victim.trace(prompts))
        blind = [gate.name for gate in trace.gates if not _reaches(victim, gate.name, trace, rows)]
    everything = f"all {len(prompts)} {victim.domain.nouns}"
    return [
        f"{victim.name}: the gradient from gate {name} is zero over {everything}: attacks through "
        "it are blind; bound margins without saturating them"
        for name in blind
    ]


def _reaches(victim: Victim, name: str, trace: Trace, rows: Tensor) -> bool:
    """Whether the gradient of a gate is anywhere other than zero, or there was none to take."""
    gate = next(gate for gate in trace.gates if gate.name == name)
    gradient = None
    if gate.margin.requires_grad:
        pushed = (gate.margin * gate.reached).sum()
        gradient = torch.autograd.grad(pushed, rows, retain_graph=True, allow_unused=True)[0]
    if gradient is None:
        raise GradientError(
            f"{victim.name}: no gradient from gate {name} reaches the words: compute it in "
            "trace(batch, leaf) from leaf.rows, without detach or no_grad"
        )
    if not torch.isfinite(gradient).all():
        index = first_of(~torch.isfinite(gradient))
        raise GradientError(
            f"{victim.name}: {victim.domain.noun} {index}: the gradient from gate {name} is NaN or "
            "infinite: look for 0 * log 0, a norm at 0 or a division by 0 in trace()"
        )
    return bool(gradient.any()) or not bool(gate.reached.any())


def _expect_same(victim: Victim, lifted: Trace, plain: Trace) -> None:
    differ = lifted.macs != plain.macs
    for gate, other in zip(lifted.gates, plain.gates, strict=True):
        differ = differ | per_image(gate.active != other.active).any(1)
    if differ.any():
        raise ContractError(
            f"{victim.name}: {victim.domain.noun} {first_of(differ)}: trace decides something else "
            "when it reads the words that lift gave for the same ids: let lift return the rows of "
            "the embedding, before positions or norms, and trace put them in leaf.places"
        )
