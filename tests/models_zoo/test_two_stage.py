"""Two-stage detectors: MACs move with the proposals that outlive the first NMS."""

import pytest
import torch
from detectors import noise
from torch import nn
from torchvision.ops import batched_nms, box_iou, nms
from two_stages import TinyStages, two_stage

from effattack.attacks import Slowdown
from effattack.counting.macs import count_macs
from effattack.errors import ContractError, UsageError
from effattack.models_zoo.detection.rules import Rules
from effattack.models_zoo.detection.two_stage import TwoStage
from effattack.victim import audit
from effattack.victim.checks import INVARIANTS

EACH = 8 * 3 * 3 * (4 * 2 + 2)
"""MACs of the head on one proposal."""
VARIANTS = {
    "as it is": {},
    "a low cap": {"most": 3},
    "no threshold": {"score": None},
    "no proposals": {"score": 1.0},
    "free sizes": {"input_shape": (3, None, None), "max_macs": 1e6},
}
every_variant = pytest.mark.parametrize("variant", sorted(VARIANTS))


def by_hand(image, score, most):
    """Of one image (1, 3, 32, 32): the answer, and the number of proposals."""
    network = TinyStages()
    features = network.features(image)
    boxes, scores = (each[0] for each in network.propose(features))
    above = scores > (-1 if score is None else score)
    boxes, scores = boxes[above].clamp(0, 32), scores[above]
    boxes = boxes[nms(boxes, scores, 0.5)[:most]]
    placed, seen, classes = network.look(features, [boxes])
    placed, seen = placed.reshape(-1, 4).clamp(0, 32), seen.flatten()
    classes = classes.repeat(len(boxes))
    above = seen > 0.4
    placed, seen, classes = placed[above], seen[above], classes[above]
    kept = batched_nms(placed, seen, classes, 0.5)[:20]
    return torch.cat([placed, seen[:, None], classes[:, None].float()], 1)[kept], len(boxes)


@every_variant
@pytest.mark.slow
def test_the_contract_holds(variant):
    victim, images = two_stage(**VARIANTS[variant]), noise(3)
    for check in INVARIANTS:
        said = check(victim, images)
        assert said == [] or (check.__name__ == "check_gradients" and variant == "no proposals")


@pytest.mark.parametrize(
    ("score", "most"),
    [(0.5, 40), (0.5, 3), (None, 40), (1.0, 40)],
)
@pytest.mark.slow
def test_answers_and_macs_are_those_of_a_loop_around_torchvision(score, most):
    victim, images = two_stage(score, most), noise(3)
    found, trace = audit(victim, images), victim.trace(images)
    base = count_macs(lambda x: TinyStages().propose(TinyStages().features(x)), images[:1])
    for index, members in enumerate(victim.task.members(found.logits)):
        with torch.no_grad():
            expected, proposals = by_hand(images[index : index + 1], score, most)
        assert members.shape == expected.shape
        assert torch.allclose(members, expected, atol=1e-5)
        assert found.counts["proposals"][index] == trace.also["proposals"][index] == proposals
        assert found.macs[index] == trace.macs[index] == base + proposals * EACH
    assert victim.max_macs == base + most * EACH
    for name, count in found.counts.items():
        assert torch.equal(count, trace.also[name]), name
        assert (count <= victim.ceiling(images, name)).all(), name


def test_the_second_margin_is_the_limit_less_the_overlap_with_a_better_box():
    victim, images = two_stage(None), noise(1)
    gate = victim.trace(images).gates[-1]
    boxes, scores = (each[0] for each in TinyStages().propose(TinyStages().features(images)))
    boxes, stays = boxes.clamp(0, 32), gate.active[0]
    assert gate.reached.all()
    assert stays.nonzero()[:, 0].tolist() == sorted(nms(boxes, scores, 0.5).tolist())
    shares = box_iou(boxes, boxes) * (stays[None] & (scores[None] > scores[:, None]))
    excess = 0.5 - shares.amax(1)
    assert torch.allclose(gate.margin[0], excess / (1 + excess.abs()), atol=1e-5)


def test_boxes_behind_the_last_that_the_cap_admits_are_not_reached():
    images = noise(1)
    whole, capped = (two_stage(None, most).trace(images).gates[-1] for most in (40, 7))
    assert capped.active.sum() == 7
    assert capped.reached.sum() < whole.reached.sum() == 64
    assert not (capped.active & ~whole.active).any()


@pytest.mark.slow
def test_the_house_attack_finds_more_to_look_at():
    victim, images = two_stage(), noise(3)
    attack = Slowdown(victim, steps=10)
    drawn = attack.threat.start(images, torch.Generator().manual_seed(0))
    clean, noisy, attacked = (
        victim.trace(each).macs.sum() for each in (images, drawn, attack(images))
    )
    assert attacked - clean > 2 * (noisy - clean).abs()


class Uneven(TinyStages):
    """The third proposal costs more."""

    def look(self, features, boxes):
        if sum(map(len, boxes)) > 2:
            super().look(features, boxes)
        return super().look(features, boxes)


class OneBox(TinyStages):
    """One box for two classes."""

    def look(self, features, boxes):
        placed, scores, classes = super().look(features, boxes)
        return placed[:, :1], scores, classes


class NoClasses(TinyStages):
    """Boxes and scores alone."""

    def look(self, features, boxes):
        return super().look(features, boxes)[:2]


class SomeProposals(TinyStages):
    """Their number is the image's."""

    def propose(self, features):
        boxes, scores = super().propose(features)
        there = (scores > 0.1).all(0)
        return boxes[:, there], scores[:, there]


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (Uneven, "let every proposal cost the same"),
        (OneBox, "look gave"),
        (NoClasses, r"return \(boxes, scores, classes\)"),
        (SomeProposals, "propose gave .* return all"),
        (lambda: nn.Conv2d(3, 3, 1), "Conv2d has no features, no propose, no look"),
    ],
)
def test_what_a_network_may_not_do_is_refused(network, words):
    rules = Rules(0.4, 0.5)
    with pytest.raises(ContractError, match=words):
        audit(TwoStage(network(), rules, rules, input_shape=(3, 32, 32)), noise(1))


def test_caps_and_sizes_out_of_range_are_refused():
    with pytest.raises(UsageError, match="max_det = 0"):
        two_stage(most=0)
    with pytest.raises(UsageError, match="least = -1"):
        TwoStage(TinyStages(), Rules(0.4, 0.5, least=-1), Rules(0.4, 0.5))
