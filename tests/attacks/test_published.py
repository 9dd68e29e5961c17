"""SlowFormer, DeSparsify and QuantAttack: where they apply, what they achieve, what they refuse."""

from __future__ import annotations

import random
from functools import cache

import pytest
import timm
import torch
from torch import Tensor, nn
from toys import LinearSaver, embedded, import_or_skip, noise_images

from effattack.attacks import (
    Attack,
    DeSparsify,
    Noise,
    QuantAttack,
    SlowFormer,
    UniversalAttack,
    UniversalDeSparsify,
    UniversalQuantAttack,
    build,
)
from effattack.attacks.objectives import Step
from effattack.errors import NotApplicable, UsageError
from effattack.models_zoo.digits import digits
from effattack.models_zoo.quantization.llm_int8 import LLMInt8
from effattack.victim import Trace, Victim
from effattack.victim.digests import attack_digest

MECHANISMS = ["digits_vit_ats", "digits_vit_avit", "digits_vit_adavit"]
SHAPE = (3, 16, 16)

every_mechanism = pytest.mark.parametrize("name", MECHANISMS)


def macs(victim: Victim, images: Tensor) -> float:
    with torch.no_grad():
        return victim.trace(images).macs.sum().item()


def scored(count: int = 4) -> Tensor:
    return digits("test")[0][:count]


def fitted(attack: UniversalAttack, count: int = 16) -> UniversalAttack:
    """Learnt on images that are not scored."""
    images, labels = digits("test")
    return attack.fit(images[100 : 100 + count], labels[100 : 100 + count])


@cache
def llm_int8() -> LLMInt8:
    """A small ViT with random weights, θ = 6, next to which many columns lie."""
    import_or_skip("bitsandbytes")
    torch.manual_seed(0)
    sizes = {"img_size": 16, "patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 2}
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=5, **sizes)
    for name, parameter in vit.named_parameters():
        if "norm" not in name:
            nn.init.normal_(parameter, std=0.5)
    return LLMInt8(vit.eval(), SHAPE)


# what they achieve


@every_mechanism
def test_desparsify_on_single_images(name: str) -> None:
    victim, clean = embedded(name), scored()
    noise = macs(victim, Noise(victim, 16 / 255)(clean))
    rise = macs(victim, DeSparsify(victim, steps=8)(clean)) - noise
    assert rise > 0.2 * (victim.max_macs * len(clean) - noise)


@every_mechanism
@pytest.mark.parametrize(
    "attack",
    ["SlowFormer(epochs=3, batch=4)", "UniversalDeSparsify(epochs=3, batch=4)"],
    ids=lambda text: text.partition("(")[0],
)
def test_universal_ones_on_images_they_have_not_seen(attack: str, name: str) -> None:
    victim, clean = embedded(name), scored(8)
    made = build(attack, victim, 16 / 255)
    assert isinstance(made, UniversalAttack)
    assert macs(victim, fitted(made)(clean)) > macs(victim, clean)


def test_slowformer_as_a_patch_anywhere_and_as_a_ball() -> None:
    victim, clean = embedded("digits_vit_adavit"), scored(8)
    for threat in ("patch:12", "patch:7@3,20", "linf:32/255"):
        found = fitted(SlowFormer(victim, threat=threat, epochs=2, batch=8))(clean)
        assert macs(victim, found) > macs(victim, clean), threat


@pytest.mark.slow
def test_quantattack() -> None:
    victim, clean = llm_int8(), noise_images(4, 1, SHAPE)
    found = QuantAttack(victim, steps=6, step_size=0.01)(clean)
    assert macs(victim, found) > macs(victim, Noise(victim)(clean))
    learnt = UniversalQuantAttack(victim, epochs=3, batch=4, step_size=0.01)
    learnt.fit(noise_images(8, 2, SHAPE))
    assert macs(victim, learnt(clean)) > macs(victim, clean)


# the papers' settings


def test_the_patch_of_the_paper() -> None:
    attack = SlowFormer(embedded("digits_vit_ats"))
    assert str(attack.threat) == "patch:9@0,0"  # 64 of 224
    assert build("SlowFormer", attack.victim, 4 / 255).threat.eps == 9
    assert attack.training.rule.schedule(0.7) == 0.045


def test_slowformer_takes_the_loss_it_is_told() -> None:
    victim = embedded("digits_vit_avit")
    attack = build("SlowFormer(loss='code')", victim)
    assert attack.name == "SlowFormer(loss='code')"
    assert build("SlowFormer", victim).objective != attack.objective
    with pytest.raises(UsageError, match="unknown loss of SlowFormer 'cod': did you mean code"):
        SlowFormer(victim, loss="cod")


@pytest.mark.slow
def test_keeping_and_destroying_the_prediction() -> None:
    victim, clean = embedded("digits_vit_avit"), scored(12)
    with torch.no_grad():
        before = victim(clean).argmax(1)
        kept = []
        for weight in (1.0, -1.0):
            made = SlowFormer(victim, epochs=3, batch=4, prediction_weight=weight)
            kept.append((victim(fitted(made)(clean)).argmax(1) == before).sum())
    assert kept[0] > kept[1]


def test_steps_of_quantattack_are_those_of_the_paper() -> None:
    search = QuantAttack(llm_int8()).search
    assert (search.steps, search.random_start) == (3000, False)
    sizes = [search.schedule(step / 3000) * 8 / 255 for step in (0, 999, 1000, 2000)]
    assert sizes == pytest.approx([1e-3, 5e-6, 1e-3, 1e-3], rel=1e-3)
    patch = UniversalQuantAttack(llm_int8(), threat="patch:8").training
    assert (patch.epochs, patch.rule.schedule(0.5)) == (200, 1e-3)


# where they apply


@pytest.mark.parametrize("attack", [DeSparsify, UniversalDeSparsify, SlowFormer])
@pytest.mark.parametrize("name", ["digits_cnn_early_exit", "digits_vit_evit", "digits_skipnet"])
def test_other_mechanisms_are_refused(attack: type[Attack], name: str) -> None:
    with pytest.raises(NotApplicable, match=f"attacks ATS, A-ViT and AdaViT.*; {name} is a vict"):
        attack(embedded(name))


@pytest.mark.parametrize("attack", [QuantAttack, UniversalQuantAttack])
@pytest.mark.parametrize("name", ["digits_vit_ats", "digits_tinysaver_cascade"])
def test_quantattack_needs_outlier_columns(attack: type[Attack], name: str) -> None:
    with pytest.raises(NotApplicable, match=rf"outlier columns of LLM.int8\(\).*; {name} is a"):
        attack(embedded(name))


# several victims at once


@pytest.mark.slow
def test_an_ensemble_slows_all_of_its_members() -> None:
    known = [embedded(name) for name in MECHANISMS]
    clean = scored(3)
    found = DeSparsify(known[0], others=known[1:], steps=10)(clean)
    for victim in known:
        assert macs(victim, found) > macs(victim, Noise(victim, 16 / 255)(clean))


def test_an_ensemble_draws_one_of_its_members_at_every_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    attack = DeSparsify(embedded(MECHANISMS[0]), others=MECHANISMS[1:], steps=12)
    drawn: list[Trace] = []
    monkeypatch.setattr(
        type(attack.objective.slow),
        "__call__",
        lambda self, trace, goal: drawn.append(trace) or trace.logits.sum(1) * 0,
    )
    attack(scored(1))
    shown = {"significance", "halting", "token_policy"}
    kinds = [(shown & trace.aux.keys()).pop() for trace in drawn]
    assert len(kinds) == 14  # the clean image, and every iterate
    assert set(kinds) == shown


def test_an_ensemble_is_the_same_twice_and_leaves_its_members_alone() -> None:
    other = embedded("digits_vit_avit")
    attack = DeSparsify(embedded("digits_vit_ats"), others=[other], steps=3)
    other.train()
    try:
        state = random.getstate(), torch.get_rng_state()
        first = attack(scored(2))
        assert other.training
        assert all(p.requires_grad and p.grad is None for p in other.parameters())
        assert (random.getstate(), torch.get_rng_state().tolist()) == (state[0], state[1].tolist())
        assert torch.equal(attack(scored(2)), first)
    finally:
        other.eval()


def test_an_ensemble_is_judged_by_the_macs_of_all_its_members() -> None:
    steps: list[Step] = []
    victims = [embedded(name) for name in MECHANISMS]
    found = DeSparsify(victims[0], others=victims[1:], steps=2)(scored(1), callback=steps.append)
    total = sum(macs(victim, found) for victim in victims)
    assert steps[-1].macs.item() == pytest.approx(total, abs=0.5)  # half a MAC less on an edge


def test_an_ensemble_by_name() -> None:
    text = "DeSparsify(others=('digits_vit_avit', 'digits_vit_adavit'), steps=4)"
    attack = build(text, embedded("digits_vit_ats"))
    assert attack.name == text
    by_hand = DeSparsify(
        attack.victim, 8 / 255, others=[embedded(name) for name in MECHANISMS[1:]], steps=4
    )
    assert by_hand.name == attack.name
    assert attack_digest(by_hand) == attack_digest(attack)
    fewer = DeSparsify(attack.victim, 8 / 255, others=["digits_vit_avit"], steps=4)
    assert attack_digest(fewer) != attack_digest(attack)


def test_ensembles_that_are_none() -> None:
    ats = embedded("digits_vit_ats")
    with pytest.raises(NotApplicable, match="digits_skipnet is a victim of layer skipping"):
        DeSparsify(ats, others=["digits_skipnet"])
    with pytest.raises(UsageError, match=r"toy takes \(1, 4, 4\).*the same images"):
        DeSparsify(ats, others=[LinearSaver()])
    with pytest.raises(UsageError, match="did you mean digits_vit_avit"):
        DeSparsify(ats, others=["digits_vit_avi"])
