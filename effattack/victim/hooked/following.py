"""What a model does with one input, and what it hides by that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from effattack.errors import ContractError
from effattack.victim.hooked.decision import Decision, openings
from effattack.victim.hooked.learning import Learnt
from effattack.victim.hooked.passes import Pass, run
from effattack.victim.hooked.rules import Decided
from effattack.victim.rounding import margin_slack


class Followed(NamedTuple):
    """One input (1, *input_shape)."""

    passed: Pass
    """As the model takes it."""
    opened: Pass
    """The same, with everything that can be forced open; ``passed`` where that shows no more."""
    decided: dict[str, Decided]
    """By decision, those included that only ``opened`` reached."""

    def reached(self, name: str) -> bool:
        """Whether the model took a decision."""
        return name in self.passed.tensors

    def open_units(self, name: str) -> int:
        """How many units of a decision are computed."""
        return int(self.decided[name].active.sum()) if self.reached(name) else 0

    def gate(self, name: str, units: int) -> tuple[Tensor, Tensor, Tensor]:
        """Margin, active and reached of a decision, (1, units) each, filled up.

        Raises:
            ContractError: for more units than trial inputs had.
        """
        if name not in self.decided:
            margin = self.passed.logits.new_zeros((1, units))
            return margin, margin > 0, margin > 0
        margin, active = self.decided[name]
        if margin.shape[1] > units:
            raise ContractError(
                f"decision {name}: {margin.shape[1]} units, {units} on trial inputs: give "
                "inputs with the most, trial=images"
            )
        fill = (0, units - margin.shape[1])
        reached = torch.full_like(active, self.reached(name))
        pad = nn.functional.pad
        return pad(margin, fill), pad(active & reached, fill), pad(reached, fill)


def follow(
    model: nn.Module,
    decisions: Sequence[Decision],
    learnt: Mapping[str, Learnt],
    image: Tensor,
    to_the_end: bool,
) -> Followed:
    """Run a model on one input; and again, forced open, where it hid decisions.

    Args:
        model: in eval mode.
        decisions: its decisions.
        learnt: what is known of them.
        image: (1, *input_shape).
        to_the_end: the last answer is wanted, too.

    Raises:
        ContractError: where a rule is not what the model does, or forcing opens nothing.
    """
    passed = run(model, image, decisions)
    forcible = openings(decisions)
    decided = _as_done(passed, _told(decisions, passed), learnt, forcible)
    hidden = frozenset().union(*(learnt[name].hides for name in passed.tensors))
    early = to_the_end and not all(each.active.all() for each in decided.values())
    if hidden <= passed.tensors.keys() and not early:
        return Followed(passed, passed, decided)
    opened = run(model, image, decisions, forcible)
    unseen = [each.name for each in decisions if each.name not in opened.tensors]
    if unseen and len(forcible) == len(decisions):
        raise ContractError(
            f"{', '.join(unseen)} cannot be reached with everything forced open: let forward read "
            "its thresholds from the model that runs, where it compares"
        )
    return Followed(passed, opened, _told(decisions, opened) | decided)


def _told(decisions: Sequence[Decision], passed: Pass) -> dict[str, Decided]:
    """What the rules say, each (1, units)."""
    rules = {decision.name: decision.rule for decision in decisions}
    told = {name: rules[name].decide(tensor) for name, tensor in passed.tensors.items()}
    return {name: Decided(*(part.view(1, -1) for part in each)) for name, each in told.items()}


def _as_done(
    passed: Pass,
    told: Mapping[str, Decided],
    learnt: Mapping[str, Learnt],
    forcible: Mapping[str, float],
) -> dict[str, Decided]:
    """The same; where what followed shows, within rounding, another decision, that one.

    Raises:
        ContractError: where it shows another one beyond rounding.
    """
    done = dict(told)
    if any(not each.active.any() for name, each in told.items() if name not in forcible):
        return done  # what that hides is not known
    for name, (margin, active) in told.items():
        hides = learnt[name].hides
        if margin.numel() > 1 or not hides or bool(hides & passed.tensors.keys()) == bool(active):
            continue
        if margin.abs().item() > margin_slack(margin.dtype):
            says, does = ("goes on", "stopped") if active else ("stops", "went on")
            raise ContractError(
                f"decision {name}: by its rule the model {says}, but it {does}: name the tensor, "
                "the measure and the threshold that it compares"
            )
        done[name] = Decided(margin - 2 * margin.detach(), ~active)
    return done
