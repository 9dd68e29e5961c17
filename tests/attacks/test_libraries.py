"""Every attack of torchattacks and foolbox that is offered by name runs, inside its budget."""

from __future__ import annotations

import copy
import inspect
import warnings
from typing import Any

import pytest
import torch
from torch import nn
from toys import LinearSaver, grey_images

from effattack.attacks import Foolbox, Torchattacks, build
from effattack.attacks.foreign.adapters import LibraryAttack
from effattack.domains.pixels import to_grid
from effattack.errors import NotApplicable, UsageError
from effattack.models_zoo.early_exit.early_exit import EarlyExit
from effattack.victim import Victim

pytest.importorskip("torchattacks")

BUDGETS = {
    "linf": "linf:32/255",
    "l2": "l2:1.0",
    "l1": "l1:10",
    "pixels": "pixels:20",
    "box": "box",
}
SHORT = {
    "steps": 3,
    "max_iterations": 10,
    "n_queries": 10,
    "binary_search_steps": 2,
    "directions": 20,
    "repeats": 3,
    "nb_sample": 4,
    "initial_gradient_eval_steps": 5,
    "max_gradient_eval_steps": 10,
    "popsize": 2,
    "restarts": 2,
    "num_rotations": 2,
    "num_translations": 2,
}
"""Options that keep each attack under a second."""
SLOW = {"AutoAttack", "OnePixel", "PointwiseAttack", "SparseFool"}
"""Seconds to minutes each; tried by hand (docs/accuracy.md)."""


def needs_numba(name: str) -> bool:
    return "BrendelBethge" in name


def every_attack() -> list[Any]:
    found = []
    for library in (Torchattacks, Foolbox):
        found += [(library, name) for name in library.known() if name not in SLOW]
    return found


@pytest.fixture(scope="module")
def colour() -> Victim:
    """Three channels, two exits, four classes that meet at grey."""
    torch.manual_seed(0)
    heads = [nn.Linear(192, 4), nn.Linear(192, 4)]
    for head in heads:
        head.bias.data = -0.5 * head.weight.data.sum(1)
    return EarlyExit([nn.Flatten(), nn.Identity()], heads, 0.6, (3, 8, 8), name="colour")


@pytest.mark.parametrize(
    ("library", "name"), every_attack(), ids=lambda part: getattr(part, "library", part)
)
def test_it_runs_inside_its_budget(library: type[LibraryAttack], name: str, colour: Victim) -> None:
    cls, usable = library.known()[name]
    if needs_numba(name):
        pytest.importorskip("numba")
    takes = inspect.signature(cls).parameters
    options = {key: value for key, value in SHORT.items() if key in takes}
    images = grey_images(3, shape=(3, 8, 8))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        attack = library(colour, name, threat=BUDGETS[usable[0]], **options)
        found = attack(images, colour(images).argmax(1))
    assert found.shape == images.shape, "and what comes back has been checked against the threat"


@pytest.mark.parametrize(
    ("library", "name", "told"),
    [
        (Torchattacks, "FAB", {"threat": "l2:1.0", "steps": 3}),
        (Torchattacks, "EADL1", {"threat": "l1:10", "max_iterations": 10}),
        (Torchattacks, "TIFGSM", {"steps": 3}),
        (Foolbox, "SpatialAttack", {"threat": "box", "num_rotations": 2, "num_translations": 2}),
    ],
)
def test_what_fails_in_float64_sees_float32(
    library: type[LibraryAttack], name: str, told: dict[str, Any], colour: Victim
) -> None:
    """These raise on double images; the victim computes in double all the same."""
    images = grey_images(3, shape=(3, 8, 8)).double()
    found = library(copy.deepcopy(colour).double(), name, **told)(images)
    assert found.dtype == torch.float32
    assert torch.equal(found, to_grid(found))
    assert not torch.equal(found, images)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("torchattacks.PGDL2", r"torchattacks.PGDL2\(threat='l2:1.0'\)"),
        ("torchattacks.PGD(threat='l2:1.0')", r"torchattacks.PGD\(threat='linf:8/255'\)"),
        ("torchattacks.OnePixel", r"threat='pixels:20'"),
        ("foolbox.L1FMNAttack(threat='l2:1.0')", r"threat='l1:10'"),
        ("foolbox.SpatialAttack", r"threat='box'"),
    ],
)
def test_a_budget_of_another_kind_names_the_right_one(name: str, remedy: str) -> None:
    with pytest.raises(UsageError, match=f"cannot use the budget.*{remedy}"):
        build(name, LinearSaver())


def test_a_free_norm_follows_the_threat() -> None:
    victim, clean = LinearSaver(), grey_images(4)
    near, far = (
        build(f"torchattacks.APGD(threat='l2:{eps}', steps=3)", victim)(clean) for eps in (0.3, 3.0)
    )
    lengths = [(found - clean).flatten(1).norm(dim=1).max() for found in (near, far)]
    assert lengths[0] <= 0.3001 < lengths[1]


def test_what_takes_three_channels_says_so() -> None:
    with pytest.raises(NotApplicable, match="3 channels for granted"):
        build("torchattacks.TIFGSM", LinearSaver())


@pytest.mark.parametrize("name", ["APGDT", "AutoAttack"])
def test_what_takes_four_classes_says_so(name: str) -> None:
    with pytest.raises(NotApplicable, match="at least 4 classes"):
        build(f"torchattacks.{name}", LinearSaver())


@pytest.mark.parametrize("name", ["LGV", "MultiAttack", "GN", "VANILA", "GenAttack"])
def test_what_cannot_work_is_not_offered(name: str) -> None:
    assert name not in Torchattacks.known() | Foolbox.known()


def test_attacks_are_told_the_number_of_classes_and_the_seed(
    colour: Victim, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torchattacks

    told: dict[str, Any] = {}

    class Recorded(torchattacks.AutoAttack):
        def __init__(  # type: ignore[no-untyped-def]
            self, model, norm="Linf", eps=1, version="standard", n_classes=10, seed=None
        ):
            told.update(n_classes=n_classes, seed=seed, norm=norm)
            super().__init__(model, norm, eps, version, n_classes, seed)

        def forward(self, images: Any, labels: Any) -> Any:
            return images

    monkeypatch.setattr(torchattacks, "AutoAttack", Recorded)
    attack = build("torchattacks.AutoAttack(threat='l2:1.0')", colour, seed=7)
    attack(grey_images(2, shape=(3, 8, 8)))
    assert told == {"n_classes": 4, "seed": 7, "norm": "L2"}, "10 classes, and the clock, else"
