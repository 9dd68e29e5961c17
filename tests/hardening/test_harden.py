"""Hardening raises what stays under attack, resumes to the bit, and refuses in one line."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from own_exits import EPS, own_exits, small_digits
from torch import Tensor, nn
from toys import SHAPE, LinearSaver, embedded, noise_images

from effattack import Opaque, Trace, Victim
from effattack.cli import parsers
from effattack.errors import HardeningError, MeasurementError, NotApplicable, UsageError
from effattack.hardening import METHODS, Hardened, Schedule, Terms, harden, load, read_card, save
from effattack.hardening.fitting import Epoch
from effattack.hardening.terms import refusal
from effattack.models_zoo import Cascade
from effattack.victim.digests import victim_digest

TERMS = Terms(allowed=0.02, attacked=24)


def hardened(method: str = "answers", epochs: int = 8, **settings: Any) -> Hardened:
    return harden(
        own_exits(),
        *small_digits("train"),
        EPS,
        method,
        **{
            "train_at": 1.5 * EPS,
            "schedule": Schedule(epochs),
            "heldout": small_digits("heldout"),
            "terms": TERMS,
            **settings,
        },
    )


@pytest.fixture(scope="module")
def made() -> Hardened:
    return hardened()


def test_more_is_kept_at_the_stated_price(made: Hardened) -> None:
    before, after = made.card.before, made.card.after
    assert after.retained > before.retained + 0.1
    assert after.attacked_work < 0.75 * before.attacked_work
    assert after.accuracy >= before.accuracy - TERMS.allowed
    assert after.work <= before.work
    assert after.onward >= min(before.onward, TERMS.onward)


@pytest.mark.slow
def test_the_original_is_as_it_was() -> None:
    victim = own_exits()
    victim.train()
    victim.heads[0][1].weight.requires_grad_(False)
    digest, state = victim_digest(victim), torch.get_rng_state()
    found = harden(
        victim,
        *small_digits("train"),
        EPS,
        schedule=Schedule(2),
        terms=Terms(allowed=0.5, attacked=8),
        heldout=small_digits("heldout"),
    )
    assert victim_digest(victim) == digest != victim_digest(found.victim)
    assert torch.equal(torch.get_rng_state(), state)
    assert victim.training
    assert not victim.heads[0][1].weight.requires_grad
    assert all(p.grad is None for p in victim.parameters())


@pytest.mark.slow
def test_the_same_call_ends_in_the_same_weights_where_it_was_interrupted(tmp_path: Path) -> None:
    """Also with group weights, which are a state of the training."""

    def stop(epoch: Epoch) -> None:
        if epoch.number == 2:
            raise KeyboardInterrupt

    run = partial(hardened, "groups(rate=0.1)", 4, terms=Terms(allowed=0.9, attacked=4))
    whole = run()
    with pytest.raises(KeyboardInterrupt):
        run(checkpoints=tmp_path, told=stop)
    epochs: list[int] = []
    resumed = run(checkpoints=tmp_path, told=lambda epoch: epochs.append(epoch.number))
    assert epochs == [3, 4]
    assert resumed.state.keys() == whole.state.keys()
    for name, value in whole.state.items():
        assert torch.equal(value, resumed.state[name]), name
    other = run(checkpoints=tmp_path, train_at=EPS)
    assert not all(torch.equal(v, whole.state[name]) for name, v in other.state.items())


def test_a_folder_holds_all_that_it_takes(made: Hardened, tmp_path: Path) -> None:
    save(made, tmp_path / "out")
    loaded = load(own_exits(), tmp_path / "out")
    assert victim_digest(loaded) == victim_digest(made.victim)
    assert read_card(tmp_path / "out") == made.card
    page = (tmp_path / "out" / "card.md").read_text()
    assert f"| savings retained | {made.card.before.retained:.1%} |" in page
    data = bytearray((tmp_path / "out" / "weights.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "out" / "weights.safetensors").write_bytes(data)
    with pytest.raises(UsageError, match="its hash is not the recorded one"):
        load(own_exits(), tmp_path / "out")
    with pytest.raises(UsageError, match=r"card\.json is missing"):
        load(own_exits(), tmp_path)


def test_weights_of_another_network_are_refused(made: Hardened, tmp_path: Path) -> None:
    save(made, tmp_path)
    with pytest.raises(UsageError, match="does not fit toy"):
        load(LinearSaver(), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["hinge", "both(margins=0.1)", "groups", "bounds(most=0.3)"])
def test_every_training_raises_what_is_kept(method: str) -> None:
    card = hardened(method, 12, terms=Terms(allowed=0.05, attacked=24)).card
    assert card.after.attacked_work < 0.9 * card.before.attacked_work


@pytest.mark.slow
def test_noise_is_trained_on_without_an_attack() -> None:
    found = hardened("noise(sigma=0.15)", 4, terms=Terms(allowed=0.05, attacked=16))
    assert found.card.method == "noise(sigma=0.15)"
    assert "Noise(sigma=0.15)" in found.card.settings["losses"]


def test_thresholds_alone_change_no_weight() -> None:
    found = hardened("thresholds", terms=Terms(allowed=0.03, attacked=24))
    for name, value in own_exits().state_dict().items():
        assert torch.equal(value, found.state[name])
    assert found.card.thresholds != found.card.thresholds_before == 0.9
    assert found.card.after.attacked_work < found.card.before.attacked_work
    assert found.card.trained_at == "not trained"


def cascade() -> Cascade:
    """A saver that is sure of nothing, and a base."""
    torch.manual_seed(0)
    saver = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    base = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10)
    )
    images, labels = small_digits("train")
    optimizer = torch.optim.AdamW([*saver.parameters(), *base.parameters()], 1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        for model in (saver, base):
            nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    return Cascade([saver, base], 0.6, (1, 8, 8), name="pair")


def test_of_a_cascade_the_last_model_stays() -> None:
    victim = cascade()
    found = harden(
        victim,
        *small_digits("train"),
        EPS,
        schedule=Schedule(3),
        terms=Terms(allowed=0.05, attacked=8),
        heldout=small_digits("heldout"),
    )
    before, after = (dict(v.models[1].state_dict()) for v in (victim, found.victim))
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert not torch.equal(victim.models[0][1].weight, found.victim.models[0][1].weight)


def test_a_static_model_is_called_one() -> None:
    found = harden(
        cascade(),
        *small_digits("train"),
        EPS,
        "thresholds",
        terms=Terms(allowed=0.5, onward=0.0, attacked=8),
        heldout=small_digits("heldout"),
    )
    assert found.card.after.onward == 0
    assert any("it is a static model now" in note for note in found.card.notes)


@pytest.mark.slow
def test_named_parts_learn_alone() -> None:
    found = hardened(epochs=1, parts=["heads"], terms=Terms(allowed=0.9, attacked=4))
    shipped = own_exits().state_dict()
    changed = {
        n.partition(".")[0] for n, v in found.state.items() if not torch.equal(v, shipped[n])
    }
    assert changed == {"heads"}
    with pytest.raises(UsageError, match="unknown module 'head'"):
        hardened(parts=["head"])


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"schedule": Schedule(1, rate=0.5)}, r"own exits stays as it was: it lost \d+"),
        ({"schedule": Schedule(1, rate=1e-9), "parts": ["heads.2"]}, "it won nothing"),
    ],
)
def test_what_lost_too_much_or_won_nothing_is_not_handed_out(
    settings: dict[str, Any], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("effattack.hardening.engine.rule_of", lambda victim: None)
    with pytest.raises(HardeningError, match=told) as caught:
        hardened(**settings)
    assert caught.value.exit_code == 1
    assert caught.value.hardened.card.before.retained < 0.9


@pytest.mark.parametrize("method", ["answers", "noise"])
def test_a_training_that_diverges_is_stopped(method: str) -> None:
    with pytest.raises(MeasurementError, match="take a lower rate"):
        hardened(method, schedule=Schedule(2, rate=1e30), terms=Terms(attacked=4))


def test_clean_work_must_not_rise(made: Hardened) -> None:
    before = made.card.before
    dearer = before._replace(work=1.01 * before.work, attacked_work=0.0)
    assert "its clean work rose" in str(refusal(before, dearer, TERMS))
    assert refusal(before, before._replace(attacked_work=0.0), TERMS) is None


class Fixed(LinearSaver):
    """Gradients reach its inputs, and not its weights."""

    def trace(self, images: Tensor) -> Trace:
        return LinearSaver.trace(copy.deepcopy(self).requires_grad_(False), images)


def toy(victim: Victim, method: str = "answers", **settings: Any) -> Hardened:
    images, labels = noise_images(40, 0, SHAPE), torch.arange(40) % 2
    return harden(victim, images, labels, 8 / 255, method, **settings)


@pytest.mark.parametrize(
    ("victim", "method", "told"),
    [
        (Fixed, "answers", "has no gradient in the weights"),
        (Fixed, "noise", "has no gradient in the weights"),
        (LinearSaver, "thresholds", "toy shows no thresholds"),
        (LinearSaver, "bounds", "toy does not say what stages it has"),
        (lambda: Opaque(LinearSaver(), SHAPE), "answers", "has no gates"),
    ],
)
def test_what_a_method_cannot_apply_to(victim: Any, method: str, told: str) -> None:
    with pytest.raises(NotApplicable, match=told):
        toy(victim(), method)


def test_quantized_weights_are_not_trained() -> None:
    victim = LinearSaver()
    victim.register_buffer("packed", torch.zeros(4, dtype=torch.int8))
    with pytest.raises(NotApplicable, match="whose training has no gradient"):
        toy(victim)


@pytest.mark.slow
def test_nor_are_those_of_a_static_int8_victim(digit_images: Tensor, digit_labels: Tensor) -> None:
    victim = embedded("digits_cnn_early_exit_int8")
    with pytest.raises(NotApplicable, match="whose training has no gradient"):
        harden(victim, digit_images, digit_labels, 4 / 255)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"method": "answer"}, "did you mean answers"),
        ({"method": "answers(step=2)"}, "has no option 'step': it has steps, clean, margins"),
        ({"method": "thresholds(steps=2)"}, "it has none"),
        ({"method": "answers(steps=0)"}, "takes at least one"),
        ({"method": "answers(margins=-1)"}, "give a weight of 0 or more"),
        ({"method": "noise(sigma=0)"}, "give a deviation above 0"),
        ({"method": "noise(sigma='a')"}, "give its options numbers"),
        ({"method": "groups(rate=0)"}, "give a number above 0"),
        ({"method": "bounds(most=2)"}, "give shares in"),
        ({"groups": torch.zeros(3)}, "groups must be whole numbers"),
        ({"train_at": 2.0}, "is no budget"),
    ],
)
def test_settings_that_are_none(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        toy(LinearSaver(), **settings)


def test_terms_and_schedules_that_are_none() -> None:
    for make in (
        lambda: Schedule(epochs=0),
        lambda: Schedule(rate=0),
        lambda: Terms(allowed=-0.1),
        lambda: Terms(attacked=0),
    ):
        with pytest.raises(UsageError):
            make()
    images, labels = noise_images(4, 0, SHAPE), torch.arange(4) % 2
    with pytest.raises(UsageError, match="give at least 5"):
        harden(LinearSaver(), images, labels, 8 / 255)


def test_every_method_is_told() -> None:
    page = (Path(__file__).parents[2] / "docs" / "hardening.md").read_text(encoding="utf-8")
    help_text = parsers()["harden"].format_help()
    for name in METHODS:
        assert f"\n| `{name}" in page
        assert name in help_text
