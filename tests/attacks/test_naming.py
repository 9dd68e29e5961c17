"""Names with options: read safely, written as they are read, refused with what is known."""

from __future__ import annotations

import copy
import inspect

import pytest
import torch
from toys import LinearSaver, grey_images

import effattack
from effattack.attacks import Attack, QueryAttack, Slowdown, attack_class, build
from effattack.attacks.objectives import Step
from effattack.errors import UsageError
from effattack.threats import L2, Patch


@pytest.mark.parametrize(
    "name",
    [
        "Slowdown",
        "Slowdown(keep_prediction=True)",
        "DeepSloth(steps=200)",
        "foolbox.LinfPGD(steps=3)",
    ],
)
def test_a_name_comes_back_as_it_was_given(name: str) -> None:
    assert build(name, LinearSaver()).name == name


def test_defaults_and_budgets_stay_out_of_the_name() -> None:
    attack = build("Slowdown(threat='l2:1.0', steps=50, kappa=0.1)", LinearSaver())
    assert attack.name == "Slowdown(kappa=0.1)"
    assert (attack.threat.name, attack.eps) == ("l2", 1.0)
    assert attack.settings["steps"] == 50
    assert repr(attack).startswith("Slowdown(threat='l2:1', steps=50, kappa=0.1, ")
    assert Slowdown(LinearSaver(), 4 / 255, kappa=0.1).name == attack.name
    assert copy.deepcopy(attack).name == attack.name


def test_the_signature_is_that_of_the_constructor() -> None:
    assert list(inspect.signature(QueryAttack).parameters)[:3] == ["victim", "eps", "threat"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Slowdown(step=3)", "steps.*its options: threat, steps, kappa, keep_prediction, restarts"),
        ("clean(steps=3)", "its options: none"),
        ("Slowdown(seed=3)", "seed is no option of Slowdown: .*--seed"),
        ("Slowdown(eps=0.03)", "eps is no option of Slowdown: .*--eps.*threat='linf:4/255'"),
        ("Slowdown(kappa=4/255)", "4 / 255 is no plain value"),
        ("Slowdown(steps=2.5)", "steps = 2.5: give a whole number"),
        ("Slowdown(kappa='x')", "kappa = 'x': give a number"),
        ("Slowdown(keep_prediction=1)", "keep_prediction = 1: give a truth value"),
        ("CascadeAttack(base=1)", "base = 1: give a text"),
        ("Slowdown(3)", "option=value"),
        ("Slowdown(steps=3", "cannot read '"),
        ("Slowdown(steps=exit())", "cannot read '"),
        ("Slowdown(**{'steps': 3})", "option=value"),
        ("Slowdon(steps=3)", "did you mean Slowdown"),
    ],
)
def test_names_that_cannot_be_read(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        attack_class(text)


@pytest.mark.parametrize(
    "text", ["DeepSloth(steps='many')", "Slowdown(threat='l9:1')", "Slowdown(threat=5)"]
)
def test_options_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match=r"cannot be made|is no threat|give a threat"):
        build(text, LinearSaver())


def test_one_class_in_several_settings_and_budgets() -> None:
    names = ["Slowdown", "Slowdown(keep_prediction=True)", "Slowdown(threat='l2:0.1')"]
    victim, images = LinearSaver(), grey_images(6)
    found = effattack.evaluate(victim, images, torch.zeros(6).long(), names, timed=0)
    scores = found.scores()
    rows = scores[["attack", "threat", "eps"]].itertuples(index=False, name=None)
    assert list(rows) == [
        ("clean", "none", 0.0),
        ("noise", "l2", 0.1),
        ("noise", "linf", 8 / 255),
        ("uniform", "box", 1.0),
        ("Slowdown", "linf", 8 / 255),
        ("Slowdown(keep_prediction=True)", "linf", 8 / 255),
        ("Slowdown", "l2", 0.1),
        ("union", "linf", 8 / 255),
        ("union", "l2", 0.1),
    ]
    stronger = [c.message for c in found.checks() if c.check == "Slowdown is stronger than noise"]
    assert "of noise at eps 8/255" in stronger[0]
    assert "of noise at l2 0.1" in stronger[1]


# the callback


@pytest.mark.parametrize("threat", [None, L2(0.1), Patch(2)])
@pytest.mark.parametrize("attack", [Slowdown, QueryAttack])
def test_a_callback_sees_every_step(attack: type[Attack], threat: object) -> None:
    victim, images, seen = LinearSaver(), grey_images(8), []
    victim.max_macs *= 10  # so that no image is finished early
    made = build(attack.__name__, victim) if threat is None else attack(victim, threat=threat)
    found = made(images, callback=lambda step: seen.append((step[:3], step.macs.sum().item())))
    steps = 51 if attack is Slowdown else 200
    first = 0 if attack is Slowdown else 1  # the start itself is looked at; a query is one look
    assert [place for place, _ in seen] == [(0, first + k, seen[0][0][2]) for k in range(steps)]
    spent = [macs for _, macs in seen]
    assert spent == sorted(spent), "the best so far"
    assert victim.trace(found).macs.sum().item() == pytest.approx(spent[-1], abs=8)


def test_a_callback_may_keep_what_it_is_told_and_change_nothing() -> None:
    victim, images, seen = LinearSaver(), grey_images(30), []

    def spoil(step: Step) -> None:
        seen.append(step.macs.clone())
        step.macs.fill_(0)

    attack = Slowdown(victim, 8 / 255, steps=9)
    kept: list[Step] = []
    found = attack(images, callback=kept.append)
    assert torch.equal(attack(images, callback=spoil), found)
    assert all(torch.equal(step.macs, macs) for step, macs in zip(kept, seen, strict=True))
    assert kept[0].macs.sum() < kept[-1].macs.sum()


def test_what_a_callback_raises_ends_the_attack() -> None:
    def stop(step: Step) -> None:
        raise KeyboardInterrupt

    victim = LinearSaver().train()
    with pytest.raises(KeyboardInterrupt):
        Slowdown(victim)(grey_images(2), callback=stop)
    assert victim.training
    assert all(p.requires_grad for p in victim.parameters())
