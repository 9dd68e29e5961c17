"""Sponges: what they hear, by hand, and that both searches raise it."""

from __future__ import annotations

import pytest
import torch
from test_gated import bright_only
from torch import Generator, Tensor, nn
from toys import LinearSaver, grey_images

from effattack.attacks import Attack, EvolvedSponge, Noise, Sponge
from effattack.attacks.objectives import Goal
from effattack.attacks.published.sponge import ActivationNorm, ZeroSkippingMacs
from effattack.attacks.searches.activations import (
    Activations,
    activation_modules,
    density,
    total_norm,
)
from effattack.attacks.searches.evolution import Evolution
from effattack.errors import NotApplicable, UsageError
from effattack.threats import Box
from effattack.victim import Opaque, Trace, Victim

SPONGES = [Sponge, EvolvedSponge]


def hidden(victim: LinearSaver, images: Tensor) -> Tensor:
    """(B, 8): all activations that the toy has."""
    return victim.base[0](images.flatten(1)).relu().detach()


@pytest.fixture
def goal() -> Goal:
    return Goal(LinearSaver(), torch.zeros(5, 2), torch.zeros(5, dtype=torch.long))


# what is heard


def test_norms_and_density_by_hand(goal: Goal) -> None:
    victim, images = LinearSaver(), grey_images(5)
    values = hidden(victim, images)
    for objective in (ActivationNorm(), ZeroSkippingMacs()):
        with objective.heard.listening(victim):
            trace = victim.trace(images)
            found = objective(trace, goal)
        norm = values.norm(dim=1)
        if isinstance(objective, ZeroSkippingMacs):
            share = (values > 0).double().mean(1)
            torch.testing.assert_close(found, trace.macs * share + norm.double() / (1 + norm))
            assert 0 < share.min() < 1
        else:
            torch.testing.assert_close(found, norm)


def test_layers_add_up_and_are_heard_once() -> None:
    victim, images = LinearSaver(), grey_images(3)
    victim.base.append(nn.Tanh())
    heard, values = Activations(), hidden(victim, images)
    with heard.listening(victim):
        answer = victim.trace(images).stage_logits[:, 1].detach()  # type: ignore[index]
        layers = heard.take(3)
        torch.testing.assert_close(total_norm(layers), values.norm(dim=1) + answer.norm(dim=1))
        torch.testing.assert_close(density(layers), ((values > 0).sum(1).double() + 2) / 10)
        victim.trace(images[:2])
        assert len(heard.take(2)) == 2


def test_rows_that_are_no_images_are_refused() -> None:
    class ByHalves(LinearSaver):
        def trace(self, images: Tensor) -> Trace:
            self.base[1](images.flatten(1).view(-1, 8))
            return super().trace(images)

    with pytest.raises(NotApplicable, match=r"one row per image: 2 images gave .* \[2, 4\] rows"):
        Sponge(ByHalves())(grey_images(2))


@pytest.mark.parametrize("attack", SPONGES)
def test_no_hook_is_left_behind(attack: type[Attack]) -> None:
    class Exploding(LinearSaver):
        def trace(self, images: Tensor) -> Trace:
            if self.base[1]._forward_hooks:
                raise RuntimeError("in the middle")
            return super().trace(images)

    for victim in (LinearSaver(), Exploding()):
        made = attack(victim)
        if isinstance(victim, Exploding):
            with pytest.raises(RuntimeError, match="in the middle"):
                made(grey_images(2))
        else:
            made(grey_images(2))
        assert not any(m._forward_hooks for m in victim.modules())


# what they find


@pytest.mark.parametrize("attack", SPONGES)
@pytest.mark.parametrize("budget", ["box", "linf:8/255", "patch:2"])
def test_sponges_swell(attack: type[Attack], budget: str) -> None:
    victim, images = LinearSaver(doubt=-1.0), grey_images(6)  # its saver always answers
    noise = Noise(victim, threat=budget)(images)
    found = attack(victim, threat=budget)(images)
    if attack is Sponge:
        before, after = (hidden(victim, x).norm(dim=1) for x in (noise, found))
    else:
        before, after = ((hidden(victim, x) > 0).double().mean(1) for x in (noise, found))
    assert (after >= before).all()
    assert after.mean() > before.mean()


@pytest.mark.parametrize("attack", SPONGES)
def test_without_a_budget_the_pixel_box_is_all(attack: type[Attack]) -> None:
    assert isinstance(attack(LinearSaver()).threat, Box)
    assert attack(LinearSaver(), 8 / 255).threat.name == "linf"


@pytest.mark.parametrize("attack", SPONGES)
def test_who_has_no_activations(attack: type[Attack]) -> None:
    silent = bright_only()
    assert not activation_modules(silent)
    with pytest.raises(NotApplicable, match=r"no activation modules.*F\.relu"):
        attack(silent)
    with pytest.raises(NotApplicable, match="cannot be opened; QueryAttack"):
        attack(Opaque(LinearSaver(), (1, 4, 4)))


# how they breed


class Watched(LinearSaver):
    """Keeps every image it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def trace(self, images: Tensor) -> Trace:
        self.seen.append(images)
        return super().trace(images)


class Brightness:
    """Fitness whose order is plain to see."""

    def check(self, trace: Trace, victim: Victim) -> None: ...

    def __call__(self, trace: Trace, goal: Goal) -> Tensor:
        assert isinstance(goal.victim, Watched)
        return goal.victim.seen[-1].flatten(1).mean(1)


def bred(search: Evolution, clean: Tensor) -> list[Tensor]:
    """All members, in the order of their birth; the clean images first."""
    victim = Watched()
    goal = Goal(victim, torch.zeros(len(clean), 2), torch.zeros(len(clean), dtype=torch.long))
    search(clean, Box(), Brightness(), goal, Generator().manual_seed(1))
    return victim.seen


def test_children_are_made_of_the_fittest() -> None:
    search, clean = Evolution(pool=10, generations=2, parents=0.2, mutated=0), grey_images(3)
    members = torch.stack(bred(search, clean)[1:])
    first, children = members[:10], members[10:]
    assert len(children) == 8
    for image in range(3):
        order = first[:, image].flatten(1).mean(1).argsort(descending=True)
        mother, father = first[order[:2], image]
        for child in children[:, image]:
            assert ((child == mother) | (child == father)).all()


def test_fitness_rises_and_mutants_are_new() -> None:
    search, clean = Evolution(pool=10, generations=8, parents=0.2, mutated=0.1), grey_images(3)
    members = torch.stack(bred(search, clean)[1:])
    bright = members.flatten(2).mean(2)
    assert (bright[-8:].mean(0) > bright[:10].mean(0) + 0.1).all()
    first, children = members[:10], members[10:18]
    inherited = (children[:, None] == first[None]).any(1)
    assert 0.02 < (~inherited).float().mean() < 0.2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool": 1}, "at least 2 members"),
        ({"generations": 0}, "one generation"),
        ({"parents": 0}, "shares"),
        ({"mutated": 2}, "shares"),
    ],
)
def test_pools_that_cannot_breed(options: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        EvolvedSponge(LinearSaver(), **options)  # type: ignore[arg-type]
