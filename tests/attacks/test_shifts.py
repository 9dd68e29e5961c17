"""``shifts``: all natural shifts of a victim's inputs, in the rows beside the adversary's."""

from __future__ import annotations

import pytest
import torch
from prompts import TokenExits, some_prompts
from torch import nn
from toys import LinearSaver, embedded, noise_images

from effattack import evaluate
from effattack.attacks import attack_class, build
from effattack.attacks.by_name import NATURAL, SHIFTS, spelled_out
from effattack.errors import NotApplicable, UsageError
from effattack.inputs.source import load_data, subset
from effattack.runs.sweep import Sweep
from effattack.victim import Opaque

ALL = [name for names in NATURAL.values() for name in names]


@pytest.mark.parametrize("name", ALL)
def test_they_search_nothing(name: str) -> None:
    attack = attack_class(name)
    assert (attack.kind, attack.knowledge) == ("control", "nothing")


def test_they_are_spelled_out_once_each() -> None:
    assert spelled_out(["Slowdown", SHIFTS, "gaps"], ["series"]) == ["Slowdown", "gaps", "drift"]
    assert spelled_out([SHIFTS]) == ALL
    assert spelled_out([SHIFTS], ["parts"]) == []
    assert spelled_out(["noise", "noise"]) == ["noise"]


def test_images_have_them_beside_the_adversary() -> None:
    victim = LinearSaver()
    images = noise_images(4, 0, victim.input_shape)
    with torch.no_grad():
        labels = victim(images).argmax(1)
    result = evaluate(victim, images, labels, ["Slowdown(steps=2)", SHIFTS], timed=0)
    scores = result.scores().set_index("attack")
    assert {*NATURAL["pixels"], "Slowdown(steps=2)", "noise"} <= {*scores.index}
    assert not scores.loc["corruption(kind='style')"].inside


@pytest.mark.slow
def test_series_and_prompts_have_them_by_name_in_a_sweep() -> None:
    sweep = Sweep(("cbf_cnn_exit", "text_exit"), attacks=(SHIFTS,), samples=4, timed=0)
    ready = {plan.about.name: {cell.spec.attack for cell in plan.attacks} for plan in sweep.plan()}
    assert {*NATURAL["series"]} <= ready["cbf_cnn_exit"]
    assert {*NATURAL["tokens"]} <= ready["text_exit"]


def test_what_does_not_apply_is_told() -> None:
    victim, prompts = TokenExits(), some_prompts(4)
    with torch.no_grad():
        labels = victim(prompts).argmax(1)
    result = evaluate(victim, prompts, labels, [SHIFTS], eps="swap:2", timed=0)
    assert "word_order" in set(result.scores().attack)
    (skipped,) = result.meta["skipped"]
    assert skipped["attack"] == "misspelling"
    assert "no tokenizer" in skipped["reason"]


def test_style_is_a_factor_about_one_and_size_keeps_the_middle() -> None:
    victim = LinearSaver()
    grey = torch.full((1, *victim.input_shape), 100 / 255)
    style = build("corruption(kind='style', severity=5)", victim)(grey)
    assert (style / grey).min() >= 0.5 - 0.01
    assert (style / grey).max() == pytest.approx(1.5, abs=0.01)
    assert torch.equal(build("corruption(kind='size')", victim)(grey), grey)
    ramp = torch.linspace(0, 1, 5).mul(255).round().div(255).expand(1, 1, 5, 5)
    wide = Opaque(nn.Sequential(nn.Flatten(), nn.Linear(25, 2)), (1, 5, 5))
    found = build("corruption(kind='size', severity=4)", wide)(ramp)
    assert found[0, 0, 2, 2] == pytest.approx(0.5, abs=1 / 255)
    assert found[0, 0, 2, 3] == pytest.approx(0.5 + 0.25 / 0.8, abs=1 / 255), "1/.8 px away"


def test_things_of_another_size_are_elsewhere() -> None:
    with pytest.raises(NotApplicable, match="draw the images anew, with their own labels; style"):
        build("corruption(kind='size')", embedded("scenes_detector"))


def test_a_misspelt_name_is_told() -> None:
    with pytest.raises(UsageError, match="did you mean shifts"):
        attack_class("shift")


def test_style_on_scenes_keeps_their_labels() -> None:
    victim = embedded("scenes_detector")
    images, _ = subset(*load_data(None, victim), 2)
    found = build("corruption(kind='style', severity=1)", victim)(images)
    assert not torch.equal(found, images)
