"""Every victim keeps the contract, and each check catches the victim that breaks it.

Every registered victim of the zoo is put through all of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache, partial
from importlib.metadata import entry_points
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from toys import LinearSaver, embedded_or_skip, grey_images, noise_images

from effattack.domains import Arrays, Pixels
from effattack.domains.pixels import to_grid
from effattack.errors import AuditError, ContractError, GradientError
from effattack.inputs.source import load_data
from effattack.models_zoo import digits
from effattack.tasks import Classes
from effattack.victim import Gate, Opaque, Trace, Victim, audit
from effattack.victim import checks as contract
from effattack.victim.checks import INVARIANTS, Check

VICTIMS: dict[str, Callable[[], Victim]] = {
    **{
        entry.name: partial(embedded_or_skip, entry.name)
        for entry in entry_points(group="effattack.victims")
        if entry.value.startswith("effattack.models_zoo.")
    },
    "toy": LinearSaver,
    "opaque": lambda: Opaque(LinearSaver(), (1, 4, 4)),
}

every_check = pytest.mark.parametrize("check", INVARIANTS, ids=lambda check: check.__name__)
every_victim = pytest.mark.parametrize("name", VICTIMS)


@cache
def made(name: str) -> Victim:
    return VICTIMS[name]()


def natural_images(victim: Victim, count: int, first: int = 0) -> Tensor:
    """Digits where they fit, grey noise elsewhere; where nothing is to be found in noise, or it is
    no input, a victim's own."""
    if victim.input_shape == digits.SHAPE:
        return digits.digits("test")[0][first : first + count]
    if victim.family == "detection" or not isinstance(victim.domain, Arrays):
        own = load_data(None, victim)[0]
        return own[torch.arange(first, first + count) % len(own)]
    return grey_images(count, seed=first, shape=victim.input_shape)


def test_all_victims_of_the_zoo_are_checked() -> None:
    assert {"digits_vit_ats", "digits_cnn_early_exit"} <= VICTIMS.keys()
    assert {"digits_tinysaver_cascade", "digits_vit_int8"} <= VICTIMS.keys()


@every_victim
@every_check
def test_victim_keeps_the_contract(name: str, check: Check) -> None:
    victim = made(name)
    assert check(victim, natural_images(victim, 8)) == []


@every_victim
@given(
    seed=st.integers(0, 2**31),
    first=st.integers(0, 200),
    blend=st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0]),
)
@settings(max_examples=4, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@pytest.mark.slow
def test_victim_keeps_the_contract_on_any_image(
    name: str, seed: int, first: int, blend: float
) -> None:
    victim = made(name)
    if not isinstance(victim.domain, Arrays):
        pytest.skip(f"{name} takes {victim.domain.nouns}, which do not blend")
    noise = noise_images(3, seed, victim.input_shape)
    images = to_grid(natural_images(victim, 3, first) * (1 - blend) + noise * blend)
    for check in INVARIANTS:
        check(victim, images)


Edit = Callable[[Trace], Trace]


def with_trace(edit: Edit) -> Victim:
    """The toy whose trace is edited before it is returned."""

    class Edited(LinearSaver):
        def trace(self, images: Tensor) -> Trace:
            return edit(super().trace(images))

    return Edited()


def with_gate(**changes: Callable[[Gate], Any]) -> Victim:
    """The toy whose gate has some fields changed."""

    def edit(trace: Trace) -> Trace:
        (gate,) = trace.gates
        return trace._replace(gates=(gate._replace(**{k: f(gate) for k, f in changes.items()}),))

    return with_trace(edit)


def shaped(shape: tuple[int, ...]) -> Pixels:
    """Images whose shape was changed behind their checks."""
    domain = Pixels((1, 4, 4))
    domain.shape = shape
    return domain


def with_attribute(name: str, value: object) -> Victim:
    victim = LinearSaver()
    setattr(victim, name, value)
    return victim


class Capped(Classes):
    """A task whose answers have one row at most."""

    cap = 1


class OtherLogits(LinearSaver):
    """The deployed path answers something else."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) + 1e-3


class OtherDecisions(LinearSaver):
    """The deployed path runs the base more often, and then ignores it."""

    def forward(self, images: Tensor) -> Tensor:
        self.base(images.flatten(1))
        return super().forward(images)


class LateRounding(LinearSaver):
    """Wrong in float64 only, by too little for float32 to tell."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) + 1e-6


class BatchStatistics(LinearSaver):
    """Decides on images that are normalised over the batch."""

    def margin(self, logits: Tensor) -> Tensor:
        return super().margin(logits - logits.mean(0))


class TogetherOrNotAtAll(LinearSaver):
    """Runs the base on the whole batch as soon as one image needs it."""

    def forward(self, images: Tensor) -> Tensor:
        x = images.flatten(1)
        logits = self.saver(x)
        onward = self.margin(logits) > 0
        return torch.where(onward[:, None], self.base(x), logits) if onward.any() else logits


class Idle(LinearSaver):
    """Multiplies nothing."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :2]

    def trace(self, images: Tensor) -> Trace:
        macs = torch.zeros(len(images), dtype=torch.float64)
        return Trace(logits=self(images), gates=(), macs=macs)


class Unseen(LinearSaver):
    """The saver runs in numpy."""

    def forward(self, images: Tensor) -> Tensor:
        weight, bias = self.saver.weight.detach().numpy(), self.saver.bias.detach().numpy()
        logits = torch.from_numpy(images.flatten(1).detach().numpy() @ weight.T + bias)
        onward = (self.margin(logits) > 0)[:, None]
        return torch.where(onward, self.base(images.flatten(1)), logits)


class NoGradient(LinearSaver):
    """Logits and margins are computed where autograd does not look."""

    def trace(self, images: Tensor) -> Trace:
        return super().trace(images.detach())


class WrongMidway(LinearSaver):
    """Puts a constant of the wrong precision into the deployed path."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward((images.float() * 1.0000001).to(images))


def infinite_slope(gate: Gate) -> Tensor:
    """The same values, with the slope of sqrt at 0."""
    return gate.margin + (gate.margin - gate.margin.detach()).sqrt()


def constant_below_max() -> Victim:
    """Never escalates, says that it is constant, and that it could be worse."""
    victim = LinearSaver(doubt=-1.0)
    victim.constant = True
    return victim


BROKEN: dict[str, tuple[Check, Callable[[], Victim], str]] = {
    "MACs off by one": (
        contract.check_macs,
        lambda: with_trace(lambda t: t._replace(macs=t.macs + 1)),
        r"toy: image 0: .*\(\+1\)",
    ),
    "max too low": (
        contract.check_macs,
        lambda: with_attribute("max_macs", 100.0),
        "executed 176 MACs, 76 more than max_macs",
    ),
    "not constant": (
        contract.check_macs,
        lambda: with_attribute("constant", True),
        "declared constant, but image .* set constant=False",
    ),
    "constant below max": (
        contract.check_macs,
        constant_below_max,
        "constant at 32 MACs, but declares max_macs = 176",
    ),
    "work unseen": (contract.check_seen, Unseen, r"toy: .*from_numpy.*declare the work by"),
    "no MACs": (contract.check_macs, Idle, "multiplies nothing"),
    "other logits": (contract.check_paths_agree, OtherLogits, r"image 0: .*differ by 0\.000\d+"),
    "other decisions": (contract.check_paths_agree, OtherDecisions, "forward executed"),
    "float64 differs": (
        contract.check_paths_agree,
        LateRounding,
        r"differ by \d.*e-07 in torch\.float64",
    ),
    "float32 constant": (contract.check_paths_agree, WrongMidway, "in torch.float64"),
    "batch statistics": (
        contract.check_batch_independence,
        BatchStatistics,
        r"gate saver: image \d+: 1 decisions \(active\) are others in a batch",
    ),
    "batch logits": (
        contract.check_batch_independence,
        lambda: with_trace(lambda t: t._replace(logits=t.logits - t.logits.mean(0))),
        "logits of trace alone and in a batch differ",
    ),
    "batch MACs": (
        contract.check_batch_independence,
        lambda: with_trace(lambda t: t._replace(macs=t.macs.mean().expand_as(t.macs))),
        "MACs in a batch and .* alone",
    ),
    "pays for its mates": (
        contract.check_batch_independence,
        TogetherOrNotAtAll,
        "MACs more on 8 images together than one by one",
    ),
    "no gradient": (contract.check_gradients, NoGradient, "no gradient from the logits"),
    "detached margin": (
        contract.check_gradients,
        lambda: with_gate(margin=lambda g: g.margin.detach()),
        "no gradient from gate saver .*without detach",
    ),
    "another gradient": (
        contract.check_gradients,
        lambda: with_gate(
            margin=lambda g: g.margin.detach() + 1e-12 * (g.margin - g.margin.detach())
        ),
        r"gate saver moved by 0\.\d+ when each pixel .* allows \d\.\de-1\d at most.*detach",
    ),
    "no slope at all": (
        contract.check_gradients,
        lambda: with_gate(margin=lambda g: g.margin.detach() + 0 * g.margin),
        "gate saver moved by .* allows 0 at most",
    ),
    "another gradient of the logits": (
        contract.check_gradients,
        lambda: with_trace(lambda t: t._replace(logits=t.logits.detach() + 1e-9 * t.logits)),
        "the logits moved by .* it is not the gradient of this value",
    ),
    "infinite gradient": (
        contract.check_gradients,
        lambda: with_gate(margin=infinite_slope),
        "the gradient from gate saver is NaN or infinite",
    ),
    "wrong sign": (
        contract.check_gates,
        lambda: with_gate(margin=lambda g: -g.margin),
        r"gate saver: image 0: its margin is up to 0\.\d+ on the wrong side",
    ),
    "unbounded": (
        contract.check_gates,
        lambda: with_gate(margin=lambda g: g.margin * 100),
        r"gate saver: image \d: its margin exceeds 1 by \d+.*bound it",
    ),
    "unbounded later stage": (
        contract.check_gates,
        lambda: with_gate(
            margin=lambda g: torch.where(g.active, g.margin, 100 * g.margin),
            reached=lambda g: g.active,
        ),
        r"gate saver: image \d: its margin exceeds 1 by \d+.*bound it",
    ),
    "NaN margin": (
        contract.check_gates,
        lambda: with_gate(margin=lambda g: g.margin * torch.nan),
        "gate saver: image 0: its margin is NaN",
    ),
    "active unreached": (
        contract.check_gates,
        lambda: with_gate(reached=lambda g: torch.zeros_like(g.reached)),
        "active, but was not reached",
    ),
    "shapes differ": (
        contract.check_gates,
        lambda: with_gate(active=lambda g: g.active[:, None]),
        "must be bool and",
    ),
    "integer flags": (
        contract.check_gates,
        lambda: with_gate(reached=lambda g: g.reached.long()),
        "must be bool",
    ),
    "scalar margin": (
        contract.check_gates,
        lambda: with_gate(margin=lambda g: g.margin.mean()),
        "expected floats",
    ),
    "free gate": (contract.check_gates, lambda: with_gate(cost=lambda g: 0.0), "must be positive"),
    "NaN cost": (
        contract.check_gates,
        lambda: with_gate(cost=lambda g: torch.tensor([1.0, torch.nan])),
        "must be positive and finite",
    ),
    "nameless gate": (contract.check_gates, lambda: with_gate(name=lambda g: ""), "no name"),
    "names twice": (
        contract.check_gates,
        lambda: with_trace(lambda t: t._replace(gates=t.gates * 2)),
        r"gates \['saver'\] share names",
    ),
    "no Victim": (contract.check_declared, lambda: nn.Linear(2, 2), "Opaque"),
    "unknown max with gates": (
        contract.check_declared,
        lambda: with_attribute("max_macs", float("nan")),
        "declare the structural worst case",
    ),
    "negative max": (
        contract.check_declared,
        lambda: with_attribute("max_macs", -1.0),
        "max_macs = -1.0 must be",
    ),
    "infinite dense": (
        contract.check_declared,
        lambda: with_attribute("dense_macs", float("inf")),
        "dense_macs = inf must be",
    ),
    "negative size": (
        contract.check_declared,
        lambda: with_attribute("domain", shaped((1, -4, 4))),
        "input_shape = .* must be a tuple",
    ),
    "flag is no bool": (
        contract.check_declared,
        lambda: with_attribute("batch_coupled", None),
        "batch_coupled = None must be",
    ),
    "no domain": (
        contract.check_declared,
        lambda: with_attribute("domain", (1, 4, 4)),
        r"domain = \(1, 4, 4\) must be an effattack.domains.Domain",
    ),
    "one class": (
        contract.check_declared,
        lambda: with_attribute("task", Classes(1)),
        "num_classes = 1 must be .* one logit z per image",
    ),
    "no max": (
        contract.check_declared,
        lambda: with_attribute("max_macs", None),
        "toy: max_macs was never declared: give it",
    ),
    "longer than its cap": (
        contract.check_caps,
        lambda: with_attribute("task", Capped(2)),
        "answered with 2 rows, and its task declares a cap of 1",
    ),
    "no family": (contract.check_declared, lambda: with_attribute("family", ""), "family = ''"),
    "data is no path": (
        contract.check_declared,
        lambda: with_attribute("data", "digits"),
        "data = 'digits' must be",
    ),
    "other classes": (
        contract.check_declared,
        lambda: with_attribute("task", Classes(3)),
        r"forward gives \(8, 2\)",
    ),
    "float32 MACs": (
        contract.check_declared,
        lambda: with_trace(lambda t: t._replace(macs=t.macs.float())),
        "expected .* torch.float64",
    ),
    "stages misshapen": (
        contract.check_declared,
        lambda: with_trace(lambda t: t._replace(stage_logits=t.logits)),
        "stage_logits is",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_check_catches_the_broken_victim(case: str) -> None:
    check, build, message = BROKEN[case]
    with pytest.raises(ContractError, match=message):
        check(build(), grey_images(8, seed=1))


def test_stages_that_answer_and_are_not_pushed_are_told() -> None:
    (told,) = contract.check_gates(with_gate(pushed=lambda gate: False), grey_images(8, seed=1))
    assert "set Gate(pushed=True)" in told
    assert not contract.check_gates(LinearSaver(), grey_images(8, seed=1))


def test_every_check_was_seen_to_fail() -> None:
    assert {check for check, _, _ in BROKEN.values()} == set(INVARIANTS)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (-144, "(-144); the difference is exactly what Edited.base costs; executed"),
        (-16, "(-16); the difference is exactly what Edited.base.2 costs; executed"),
        (
            7,
            "image 0: trace declares 183 MACs, forward executed 176 (+7); executed: Edited.base.0 "
            "128, Edited.saver 32, Edited.base.2 16; active gates: saver 1 of 1 reached; correct "
            "the closed form in Edited.trace, or make forward skip",
        ),
    ],
)
def test_audit_says_by_how_much_and_where(wrong: int, says: str) -> None:
    victim = with_trace(lambda t: t._replace(macs=t.macs + wrong * t.gates[0].active[:, 0]))
    images = grey_images(8)
    with pytest.raises(AuditError, match=re.escape(says)):
        audit(victim, images[victim.trace(images).gates[0].active[:, 0]])


class Staged(LinearSaver):
    """Tells its stages, and leaves some MACs out of them."""

    left_out = 0.0

    def trace(self, images: Tensor) -> Trace:
        found = super().trace(images)
        first = torch.full_like(found.macs, 5)
        return found._replace(stages={"a": first, "b": found.macs - first - self.left_out})


def test_audit_tells_the_stages_of_each_input() -> None:
    victim, images = Staged(), grey_images(3)
    found = audit(victim, images)
    assert [sum(stages.values()) for stages in found.stages] == found.macs.tolist()
    assert [stages["a"] for stages in found.stages] == [5, 5, 5]
    assert audit(LinearSaver(), images).stages == ({}, {}, {})


def test_stages_that_do_not_add_up_are_refused() -> None:
    victim = Staged()
    victim.left_out = 2.0
    with pytest.raises(ContractError, match="stages add up to 30 MACs, macs says 32"):
        audit(victim, torch.zeros(1, 1, 4, 4))


def test_specific_errors_are_contract_errors() -> None:
    images = grey_images(8)
    with pytest.raises(AuditError):
        contract.check_macs(BROKEN["MACs off by one"][1](), images)
    with pytest.raises(GradientError):
        contract.check_gradients(NoGradient(), images)


def test_declared_batch_coupling_is_lawful() -> None:
    victim = BatchStatistics()
    victim.batch_coupled = True
    for check in INVARIANTS:
        check(victim, grey_images(8, seed=1))


class ScaledOverTheBatch(nn.Linear):
    """Takes one int8 scale for the whole batch."""

    def forward(self, images: Tensor) -> Tensor:
        scale = images.abs().max() / 127
        return super().forward((images.flatten(1) / scale).round() * scale)


@pytest.mark.parametrize("coupled", [True, False])
def test_an_opaque_model_may_say_that_it_is_coupled(coupled: bool) -> None:
    torch.manual_seed(0)
    victim = Opaque(ScaledOverTheBatch(16, 2), (1, 4, 4), name="scaled", batch_coupled=coupled)
    images = grey_images(4) * torch.tensor([0.2, 0.4, 0.7, 1.0]).view(-1, 1, 1, 1)
    if coupled:
        assert [check(victim, images) for check in INVARIANTS[:-1]] == [[]] * len(INVARIANTS[:-1])
        return
    with pytest.raises(ContractError, match=r"declare batch_coupled=True"):
        contract.check_paths_agree(victim, images)


def test_proxy_margins_need_not_tell_the_decision() -> None:
    victim = with_gate(margin=lambda g: -g.margin, proxy=lambda g: True)
    for check in INVARIANTS:
        assert check(victim, grey_images(8)) == []


def test_straight_through_estimators_are_lawful() -> None:
    def rounded(gate: Gate) -> Tensor:
        steps = (gate.margin * 64).round() / 64 + torch.where(gate.active, 1e-3, -1e-3)
        return gate.margin + (steps.clamp(-1, 1) - gate.margin).detach()

    assert contract.check_gradients(with_gate(margin=rounded), grey_images(8)) == []


@pytest.mark.parametrize(("sign", "misleads"), [(-1, True), (1, False)])
def test_a_proxy_that_leads_the_wrong_way_is_said(sign: int, misleads: bool) -> None:
    victim = with_gate(margin=lambda g: sign * (g.margin + 0.1) / 2, proxy=lambda g: True)
    images = contract.beside_noise(grey_images(8), 16, victim.domain)
    told = contract.misleading_proxies(victim, images)
    assert len(told) == misleads
    assert all("gate saver: pushing its proxy margin up opened fewer" in text for text in told)
    assert contract.misleading_proxies(LinearSaver(), grey_images(2)) == []


class Nudged(LinearSaver):
    """In float32, the deployed path is a little less doubtful."""

    def forward(self, images: Tensor) -> Tensor:
        nudge = 4e-6 if images.dtype == torch.float32 else 0.0
        self.doubt -= nudge
        logits = super().forward(images)
        self.doubt += nudge
        return logits


@pytest.mark.parametrize("distance", [2e-6, 2e-2, -1.0])
def test_float32_may_differ_at_the_threshold(distance: float) -> None:
    victim, images = Nudged(), grey_images(4)
    gap = victim.missing(images)[0].item() + victim.doubt
    victim.doubt = gap + distance
    with torch.no_grad():
        apart = (victim.trace(images).logits - victim(images))[0].abs().max()
    assert (apart > 0.1) == (distance == 2e-6), "only there do the paths part"
    assert contract.check_paths_agree(victim, images) == []


def test_float32_may_not_differ_beyond_it() -> None:
    victim, images = Nudged(), grey_images(4)
    victim.doubt = victim.missing(images)[0].item() + victim.doubt + 2e-6
    victim.margin = lambda logits: LinearSaver.margin(victim, logits) * 10
    with pytest.raises(ContractError, match="image 0: the logits of forward and trace differ"):
        contract.check_paths_agree(victim, images)


@pytest.mark.parametrize(
    ("edit", "source"),
    [
        (lambda g: g.margin * 0, "gate saver"),
        (lambda g: g.margin.clamp(-1e-9, 1e-9), "gate saver"),
    ],
    ids=["times zero", "saturated"],
)
def test_zero_gradient_is_a_warning(edit: Callable[[Gate], Tensor], source: str) -> None:
    (warning,) = contract.check_gradients(with_gate(margin=edit), grey_images(8))
    assert source in warning
    assert "zero over all 8 images" in warning


def test_unit_margins_that_sum_to_a_constant_are_not_blind() -> None:
    def shares(gate: Gate) -> Tensor:
        share = gate.margin.sigmoid()
        return torch.cat([share, 1 - share], dim=1)

    def twice(gate: Gate) -> Tensor:
        return gate.reached.expand(-1, 2)

    victim = with_gate(margin=shares, active=twice, reached=twice, proxy=lambda g: True)
    assert contract.check_gradients(victim, grey_images(8)) == []


def test_opaque_without_gradient_is_a_warning() -> None:
    class Integer(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.detach().flatten(1)[:, :2]

    (warning,) = contract.check_gradients(Opaque(Integer(), (1, 4, 4)), grey_images(2))
    assert "only query attacks" in warning


@every_check
def test_checks_leave_the_victim_as_it_was(check: Check) -> None:
    victim = LinearSaver().train()
    victim.base.eval()
    state = torch.get_rng_state()
    check(victim, grey_images(3))
    assert victim.training
    assert victim.saver.training
    assert not victim.base.training
    assert all(p.requires_grad and p.grad is None for p in victim.parameters())
    assert all(p.dtype == torch.float32 for p in victim.parameters())
    assert torch.equal(state, torch.get_rng_state())


def test_declared_without_images() -> None:
    assert contract.check_declared(LinearSaver()) == []
