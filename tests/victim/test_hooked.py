"""A user's own model under hooks: its margins, costs and MACs, and what is said of wrong ones."""

from __future__ import annotations

import copy
from collections.abc import Callable
from math import log, sqrt
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toys import grey_images

from effattack import Decision, Hooked, Trace, Victim, audit
from effattack.attacks import Slowdown
from effattack.counting.macs import count_macs
from effattack.domains import Series
from effattack.domains.tokens import Tokens
from effattack.errors import AuditError, ContractError, GradientError, UsageError
from effattack.models_zoo import load
from effattack.models_zoo.digits import digits
from effattack.victim.checks import INVARIANTS, Check
from effattack.victim.digests import victim_digest
from effattack.victim.hooked import above, below, confidence, entropy, kept, lead

SHAPE = (1, 4, 4)
SURE = 0.8


class Loop(nn.Module):
    """Three linear stages and exits: 16 x 8 + 2 x 8 x 8 MACs of stages, 8 x 2 of each exit."""

    def __init__(self, sure: float = SURE) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stages = nn.ModuleList(nn.Linear(width, 8) for width in (16, 8, 8))
        self.exits = nn.ModuleList(nn.Linear(8, 2) for _ in range(3))
        for leave in self.exits:
            nn.init.normal_(leave.weight, std=2)
        self.sure = sure
        self.unused = 0.5
        self.many = [sure, sure]

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1) - 0.5
        for stage, leave in zip(self.stages, self.exits, strict=True):
            x = stage(x)
            logits = leave(x)
            if logits.softmax(1).max() > self.sure:
                break
        return logits

    def answers(self, x: Tensor) -> Tensor:
        """(B, 3, 2): of every exit."""
        x, found = x.flatten(1) - 0.5, []
        for stage, leave in zip(self.stages, self.exits, strict=True):
            x = stage(x)
            found.append(leave(x))
        return torch.stack(found, dim=1)


def exits(sure: float = SURE, **changes: Any) -> list[Decision]:
    told = {"tensor": "exits.{}", "rule": above(sure, confidence), "threshold": "sure", **changes}
    tensor = told.pop("tensor")
    return [Decision(f"exits.{k}", tensor.format(k), **told) for k in range(2)]


def looped() -> Hooked:
    return Hooked(Loop(), exits(), SHAPE)


class Dropping(nn.Module):
    """Four tokens of four pixels; those whose sum is small leave before a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.tokens, self.body, self.head = nn.Identity(), nn.Linear(4, 8), nn.Linear(8, 2)
        self.register_buffer("keep", torch.tensor([0.0, 2.001]))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.tokens(x.flatten(1).unflatten(1, (4, 4)))
        tokens = tokens[:, tokens[0].sum(1) > self.keep[1]]
        return self.head(self.body(tokens).sum(1))


def dropping() -> Hooked:
    rule = below(2.001, lambda tokens: tokens.sum(2))
    return Hooked(Dropping(), [Decision("tokens", "tokens", rule, "keep.1")], SHAPE)


IMAGES = grey_images(24, seed=1)


def test_gates_of_a_loop_are_those_of_its_answers() -> None:
    """With two classes z1, z2 and d = |z1 - z2|, the top log-odds are d and the spread d / √2."""
    model = Loop()
    victim = Hooked(model, exits(), SHAPE)
    trace = victim.trace(IMAGES)
    gaps = (model.answers(IMAGES) @ torch.tensor([1.0, -1.0])).abs()
    doubt = log(SURE / (1 - SURE)) - gaps
    onward = doubt[:, :2] > 0
    for k, gate in enumerate(trace.gates):
        excess = doubt[:, k]
        margin = excess / (gaps[:, k] / sqrt(2) + excess.abs())
        torch.testing.assert_close(gate.margin, margin[:, None])
        assert torch.equal(gate.active, onward[:, : k + 1].all(1, keepdim=True))
        assert torch.equal(gate.reached, onward[:, :k].all(1, keepdim=True))
    assert [gate.pushed for gate in trace.gates] == [False, True]
    first, second = onward[:, 0], onward.all(1)
    assert 0 < second.sum() < first.sum() < len(first), "all ways are tried"
    assert torch.equal(trace.macs, 144 + 80 * first.double() + 80 * second.double())
    torch.testing.assert_close(trace.stage_logits, model.answers(IMAGES))


def test_costs_and_the_most_work_are_measured_by_forcing() -> None:
    victim = looped()
    assert victim.max_macs == 144 + 80 + 80
    assert [gate.cost for gate in victim.trace(IMAGES[:1]).gates] == [160, 80]


def test_without_a_threshold_costs_are_those_of_the_spared() -> None:
    spares = {"exits.0": ["stages.1", "exits.1"], "exits.1": ["stages.2", "exits.2"]}
    victim = Hooked(Loop(), exits(threshold=None), SHAPE, spares=spares, trial=IMAGES)
    trace, by_forcing = victim.trace(IMAGES), looped().trace(IMAGES)
    assert [gate.cost for gate in trace.gates] == [80, 80]
    assert victim.max_macs == 144 + 80 + 80
    assert torch.equal(trace.macs, by_forcing.macs)
    assert torch.equal(trace.gates[1].active, by_forcing.gates[1].active)


def test_units_are_tokens() -> None:
    victim = dropping()
    trace = victim.trace(IMAGES)
    sums = IMAGES.flatten(1).unflatten(1, (4, 4)).sum(2)
    (gate,) = trace.gates
    assert torch.equal(gate.active, sums > 2.001)
    torch.testing.assert_close(gate.margin, (sums - 2.001) / (2.001 + (sums - 2.001).abs()))
    assert torch.equal(trace.macs, gate.active.sum(1) * 32.0 + 16)
    assert (victim.max_macs, gate.cost) == (4 * 32 + 16, 32)


def test_tokens_that_left_are_units_not_reached() -> None:
    """Those that stay move up: unit j of the second gate is the j-th of those kept."""

    class Twice(Dropping):
        def __init__(self) -> None:
            super().__init__()
            self.late = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.tokens(x.flatten(1).unflatten(1, (4, 4)))
            tokens = self.late(tokens[:, tokens[0].sum(1) > 2.001])
            return self.head(self.body(tokens[:, tokens[0, :, 0] > 0.501]).sum(1))

    decisions = [
        Decision("tokens", "tokens", below(2.001, lambda tokens: tokens.sum(2))),
        Decision("late", "late", below(0.501, lambda tokens: tokens[:, :, 0])),
    ]
    spares = {"tokens": ["body"], "late": ["body"]}
    victim = Hooked(Twice(), decisions, SHAPE, spares=spares, max_macs=144)
    first, late = victim.trace(IMAGES).gates
    tokens = IMAGES.flatten(1).unflatten(1, (4, 4))
    left = tokens.sum(2) > 2.001
    assert torch.equal(late.reached.sum(1), left.sum(1))
    assert torch.equal(late.active.sum(1), (left & (tokens[:, :, 0] > 0.501)).sum(1))
    assert not late.reached.int().diff(dim=1).gt(0).any(), "filled up at the end"
    assert torch.equal(first.active, left)


def test_what_is_kept_may_be_ranked() -> None:
    """The louder half stays; the margin is a proxy, as far as one is above the mean."""

    class Ranked(Dropping):
        def forward(self, x: Tensor) -> Tensor:
            tokens = self.tokens(x.flatten(1).unflatten(1, (4, 4)))
            return self.head(self.body(tokens[:, louder(tokens)[0]]).sum(1))

    def louder(tokens: Tensor) -> Tensor:
        return push(tokens) > 0

    def push(tokens: Tensor) -> Tensor:
        return tokens.sum(2) - tokens.sum(2).mean(1, keepdim=True)

    decision = Decision("tokens", "tokens", kept(louder, push))
    with pytest.raises(UsageError, match="what it saves is not known"):
        Hooked(Ranked(), [decision], SHAPE)
    spares = {"tokens": ["body"]}
    victim = Hooked(Ranked(), [decision], SHAPE, spares=spares, max_macs=144)
    (gate,) = victim.trace(IMAGES).gates
    assert gate.proxy
    assert torch.equal(gate.active, louder(IMAGES.flatten(1).unflatten(1, (4, 4))))
    assert audit(victim, IMAGES).macs.max() <= 144


@pytest.mark.parametrize(("measure", "threshold"), [(entropy, 0.3), (lead, 0.7), (confidence, 0.9)])
@pytest.mark.parametrize("side", [above, below])
def test_rules_decide_as_written(
    measure: Callable[[Tensor], Tensor], threshold: float, side: Callable[..., Any]
) -> None:
    logits = torch.randn(500, 5, generator=torch.Generator().manual_seed(0)) * 4
    margin, active = side(threshold, measure).decide(logits)
    saves = measure(logits) > threshold if side is above else measure(logits) < threshold
    assert torch.equal(active, ~saves)
    assert torch.equal(margin > 0, active)
    assert margin.abs().max() <= 1


def test_measures_are_the_textbook_ones() -> None:
    p = torch.tensor([[0.5, 0.25, 0.25]])
    assert confidence(p.log()).item() == pytest.approx(0.5)
    assert lead(p.log()).item() == pytest.approx(0.25)
    assert entropy(p.log()).item() == pytest.approx(1.5 * log(2))


@pytest.mark.parametrize("make", [looped, dropping], ids=lambda make: make.__name__)
@pytest.mark.parametrize("check", INVARIANTS, ids=lambda check: check.__name__)
def test_a_hooked_model_keeps_the_contract(make: Callable[[], Victim], check: Check) -> None:
    assert check(make(), IMAGES[:8]) == []


@pytest.mark.parametrize("make", [looped, dropping], ids=lambda make: make.__name__)
def test_the_model_is_left_as_it_was(make: Callable[[], Hooked]) -> None:
    victim = make()
    before = victim_digest(victim)
    victim.trace(IMAGES)
    assert victim_digest(victim) == before
    assert not any(module._forward_hooks for module in victim.model.modules())
    twin = copy.deepcopy(victim)
    assert torch.equal(twin.trace(IMAGES).macs, victim.trace(IMAGES).macs)


def test_the_threshold_is_put_back_after_an_error() -> None:
    class Breaking(Loop):
        broken = False

        def forward(self, x: Tensor) -> Tensor:
            if self.broken and self.sure > 1:
                raise ZeroDivisionError
            return super().forward(x)

    model = Breaking()
    victim = Hooked(model, exits(), SHAPE)
    model.broken = True
    with pytest.raises(ZeroDivisionError):
        victim.trace(IMAGES)
    assert model.sure == SURE
    assert not any(module._forward_hooks for module in model.modules())


def test_thresholds_of_every_kind_are_set_and_put_back() -> None:
    for held in (SURE, torch.tensor(SURE), nn.Parameter(torch.tensor(SURE))):
        model = Loop()
        del model.sure
        model.sure = held
        victim = Hooked(model, exits(), SHAPE)
        assert victim.max_macs == 304
        assert model.sure is held


def test_a_series_is_hooked_as_an_image_is() -> None:
    series = Series(1, 16, -1.0, 1.0, 0.01)
    victim = Hooked(Loop(), exits(), domain=series)
    batch = series.snap(torch.rand(6, 1, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1)
    assert audit(victim, batch).macs.max() <= victim.max_macs


def test_tokens_have_no_gradient_to_read() -> None:
    with pytest.raises(UsageError, match=r"subclass effattack\.Victim"):
        Hooked(Loop(), exits(), domain=Tokens(10, 16))


class Detached(Loop):
    """Its exits are computed without gradients."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return super().forward(x)


class Shared(Loop):
    """One exit for all stages."""

    def __init__(self) -> None:
        super().__init__()
        self.exits = nn.ModuleList([self.exits[0]] * 3)


class Pairs(Loop):
    """Its exits answer with tuples."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        self.pair((x, x))
        return super().forward(x)


class Early(Loop):
    """Reads its threshold before it runs: who sets it later is too late, but for the first."""

    def forward(self, x: Tensor) -> Tensor:
        sure, x = self.sure, x.flatten(1) - 0.5
        for stage, leave in zip(self.stages, self.exits, strict=True):
            x = stage(x)
            logits = leave(x)
            if logits.softmax(1).max() > sure:
                break
        return logits


ALWAYS = {"exits.0": ["stages.1", "stages.0"]}

WRONG: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "no such module": (
        lambda: Hooked(Loop(), exits(tensor="exit.{}"), SHAPE),
        UsageError,
        r"unknown module of Loop 'exit.0': did you mean exits.0",
    ),
    "no such attribute": (
        lambda: Hooked(Loop(), exits(threshold="shure"), SHAPE),
        UsageError,
        "unknown threshold 'shure': did you mean sure",
    ),
    "no such item": (
        lambda: Hooked(Loop(), exits(threshold="many.7"), SHAPE),
        UsageError,
        "unknown threshold 'many.7': did you mean many.[01]",
    ),
    "no number": (
        lambda: Hooked(Loop(), exits(threshold="many"), SHAPE),
        UsageError,
        "'many' is a list, not a number: name one, such as 'many.0'",
    ),
    "another threshold": (
        lambda: Hooked(Loop(0.7), exits(), SHAPE),
        UsageError,
        r"sure is 0.7, but its rule says above\(0.8, confidence\)",
    ),
    "no threshold": (
        lambda: Hooked(Loop(), exits(0.5, threshold="unused"), SHAPE),
        UsageError,
        "exits.0: setting unused changes nothing, 224 MACs either way",
    ),
    "read too early": (
        lambda: Hooked(Early(), exits(), SHAPE),
        UsageError,
        "setting sure changes nothing",
    ),
    "the wrong way round": (
        lambda: Hooked(Loop(), exits(rule=below(SURE, confidence)), SHAPE),
        UsageError,
        "executes 224 MACs there and 144 elsewhere: swap above and below",
    ),
    "another shape": (
        lambda: Hooked(Loop(), exits(rule=above(SURE, lambda x: x[:, :, None])), SHAPE),
        UsageError,
        r"exits.0 gives \(1, 2\), which its rule cannot read",
    ),
    "no tensor": (
        lambda: Hooked(Pairs(), exits(tensor="pair"), SHAPE),
        UsageError,
        r"pair gives a tuple, no tensor: say which, tensor=\('pair', lambda",
    ),
    "no gradient": (
        lambda: Hooked(Detached(), exits(), SHAPE),
        GradientError,
        "decision exits.0: no gradient from exits.0 reaches the input",
    ),
    "twice": (
        lambda: Hooked(Shared(), exits(), SHAPE),
        ContractError,
        "exits.[01] runs more than once in one pass",
    ),
    "names twice": (
        lambda: Hooked(Loop(), exits()[:1] * 2, SHAPE),
        UsageError,
        "each with a name of its own",
    ),
    "no module": (
        lambda: Hooked(lambda x: x, exits(), SHAPE),  # type: ignore[arg-type]
        UsageError,
        "wrap what has none as effattack.Opaque",
    ),
    "spares nothing known": (
        lambda: Hooked(Loop(), exits(), SHAPE, spares={"exits.0": ["stage.1"]}),
        UsageError,
        "unknown module of Loop 'stage.1': did you mean stages.1",
    ),
    "spares of no decision": (
        lambda: Hooked(Loop(), exits(), SHAPE, spares={"exit": ["stages.1"]}),
        UsageError,
        "unknown decision in spares 'exit'",
    ),
    "spares what never runs": (
        lambda: Hooked(
            Loop(0.5),
            exits(0.5, threshold=None)[:1],
            SHAPE,
            spares={"exits.0": ["stages.1"]},
        ),
        UsageError,
        "stages.1 multiplies nothing on 4 trial inputs",
    ),
    "spares what always runs": (
        lambda: Hooked(Loop(), exits(threshold=None)[:1], SHAPE, spares=ALWAYS, trial=IMAGES),
        UsageError,
        "decision exits.0 saves, but stages.0, which it is to spare, runs",
    ),
    "spares what always runs, by force": (
        lambda: Hooked(Loop(), exits(), SHAPE, spares=ALWAYS),
        UsageError,
        "decision exits.0 saves, but stages.0, which it is to spare, runs",
    ),
    "spares as text": (
        lambda: Hooked(Loop(), exits(), SHAPE, spares={"exits.0": "stages.1"}),
        UsageError,
        "give the dotted names of modules by decision",
    ),
    "spares as a list": (
        lambda: Hooked(Loop(), exits(), SHAPE, spares=["stages.1"]),  # type: ignore[arg-type]
        UsageError,
        "give the dotted names of modules by decision",
    ),
    "names for decisions": (
        lambda: Hooked(Loop(), ["exits.0"], SHAPE),  # type: ignore[list-item]
        UsageError,
        r"decisions = \['exits.0'\]: give a list, \[effattack.Decision",
    ),
    "a module for its name": (
        lambda: Decision("exit", Loop().exits[0], above(SURE, confidence)),  # type: ignore[arg-type]
        UsageError,
        "decision 'exit': tensor = Linear.*give names",
    ),
    "a number for an attribute": (
        lambda: Decision("exit", "exits.0", above(SURE, confidence), SURE),  # type: ignore[arg-type]
        UsageError,
        "threshold = 0.8: give names",
    ),
    "a function for a rule": (
        lambda: Decision("exit", "exits.0", confidence),  # type: ignore[arg-type]
        UsageError,
        "give one of effattack.victim.hooked, such as above",
    ),
    "above the wrong way round": (
        lambda: above(confidence, SURE),  # type: ignore[arg-type]
        UsageError,
        "give a number and a function of the tensor",
    ),
    "an attribute of a number": (
        lambda: Hooked(Loop(), exits(threshold="sure.value"), SHAPE),
        UsageError,
        "unknown threshold 'sure.value': known: none",
    ),
    "an attribute too deep": (
        lambda: Hooked(Loop(), exits(threshold="config.sure"), SHAPE),
        UsageError,
        "unknown threshold 'config.sure': did you mean sure",
    ),
    "a row of a tensor": (
        lambda: Hooked(Loop(), exits(threshold="stages.0.weight.0"), SHAPE),
        UsageError,
        "is a Tensor, not a number: name one, such as 'stages.0.weight.0.0'",
    ),
    "a measure that fails": (
        lambda: Hooked(Loop(), exits(rule=above(SURE, lambda x: x.nothing)), SHAPE),
        UsageError,
        "which its rule cannot read.*no attribute 'nothing'",
    ),
    "a mask of numbers": (
        lambda: Hooked(
            Loop(),
            exits(threshold=None, rule=kept(lambda x: x, lambda x: x))[:1],
            SHAPE,
            spares={"exits.0": ["stages.1"]},
            trial=IMAGES,
        ),
        UsageError,
        "decisions in torch.float32, not torch.bool",
    ),
    "a number for macs": (
        lambda: Hooked(Loop(), exits(), SHAPE, macs=224),  # type: ignore[arg-type]
        UsageError,
        "macs = 224: give a function",
    ),
    "a name for a domain": (
        lambda: Hooked(Loop(), exits(), domain="series"),  # type: ignore[arg-type]
        ContractError,
        "domain = 'series': give an effattack Domain",
    ),
    "a batch for an image": (
        lambda: Hooked(Loop(), exits(), (1, *SHAPE)),
        UsageError,
        r"the shape of an image is \(1, 1, 4, 4\): give \(C, H, W\)",
    ),
    "another input": (
        lambda: Hooked(Loop(), exits(), (1, 5, 5)),
        UsageError,
        r"does not run on one input, \(1, 1, 5, 5\).* see input_shape",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_does_not_fit_is_named(wrong: str) -> None:
    make, error, message = WRONG[wrong]
    with pytest.raises(error, match=message):
        make()


def test_one_decision_needs_no_list() -> None:
    alone, listed = (Hooked(Loop(), given, SHAPE) for given in (exits()[0], exits()[:1]))
    assert alone.decisions == listed.decisions
    assert torch.equal(alone.trace(IMAGES).macs, listed.trace(IMAGES).macs)


def test_what_is_spared_and_runs_is_named_where_no_trial_input_saves() -> None:
    decisions = exits(threshold=None)[:1]
    plain = Hooked(Loop(), decisions, SHAPE, spares={"exits.0": ["stages.1"]}, trial=IMAGES)
    onward = IMAGES[plain.trace(IMAGES).gates[0].active[:, 0]]
    assert 0 < len(onward) < len(IMAGES)
    victim = Hooked(Loop(), decisions, SHAPE, spares=ALWAYS, trial=onward)
    with pytest.raises(UsageError, match=r"exits.0 saves, but stages.0, which it is to spare"):
        victim.trace(IMAGES)


def test_a_rule_that_the_model_does_not_follow_is_named() -> None:
    model = Loop()
    victim = Hooked(model, exits(), SHAPE)
    model.exits[0].register_forward_hook(lambda module, inputs, output: output / 100)
    with pytest.raises(ContractError, match=r"exits.0: by its rule the model stops, but it went"):
        victim.trace(IMAGES)


class Fickle(Loop):
    """Looks twice at dark images, which no decision tells."""

    def forward(self, x: Tensor) -> Tensor:
        if x.mean() < 0.5:
            self.stages[0](x.flatten(1))
        return super().forward(x)


def fickle_macs(trace: Trace) -> Tensor:
    opened = torch.cat([gate.active for gate in trace.gates], dim=1).sum(1)
    return 144.0 + 80 * opened + 128 * DARK


DARK = IMAGES.flatten(1).mean(1) < 0.5


def test_where_decisions_do_not_fix_the_macs_they_are_asked_for() -> None:
    assert 0 < DARK.sum() < len(DARK)
    with pytest.raises(ContractError, match=r"executed \d+ and \d+ MACs.*Hooked\(\.\.\., macs="):
        Hooked(Fickle(), exits(), SHAPE).trace(IMAGES)
    victim = Hooked(Fickle(), exits(), SHAPE, macs=fickle_macs)
    counted = [count_macs(victim, image) for image in IMAGES.split(1)]
    assert victim.trace(IMAGES).macs.tolist() == counted


def test_every_row_is_counted_whatever_the_table_says() -> None:
    victim = Hooked(Fickle(), exits(), SHAPE)
    bright, dark = IMAGES[~DARK], IMAGES[DARK]
    victim.trace(bright)
    with pytest.raises(AuditError, match=r"do not fix its MACs: give Hooked"):
        audit(victim, dark)
    wrong = Hooked(Loop(), exits(), SHAPE, macs=lambda trace: 1 + trace.macs.nan_to_num(143))
    with pytest.raises(AuditError, match="correct the function macs of the trace"):
        audit(wrong, IMAGES)


@pytest.mark.slow
def test_a_hooked_loop_is_attacked_as_well_as_one_taken_apart() -> None:
    by_hand: Any = load("digits_cnn_early_exit")
    sure = by_hand.criterion.at(0)
    model = Loop(sure)
    model.stages, model.exits = by_hand.stages, by_hand.heads
    model.forward = branchy.__get__(model)  # type: ignore[method-assign]
    decisions = [
        Decision(f"exits.{k}", f"exits.{k}", above(sure, confidence), "sure") for k in range(3)
    ]
    hooked = Hooked(model, decisions, by_hand.input_shape)
    images, labels = digits("test")
    gained = []
    for victim in (by_hand, hooked):
        attacked = Slowdown(victim, steps=10)(images[:6], labels[:6])
        gained.append((victim.trace(attacked).macs - victim.trace(images[:6]).macs).sum())
    assert gained[1] >= 0.95 * gained[0] > 0


def branchy(self: Loop, x: Tensor) -> Tensor:
    for stage, leave in zip(self.stages, self.exits, strict=True):
        x = stage(x)
        logits = leave(x)
        if logits.softmax(1).max() > self.sure:
            break
    return logits
