"""ESN: the sequence seen at once and position by position, its MACs, and models that do not fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from effattack import audit
from effattack.errors import UsageError
from effattack.models_zoo.cascade.esn import ESN
from effattack.models_zoo.cascade.exit_sequence import ExitSequence
from effattack.models_zoo.criteria import Patience
from effattack.models_zoo.networks import convolution, pooled_head
from effattack.victim.checks import INVARIANTS, Check

SHAPE = (3, 8, 8)
WIDTH, CLASSES = 16, 5
SAVER = 16 * 27 * 4 + 4 * CLASSES
STAGES = [64 * 27 * 6, 16 * 54 * 8, 16 * 72 * 8 + 8 * CLASSES]
"""MACs of the base's stages, the head with the last."""


def victim(layers: int = 2, criterion: Any = (0.27, 0.43, 0.5), classes: int = CLASSES) -> ESN:
    torch.manual_seed(0)
    saver = convolution(3, 4, 2), pooled_head(4, classes)
    stages = [convolution(3, 6), convolution(6, 8, 2), convolution(8, 8)]
    esn = ESN(saver, stages, pooled_head(8, CLASSES), criterion, SHAPE, width=WIDTH, layers=layers)
    with torch.no_grad():
        for linear in (esn.saver[1][2], esn.head[2], *esn.sequence.exits):
            linear.weight.mul_(4)
    return esn


def images(count: int = 12) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return (
        torch.rand(count, *SHAPE, generator=generator)
        * torch.linspace(0, 1, count or 1).view(-1, 1, 1, 1)[:count]
    )


@pytest.mark.parametrize("check", INVARIANTS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("layers", [0, 1, 3])
def test_contract(layers: int, check: Check) -> None:
    assert check(victim(layers), images()) == []


@pytest.mark.parametrize("check", INVARIANTS, ids=lambda check: check.__name__)
def test_contract_with_another_criterion(check: Check) -> None:
    assert check(victim(criterion=Patience(1)), images()) == []


def test_images_leave_at_the_saver_at_exits_and_at_the_end() -> None:
    assert len(audit(victim(), images()).macs.unique()) >= 3


def position(k: int, channels: int, head: bool) -> int:
    """Embedding, two blocks that attend to k + 1 positions (the last has no FFN), head."""
    attention = 4 * WIDTH**2 + 2 * (k + 1) * WIDTH
    return channels * WIDTH + 2 * attention + 8 * WIDTH**2 + head * WIDTH * CLASSES


def test_macs_in_closed_form() -> None:
    first = STAGES[0] + position(0, 4, head=False) + position(1, 6, head=True)
    second = STAGES[1] + position(2, 8, head=True)
    spent = [SAVER, SAVER + first, SAVER + first + second, SAVER + first + second + STAGES[2]]
    for stage, macs in enumerate(spent):
        thresholds = [1.0] * stage + [0.0] * (3 - stage)
        leaving = victim(criterion=thresholds)
        assert audit(leaving, images(2)).macs.tolist() == [macs] * 2
    assert victim().max_macs == spent[-1]
    assert victim().dense_macs == sum(STAGES)


def test_saver_and_base_answer_as_they_are() -> None:
    esn, pixels = victim(), images()
    stage_logits = esn.trace(pixels).stage_logits
    assert stage_logits is not None
    assert stage_logits.shape == (12, 4, CLASSES)
    base = nn.Sequential(*esn.stages, esn.head)
    torch.testing.assert_close(stage_logits[:, 0], nn.Sequential(*esn.saver)(pixels))
    torch.testing.assert_close(stage_logits[:, -1], base(pixels))


def test_exits_correct_the_saver() -> None:
    esn = victim()
    for head in esn.sequence.exits:
        nn.init.zeros_(head.weight)
    stage_logits = esn.stage_logits(images())
    assert torch.equal(stage_logits[:, 1], stage_logits[:, 0])
    assert torch.equal(stage_logits[:, 2], stage_logits[:, 0])


def test_positions_see_only_what_came_before() -> None:
    torch.manual_seed(0)
    sequence = ExitSequence([4, 6, 8], CLASSES, WIDTH, layers=3, heads=4).eval()
    features = [torch.rand(2, c, 3, 3) for c in (4, 6, 8)]
    together, _ = sequence.states(0, features, sequence.nothing(features[0]))
    past, alone = sequence.nothing(features[0]), []
    for k, feature in enumerate(features):
        state, past = sequence.states(k, [feature], past)
        alone.append(state)
    torch.testing.assert_close(torch.cat(alone, dim=1), together)
    assert [kept.shape for kept in past] == [(2, 3, 2 * WIDTH)] * 3
    later = [*features[:2], features[2] + 1]
    moved, _ = sequence.states(0, later, sequence.nothing(features[0]))
    assert torch.equal(moved[:, :2], together[:, :2])
    assert not torch.equal(moved[:, 2], together[:, 2])


def test_parts_that_do_not_fit() -> None:
    with pytest.raises(UsageError, match=r"\(4, 5\) classes"):
        victim(classes=4)
    with pytest.raises(UsageError, match="2 thresholds for 3 decisions"):
        victim(criterion=[0.5, 0.5])
    with pytest.raises(UsageError, match="no probabilities"):
        victim(criterion=1.5)
    saver = convolution(3, 4), pooled_head(4, CLASSES)
    with pytest.raises(UsageError, match="a stage before and after"):
        ESN(saver, [convolution(3, 8)], pooled_head(8, CLASSES), 0.5, SHAPE)
    stages = [convolution(3, 8), convolution(8, 8)]
    with pytest.raises(UsageError, match="width 12 does not split into 8 heads"):
        ESN(saver, stages, pooled_head(8, CLASSES), 0.5, SHAPE, width=12)
