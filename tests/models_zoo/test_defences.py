"""Defences obey the contract, bound what they promise, and are attacked through."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from toys import noise_images

from effattack import audit
from effattack.attacks import Slowdown
from effattack.errors import UsageError
from effattack.models_zoo.cascade.cascade import TinySaver
from effattack.models_zoo.criteria import Confidence
from effattack.models_zoo.defences import digits as defended
from effattack.models_zoo.defences.cut_off import cut_off
from effattack.models_zoo.defences.hysteresis import Hysteresis
from effattack.models_zoo.defences.screened import Screened, screening_limit
from effattack.models_zoo.defences.token_caps import CappedATS, CappedAViT, TokenCaps, heldout_caps
from effattack.models_zoo.digits import digits
from effattack.models_zoo.early_exit.early_exit import EarlyExit
from effattack.models_zoo.files import read_card
from effattack.models_zoo.networks import small_vit
from effattack.models_zoo.recipes.adversarial import ascended, unsure_exits, wrong_answer
from effattack.models_zoo.recipes.defences import PatchPool
from effattack.models_zoo.token_sparsification.ats import ATS
from effattack.models_zoo.token_sparsification.avit import AViT
from effattack.victim import Victim
from effattack.victim.checks import INVARIANTS, Check
from effattack.victim.entry import bits, median, random_flip
from effattack.victim.margins import log_odds

SHAPE = (3, 16, 16)


def vit(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    model = small_vit(image=16, width=16, depth=4, heads=2, classes=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return model


def ats(**caps: Any) -> Victim:
    cls = CappedATS if caps else ATS
    return cls(vit(), ats_blocks=(1, 2), reference_tokens=14, name="ats", **caps)


def avit(**caps: Any) -> Victim:
    cls = CappedAViT if caps else AViT
    return cls(vit(), gate_scale=1.0, gate_center=1.5, name="avit", **caps)


def exits() -> EarlyExit:
    torch.manual_seed(3)
    stages = [nn.Flatten(), nn.Linear(768, 8), nn.Linear(8, 8), nn.Linear(8, 8)]
    heads = [nn.Linear(size, 3) for size in (768, 8, 8, 8)]
    for head in heads:
        head.weight.data *= 3
    return EarlyExit(stages, heads, Hysteresis(0.6, 0.45), SHAPE, name="exits")


def cascade() -> TinySaver:
    torch.manual_seed(4)
    saver, base = nn.Linear(768, 3), nn.Linear(768, 3)
    with torch.no_grad():
        saver.weight.mul_(6)
    wide = nn.Sequential(nn.Flatten(), nn.Linear(768, 768), base)
    return TinySaver(nn.Sequential(nn.Flatten(), saver), wide, 0.85, SHAPE, name="cascade")


def screened(limit: float = 0.35) -> Screened:
    return Screened(cascade(), [bits(3), median(3)], limit, name="screened")


ATS_CAPS, AVIT_CAPS = {1: 6, 2: 5}, {0: 12, 1: 8, 2: 5}
DEFENDED: dict[str, Callable[[], Victim]] = {
    "ATS, confidence": lambda: ats(caps=ATS_CAPS),
    "ATS, random": lambda: ats(caps=ATS_CAPS, order="random"),
    "A-ViT, confidence": lambda: avit(caps=AVIT_CAPS),
    "A-ViT, random": lambda: avit(caps=AVIT_CAPS, order="random"),
    "hysteresis": exits,
    "screened": screened,
    "cut off": lambda: cut_off(exits(), noise_images(20, 5, SHAPE), 0.7, name="cut off"),
}


@pytest.fixture(scope="module")
def images() -> Tensor:
    return noise_images(6, 5, SHAPE)


@pytest.mark.parametrize("check", INVARIANTS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", DEFENDED)
def test_contract(name: str, check: Check, images: Tensor) -> None:
    assert check(DEFENDED[name](), images) == []


@pytest.mark.parametrize("build", [ats, avit], ids=["ATS", "A-ViT"])
@pytest.mark.parametrize("order", ["confidence", "random"])
def test_a_cap_bounds_the_worst_case_and_binds(
    build: Callable[..., Victim], order: str, images: Tensor
) -> None:
    plain, caps = build(), ATS_CAPS if build is ats else AVIT_CAPS
    capped = build(caps=caps, order=order)
    assert capped.max_macs < plain.max_macs
    before, after = (victim.trace(images) for victim in (plain, capped))
    assert (after.macs <= before.macs).all()
    assert (after.macs < before.macs).any(), "else the cap binds nowhere, and nothing is tested"
    for gate in after.gates:
        if gate.name.endswith(".tokens") and (block := int(gate.name.split(".")[1])) in caps:
            assert gate.active.sum(1).amax() <= caps[block]


@pytest.mark.parametrize("build", [ats, avit], ids=["ATS", "A-ViT"])
def test_a_loose_cap_changes_nothing(build: Callable[..., Victim], images: Tensor) -> None:
    plain, loose = build(), build(caps={1: 16})
    torch.testing.assert_close(loose.trace(images).logits, plain.trace(images).logits)
    assert loose.max_macs == plain.max_macs


@pytest.mark.parametrize("order", ["confidence", "random"])
def test_the_house_attack_reaches_the_capped_worst_case(order: str, images: Tensor) -> None:
    victim = avit(caps=AVIT_CAPS, order=order)
    found = Slowdown(victim, threat="box", steps=15)(images)
    clean, attacked = (victim.trace(x).macs for x in (images, found))
    assert attacked.mean() > clean.mean() + 0.7 * (victim.max_macs - clean.mean())


def test_the_most_confident_stay() -> None:
    wanted = torch.tensor([[True, True, False, True]])
    confidence = torch.tensor([[1.0, 3.0, 9.0, 2.0]])
    kept = TokenCaps({0: 2}).admit(0, wanted, confidence, wanted)
    assert kept.tolist() == [[False, True, False, True]]


def test_a_draw_is_the_images_own() -> None:
    """The same with the dead tokens in place or gathered out; others for other images."""
    generator = torch.Generator().manual_seed(0)
    live = torch.rand(40, 30, generator=generator) < 0.8
    wanted = live & (torch.rand(40, 30, generator=generator) < 0.6)
    caps, none = TokenCaps({0: 4}, "random"), torch.zeros(40, 30)
    kept = caps.admit(0, wanted, none, live)
    for row in range(40):
        alone = caps.admit(
            0,
            wanted[row : row + 1, live[row]],
            none[:1, live[row]],
            torch.ones_like(live[:1, live[row]]),
        )
        assert torch.equal(alone[0], kept[row, live[row]])
    share = kept.double().mean(0)
    assert share.max() < 0.4, "a fixed set of places would always win"
    assert (kept.sum(1) == wanted.sum(1).clamp(max=4)).all()


def test_heldout_caps_are_means_rounded_up(images: Tensor) -> None:
    victim = ats()
    gates = victim.trace(images).gates
    means = [gate.active.sum(1).double().mean().item() for gate in gates]
    assert [*heldout_caps(victim, images)] == [1, 2]
    for cap, mean in zip(heldout_caps(victim, images).values(), means, strict=True):
        assert mean <= cap < mean + 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TokenCaps({}), "give a number of tokens"),
        (lambda: TokenCaps({1: 0}), "give a number of tokens"),
        (lambda: TokenCaps({1: 3}, "fair"), "unknown order of a token cap 'fair'"),  # type: ignore
        (lambda: ats(caps={0: 3}), r"blocks \[0\]: only \[1, 2\] decide"),
        (lambda: avit(caps={3: 3}), r"blocks \[3\]: only \[0, 1, 2\] decide"),
        (lambda: heldout_caps(exits(), torch.rand(2, *SHAPE)), "no gates blocks.k.tokens"),
        (lambda: Hysteresis(0.5, 0.6), "low = 0.6 must not exceed high = 0.5"),
        (lambda: Hysteresis(1.5, 0.6), "no probabilities"),
        (lambda: screened(2.5), r"limit = 2.5: .* lies in \[0, 2\]"),
        (lambda: Screened(cascade(), [], 1.0), "give one or more that do not draw"),
        (lambda: Screened(cascade(), [random_flip()], 1.0), r"squeezers = \['random_flip\(\)'\]"),
        (lambda: Screened(exits(), [bits(3)], 1.0), "is no TinySaver"),  # type: ignore[arg-type]
        (lambda: screening_limit(cascade(), [bits(3)], torch.rand(2, *SHAPE), 5), "flagged = 5"),
        (lambda: cut_off(exits(), torch.rand(2, *SHAPE), 0, name="cut"), "share = 0"),
    ],
)
def test_what_is_none(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()


@given(st.lists(st.floats(0.05, 0.95), min_size=1, max_size=5))
@settings(deadline=None, max_examples=60)
def test_hysteresis_is_a_schmitt_trigger(doubts: list[float]) -> None:
    """Two classes of confidence p: stop at high, or at low if any stage before was at low."""
    sure = [0.5 + p / 2 for p in doubts]
    high, low = 0.9, 0.7
    if any(abs(p - t) < 1e-4 for p in sure for t in (high, low)):
        return
    logits = torch.tensor([[[log_odds(p), 0.0] for p in sure]], dtype=torch.float64)
    before = any(p >= low for p in sure[:-1])
    stop = sure[-1] >= high or (sure[-1] >= low and before)
    assert bool(Hysteresis(high, low).go_on(logits)[0]) == (not stop)


def test_a_flagged_image_keeps_the_savers_answer(images: Tensor) -> None:
    """Against the definition, written out: unsure, and moved by no squeezer beyond the limit."""
    plain, victim = cascade(), screened()
    saver, base = plain.models
    with torch.no_grad():
        said = saver(images).softmax(1)
        moved = torch.stack(
            [
                (saver(torch.cat([step(x, "") for x in images.split(1)])).softmax(1) - said)
                .abs()
                .sum(1)
                for step in (bits(3), median(3))
            ]
        ).amax(0)
        flagged, unsure = moved > 0.35, said.amax(1) < 0.85
        expected = torch.where((unsure & ~flagged)[:, None], base(images), saver(images))
    assert (flagged & unsure).any()
    assert (unsure & ~flagged).any()
    assert torch.equal(victim.flagged(images), flagged)
    torch.testing.assert_close(victim(images), expected)
    looks = 3 * 768 * 3 + (unsure & ~flagged) * (768 * 768 + 768 * 3)
    assert audit(victim, images).macs.tolist() == looks.tolist()


def test_the_limit_flags_that_share_of_clean_images() -> None:
    images = noise_images(200, 1, SHAPE)
    for share in (0.0, 0.05, 0.5):
        limit = screening_limit(cascade(), [bits(3)], images, share)
        victim = Screened(cascade(), [bits(3)], limit, name="screened")
        assert victim.flagged(images).double().mean() == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95, 1.0])
def test_a_cut_off_is_where_that_share_has_left_and_no_image_costs_more(share: float) -> None:
    plain, images = exits(), noise_images(60, 5, SHAPE)
    spent = plain.trace(images).macs
    left = [(spent <= macs).double().mean().item() for macs in plain._cumulative_macs]
    stages = next(k for k, gone in enumerate(left) if gone >= share) + 1
    if stages == 1:
        with pytest.raises(UsageError, match="leave exits at its first exit"):
            cut_off(plain, images, share, name="cut")
        return
    victim = cut_off(plain, images, share, name="cut")
    assert victim.max_macs == plain._cumulative_macs[stages - 1]
    found = audit(victim, images)
    assert found.macs.tolist() == spent.clamp(max=victim.max_macs).tolist()
    early = spent <= victim.max_macs
    torch.testing.assert_close(found.logits[early], plain(images)[early])


def test_a_cut_off_keeps_a_threshold_for_each_decision() -> None:
    plain, images = exits(), noise_images(60, 5, SHAPE)
    plain.criterion = Confidence([0.99, 0.34, 0.9])
    taken = plain.trace(images).gates[1].active.sum()
    assert not taken, "of three classes, one is always above .34: all have left by the second"
    victim = cut_off(plain, images, 1.0, name="cut")
    assert len(victim.stages) == 2
    assert repr(victim.criterion) == "Confidence((0.99,))"


def test_without_a_band_it_is_the_plain_threshold(images: Tensor) -> None:
    victim = exits()
    victim.criterion = Confidence(0.6)
    expected = victim.trace(images)
    victim.criterion = Hysteresis(0.6, 0.6)
    assert torch.equal(victim.trace(images).macs, expected.macs)


def test_hysteresis_stops_some_images_earlier(images: Tensor) -> None:
    victim = exits()
    spent = victim.trace(images).macs
    victim.criterion = Confidence(0.6)
    assert (spent <= victim.trace(images).macs).all()
    assert (spent < victim.trace(images).macs).any()


@pytest.mark.parametrize("wanted", [wrong_answer, unsure_exits])
def test_what_is_trained_on_raises_what_is_wanted_inside_the_ball(wanted: Any) -> None:
    victim, images, labels = exits(), noise_images(8, 2, SHAPE), torch.arange(8) % 3

    def value(moved: Tensor) -> Tensor:
        stage_logits = victim.trace(moved).stage_logits
        assert stage_logits is not None
        return wanted(stage_logits, labels)

    victim.train()
    torch.manual_seed(0)
    found = ascended(victim, value, images, 0.05, 5)
    assert victim.training
    assert (found - images).abs().max() <= 0.05 + 1e-6
    assert found.min() >= 0
    assert found.max() <= 1
    assert (value(found) > value(images)).all()


def test_a_pool_grows_and_stays_in_its_corner() -> None:
    images = noise_images(12, 1, SHAPE)
    pool = PatchPool(avit(), images[:4], share=4, epochs=1)
    pool.grow(), pool.grow()
    found = pool.apply(images, torch.Generator().manual_seed(0))
    changed = (found != images).any(1)
    assert not changed[:, 8:].any()
    assert not changed[:, :, 8:].any()
    corners = found[:, :, :8, :8].flatten(1)
    assert len(torch.unique(corners, dim=0)) == 2, "one of two patches each"


@pytest.mark.parametrize(
    "factory",
    [defended.avit_patch_pool, defended.cnn_trained_on_answers, defended.cnn_trained_on_slowdowns],
)
def test_a_trained_defence_is_what_its_card_says(factory: Callable[[], Victim]) -> None:
    victim = factory()
    card = read_card(victim.name)
    images, labels = (part[:100] for part in digits("test"))
    with torch.no_grad():
        trace = victim.trace(images)
    accuracy = (trace.logits.argmax(1) == labels).double().mean().item()
    assert accuracy == pytest.approx(card["accuracy"], abs=0.03)
    assert trace.macs.mean().item() == pytest.approx(card["clean_macs"], rel=0.05)


def test_caps_on_digits_are_set_on_held_out_images(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    few = {split: tuple(part[:4] for part in digits(split)) for split in ("heldout", "test")}
    monkeypatch.setattr(defended, "digits", lambda split: asked.append(split) or few[split])
    assert defended._caps.__wrapped__("digits_vit_ats")
    assert asked == ["heldout"]
