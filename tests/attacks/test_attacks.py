"""What holds for every attack: what it returns, what it leaves behind, and what it refuses."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from math import exp, nan
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toys import LinearSaver, grey_images

from effattack import attacks
from effattack.attacks import (
    Attack,
    DeepSloth,
    DeSparsify,
    EvolvedSponge,
    LatencyQuery,
    Slowdown,
    attack_class,
    by_name,
    names,
)
from effattack.attacks import build as built
from effattack.attacks.searches.penalised import PenalisedAttack
from effattack.attacks.universal import UniversalAttack
from effattack.budgets import LEVELS
from effattack.domains.pixels import to_grid
from effattack.errors import GradientError, NotApplicable, UsageError
from effattack.models_zoo.criteria import Confidence
from effattack.models_zoo.early_exit.early_exit import EarlyExit
from effattack.victim import Opaque, Trace, Victim
from effattack.victim.margins import log_odds
from effattack.victim.undisturbed import undisturbed


def applies(name: str) -> bool:
    try:
        built(name, LinearSaver())
    except NotApplicable:
        return False
    return True


ON_A_CASCADE = [name for name in names() if applies(name)]
UNBUDGETED = ("clean", "uniform", "corruption")
BUDGETED = [
    n
    for n in ON_A_CASCADE
    if n not in UNBUDGETED and not issubclass(attack_class(n), UniversalAttack)
]

every_attack = pytest.mark.parametrize("name", ON_A_CASCADE)


def build(name: str, victim: Victim, *budget: float, seed: int = 0) -> Attack:
    """The attack of a name, ready to be called: a universal one has learnt from other images.

    Slow searches are cut short.
    """
    attack = built(name, victim, *budget, seed=seed)
    if isinstance(attack, UniversalAttack):
        attack.training = replace(attack.training, epochs=2)
        attack.fit(grey_images(8, seed=99).to(victim.dtype))
    if isinstance(attack, PenalisedAttack):
        attack.search = replace(attack.search, steps=15)
    if isinstance(attack, EvolvedSponge):
        attack.search = replace(attack.search, pool=5, generations=3)
    if isinstance(attack, LatencyQuery):
        attack.clock, attack.queries = Stopped(), 5
    return attack


class Stopped:
    """A clock whose readings do not depend on the machine."""

    name = "stopped"

    def time(self, function: Callable[[], object]) -> float:
        function()
        return 1.0


@pytest.fixture(autouse=True)
def _libraries(request: pytest.FixtureRequest) -> None:
    """Skips what needs a library that is not installed."""
    if "torchattacks" in request.node.name:
        pytest.importorskip("torchattacks")


@pytest.fixture
def victim() -> Victim:
    """A toy with a history: gradients, frozen parameters, a submodule in training mode."""
    toy = LinearSaver()
    toy.base.train()
    toy.saver.bias.requires_grad_(False)
    toy.base[0].weight.grad = torch.ones_like(toy.base[0].weight)
    return toy


def global_state() -> list[Any]:
    """Of all three generators, comparable."""
    kind, keys, position, *gauss = np.random.get_state()
    torch_state = torch.get_rng_state().tolist()
    return [random.getstate(), kind, keys.tolist(), position, gauss, torch_state]


def state_of(victim: Victim) -> list[Any]:
    """All that an attack could leave behind on a victim, comparable."""
    return [
        [(name, m.training) for name, m in victim.named_modules()],
        [
            (p.requires_grad, None if p.grad is None else p.grad.tolist())
            for p in victim.parameters()
        ],
        {key: value.tolist() for key, value in victim.state_dict().items()},
    ]


# what is returned


@every_attack
def test_result_is_a_deployable_image(name: str, victim: Victim) -> None:
    clean = grey_images(6)
    given = clean.clone()
    found = build(name, victim)(given)
    assert found.shape == clean.shape
    assert found.dtype == clean.dtype
    assert not found.requires_grad
    assert found.grad_fn is None
    assert found.min() >= 0
    assert found.max() <= 1
    assert torch.equal(found, to_grid(found))
    assert torch.equal(given, clean), "the input is left alone"
    assert found.data_ptr() != given.data_ptr()


@pytest.mark.parametrize("eps", [1 / 255, 4.7 / 255, 8 / 255])
@pytest.mark.parametrize("name", BUDGETED)
def test_result_is_inside_the_budget(name: str, eps: float, victim: Victim) -> None:
    clean = grey_images(6)
    moved = (build(name, victim, eps)(clean) - clean).abs().max() * LEVELS
    lawfully_clean = name in ("SlowAndWrong", "LatencyQuery")  # where there is nothing to be had
    assert moved > 0 or lawfully_clean
    assert moved.round() <= int(eps * LEVELS + 1e-6)
    assert abs(moved - moved.round()) < 1e-3


@every_attack
def test_off_grid_images_are_rounded_first(name: str, victim: Victim) -> None:
    clean = grey_images(4)
    attack = build(name, victim)
    torch.testing.assert_close(attack(clean + 0.4 / LEVELS), attack(clean), rtol=0, atol=0)


@every_attack
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_images_are_float32_whatever_the_victim_computes_in(name: str, dtype: torch.dtype) -> None:
    clean = grey_images(4)
    found = build(name, LinearSaver().to(dtype))(clean.to(dtype))
    assert found.dtype == torch.float32
    assert torch.equal(found, to_grid(found))
    if name == "clean":
        assert torch.equal(found, to_grid(clean)), "half precision has lost no level"


@every_attack
@pytest.mark.parametrize(
    "context", [torch.no_grad, torch.inference_mode, torch.enable_grad], ids=lambda c: c.__name__
)
def test_autograd_of_the_caller_does_not_matter(
    name: str, context: Callable[[], AbstractContextManager[Any]], victim: Victim
) -> None:
    attack, labels = build(name, victim), torch.tensor([0, 1, 0, 1])
    expected = attack(grey_images(4), labels)
    with context():
        enabled = torch.is_grad_enabled()
        found = attack(grey_images(4), labels.clone())
        assert torch.is_grad_enabled() == enabled
    assert torch.equal(found, expected)


@every_attack
def test_images_that_require_grad(name: str, victim: Victim) -> None:
    images = grey_images(4).requires_grad_()
    assert not build(name, victim)(images).requires_grad
    assert images.grad is None


@every_attack
@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8])
def test_labels_of_any_integer_dtype(name: str, dtype: torch.dtype, victim: Victim) -> None:
    labels = torch.tensor([0, 1, 0, 1])
    attack = build(name, victim)
    assert torch.equal(attack(grey_images(4), labels.to(dtype)), attack(grey_images(4), labels))


@every_attack
def test_same_seed_same_bits(name: str, victim: Victim) -> None:
    first = build(name, victim, seed=3)(grey_images(4))
    random.random(), np.random.rand(), torch.rand(1)
    assert torch.equal(build(name, victim, seed=3)(grey_images(4)), first)


# what is left behind


@every_attack
def test_victim_and_random_state_are_as_before(name: str, victim: Victim) -> None:
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    victim.train()
    victim.saver.eval()
    before, gradient = state_of(victim), victim.base[0].weight.grad
    state = global_state()
    build(name, victim)(grey_images(4))
    assert state_of(victim) == before
    assert victim.base[0].weight.grad is gradient
    assert global_state() == state


class Exploding(LinearSaver):
    """Draws from every global generator and raises, in the middle of an attack."""

    calls = 0

    def trace(self, images: Tensor) -> Trace:
        random.random(), np.random.rand(), torch.rand(1)
        self.calls += 1
        if self.calls > 1:
            raise RuntimeError("in the middle")
        return super().trace(images)

    def forward(self, images: Tensor) -> Tensor:
        return self.trace(images).logits


@pytest.mark.parametrize("name", [n for n in BUDGETED if n != "noise"])
def test_victim_and_random_state_are_as_before_after_an_exception(name: str) -> None:
    victim = Exploding().train()
    victim.calls = -100  # some attacks look at the victim when they are made
    attack = build(name, victim)
    victim.calls = 0
    before, state = state_of(victim), global_state()
    with pytest.raises(RuntimeError, match="in the middle"):
        attack(grey_images(4))
    assert state_of(victim) == before
    assert global_state() == state
    assert torch.is_grad_enabled()


def test_undisturbed_is_eval_mode_and_frozen(victim: Victim) -> None:
    with torch.no_grad(), undisturbed(victim):
        assert torch.is_grad_enabled()
        assert not any(m.training for m in victim.modules())
        assert not any(p.requires_grad for p in victim.parameters())


@every_attack
def test_training_mode_changes_nothing(name: str) -> None:
    victim = LinearSaver()
    victim.base.insert(1, nn.Dropout(0.9))
    expected = build(name, victim.eval())(grey_images(4))
    assert torch.equal(build(name, victim.train())(grey_images(4)), expected)


# what is refused


def test_deepsloth_needs_internal_classifiers(ats: Victim, int8: Victim) -> None:
    for victim in (ats, int8):
        with pytest.raises(NotApplicable, match=f"internal classifiers.*{victim.name} is a victim"):
            DeepSloth(victim)


def test_desparsify_needs_token_sparsification(early_exit: Victim, int8: Victim) -> None:
    for victim in (early_exit, int8):
        with pytest.raises(NotApplicable, match=f"token sparsification; {victim.name} is a"):
            DeSparsify(victim)


@pytest.mark.parametrize("attack", [DeSparsify, DeepSloth])
def test_a_family_does_not_vouch_for_what_an_attack_needs(attack: type[Attack]) -> None:
    class Closed(LinearSaver):
        def trace(self, images: Tensor) -> Trace:
            return super().trace(images)._replace(stage_logits=None)

    victim = Closed()
    victim.family = "token sparsification" if attack is DeSparsify else "early exit"
    with pytest.raises(NotApplicable, match=r"toy .*(shows|has) no"):
        attack(victim)(grey_images(2))


def test_slowdown_needs_gates(int8: Victim, digit_images: Tensor) -> None:
    with pytest.raises(
        NotApplicable, match=r"no gates \(its MACs are constant\).*torchattacks\.PGD"
    ):
        Slowdown(int8)(digit_images[:2])
    opaque = Opaque(LinearSaver(), (1, 4, 4), name="box")
    with pytest.raises(NotApplicable, match=r"\(it cannot be opened\).*QueryAttack"):
        Slowdown(opaque)(grey_images(2))


def test_missing_gradient_names_the_gate() -> None:
    class Deaf(LinearSaver):
        def trace(self, images: Tensor) -> Trace:
            return super().trace(images.detach())

    with pytest.raises(GradientError, match="gates saver"):
        Slowdown(Deaf())(grey_images(2))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (grey_images(2) * 255, "divide by 255"),
        (grey_images(2) * 4 - 2, "undo the normalisation"),
        (grey_images(2).log() * nan, "NaN"),
        ((grey_images(2) * 255).byte(), "not float"),
        (grey_images(2)[0], "the victim takes"),
        (grey_images(2).expand(-1, 3, -1, -1), "the victim takes"),
        (grey_images(2)[:0], "empty"),
        (grey_images(2).numpy(), "torch tensor"),
    ],
    ids=["0..255", "normalised", "NaN", "integers", "one image", "channels", "empty", "NumPy"],
)
@every_attack
def test_images_that_are_none(name: str, images: Any, message: str, victim: Victim) -> None:
    with pytest.raises(UsageError, match=message):
        build(name, victim)(images)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([0]), "2 inputs but 1 labels"),
        (torch.tensor([0, 2]), "classes 0 to 1"),
        (torch.tensor([0.0, 1.0]), "integer"),
        ([0, 1], "must be a tensor"),
        (np.array([0, 1]), "must be a tensor"),
    ],
    ids=["length", "range", "floats", "list", "NumPy"],
)
@every_attack
def test_labels_that_are_none(name: str, labels: Any, message: str, victim: Victim) -> None:
    with pytest.raises(UsageError, match=message):
        build(name, victim)(grey_images(2), labels)


@pytest.mark.parametrize("eps", [0, -8 / 255, nan, 8, 0.5 / 255])
@pytest.mark.parametrize("name", BUDGETED)
def test_budgets_that_are_none(name: str, eps: float, victim: Victim) -> None:
    with pytest.raises(UsageError, match="eps = "):
        build(name, victim, eps)


# names


def test_names_are_the_names_of_the_attacks(victim: Victim) -> None:
    assert [build(name, victim).name for name in ON_A_CASCADE] == ON_A_CASCADE
    assert "eps=8/255" in repr(build("Slowdown", victim))


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("slowdown", "Slowdown"),
        ("DeepSlot", "DeepSloth"),
        ("torchattack.PGD", "torchattacks.PGD"),
        ("xyz", "known: .*DeSparsify"),
    ],
)
def test_unknown_names_suggest_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(UsageError, match=nearest):
        attack_class(name)


def test_every_kind_is_stated() -> None:
    kinds = {name: attack_class(name).kind for name in names()}
    assert {n for n, kind in kinds.items() if kind == "control"} == set(by_name.CONTROLS)
    assert {n for n, kind in kinds.items() if kind == "accuracy"} == {
        "PGDAvg",
        "PGDMax",
        "Transfer",
        "torchattacks.PGD",
        "foolbox.LinfPGD",
    }
    assert set(attacks.__all__) <= set(dir(attacks))


# what they achieve


def success(victim: Victim, attack: Attack, images: Tensor) -> float:
    with torch.no_grad():
        clean, attacked = (victim.trace(x).macs for x in (images, attack(images)))
    return ((attacked - clean).sum() / (victim.max_macs - clean).sum()).item()


def test_compute_attacks_beat_noise(early_exit: Victim, digit_images: Tensor) -> None:
    noise = success(early_exit, build("noise", early_exit), digit_images)
    assert success(early_exit, build("Slowdown", early_exit), digit_images) > noise + 0.2
    assert success(early_exit, build("DeepSloth", early_exit), digit_images) > noise + 0.2


def test_desparsify_beats_noise(ats: Victim, digit_images: Tensor) -> None:
    noise = success(ats, build("noise", ats), digit_images[:6])
    assert success(ats, DeSparsify(ats, 16 / 255, steps=15), digit_images[:6]) > noise + 0.05


# margins must not go blind when logits are scaled up


class Scaled(nn.Module):
    """A head whose logits are larger."""

    def __init__(self, head: nn.Module, factor: float) -> None:
        super().__init__()
        self.head, self.factor = head, factor

    def forward(self, features: Tensor) -> Tensor:
        return self.factor * self.head(features)


def scaled(victim: EarlyExit, factor: float, doubt: float) -> EarlyExit:
    """The same network, its logits scaled, and a threshold of ``doubt`` in log-odds."""
    heads = [Scaled(copy.deepcopy(head), factor) for head in victim.heads]
    threshold = 1 / (1 + exp(-doubt))
    return EarlyExit(victim.stages, heads, threshold, victim.input_shape)


def two_class_exits() -> EarlyExit:
    """Early exits on linear features: with two classes, scaled log-odds decide exactly alike."""
    toy = LinearSaver(seed=2)
    with torch.no_grad():
        for parameter in toy.saver.parameters():
            parameter.mul_(3)  # confident: scaled, softmax rounds to 0 and 1
    stages = [nn.Flatten(), toy.base[:2]]
    return EarlyExit(stages, [toy.saver, toy.base[2]], 0.6, toy.input_shape)


def test_scaled_logits_are_attacked_alike() -> None:
    plain, clean = two_class_exits(), grey_images(80, seed=3)
    doubt = log_odds(0.6)
    large = scaled(plain, 50, 50 * doubt)
    assert torch.equal(large.trace(clean).macs, plain.trace(clean).macs), "the same savings"
    slow = partial(Slowdown, eps=6 / 255)
    expected = success(plain, slow(plain), clean)
    assert 0.1 < expected < 0.9
    assert success(large, slow(large), clean) == pytest.approx(expected, abs=0.05)


def test_probability_margins_would_fail_that_test() -> None:
    class Probability(Confidence):
        """τ − p_max, whose slope underflows."""

        def margin(self, stage_logits: Tensor) -> Tensor:
            assert isinstance(self.thresholds, float)
            return self.thresholds - stage_logits[:, -1].softmax(1).amax(1)

    plain, clean = two_class_exits(), grey_images(80, seed=3)
    large = scaled(plain, 50, 50 * log_odds(0.6))
    large.criterion = Probability(large.criterion.thresholds)
    expected = success(plain, Slowdown(plain, eps=6 / 255), clean)
    assert success(large, Slowdown(large, eps=6 / 255), clean) < expected - 0.1


def test_scaled_logits_on_digits(early_exit: Victim, digit_images: Tensor) -> None:
    assert isinstance(early_exit, EarlyExit)
    plain = scaled(early_exit, 1, log_odds(0.4))
    with torch.no_grad():
        target = plain.trace(digit_images).macs.mean()
        low, high = 0.0, 36.0  # in log-odds: the largest probability below 1 in float64
        for _ in range(20):
            doubt = (low + high) / 2
            spent = scaled(early_exit, 50, doubt).trace(digit_images).macs.mean()
            low, high = (doubt, high) if spent < target else (low, doubt)
    large = scaled(early_exit, 50, high)
    expected = success(plain, Slowdown(plain), digit_images)
    assert expected > 0.3
    assert success(large, Slowdown(large), digit_images) >= expected - 0.05
