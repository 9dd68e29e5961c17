"""SkipNet: both paths, executed MACs, gates, and bad input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from effattack import audit
from effattack.errors import UsageError
from effattack.models_zoo.layer_skipping.skipnet import (
    GateCell,
    PooledGate,
    RecurrentGate,
    SigmoidGate,
    SkipNet,
)
from effattack.models_zoo.networks import convolution, pooled_head
from effattack.victim.checks import INVARIANTS, Check

SHAPE = (3, 8, 8)
CONVOLUTION = 8 * 8 * 9 * 8 * 8


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(convolution(width, width), convolution(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.body(x)).relu()


def build(kind: str = "pooled", gates: Sequence[Any] | None = None, **settings: Any) -> SkipNet:
    """Eight channels; three residual blocks, one that halves the image, one more residual one."""
    torch.manual_seed(2)
    blocks = [Residual(8), Residual(8), Residual(8), convolution(8, 12, 2), Residual(12)]
    if gates is None:
        cell = GateCell()
        widths = [8, 8, 8, None, 12]
        gates = [
            None if w is None else PooledGate(w) if kind == "pooled" else RecurrentGate(w, cell)
            for w in widths
        ]
        for gate in filter(None, gates):
            (gate if kind == "pooled" else gate.cell).linear.bias.data.zero_()
            gate.linear.weight.data.normal_(std=2)
    stem, head = convolution(3, 8), pooled_head(12, 5)
    return SkipNet(stem, blocks, gates, head, SHAPE, **settings)


def images(count: int = 8) -> Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(1)) ** 3


@pytest.fixture(params=["pooled", "recurrent"])
def victim(request: pytest.FixtureRequest) -> SkipNet:
    return build(request.param)


@pytest.mark.parametrize("check", INVARIANTS, ids=lambda check: check.__name__)
def test_contract(victim: SkipNet, check: Check) -> None:
    assert check(victim, images()) == []


def test_blocks_are_skipped_and_computed(victim: SkipNet) -> None:
    with torch.no_grad():
        trace = victim.trace(images())
    computed = torch.cat([gate.active for gate in trace.gates], dim=1)
    assert computed.any()
    assert not computed.all()
    assert len(set(trace.macs.tolist())) > 1
    assert torch.equal(audit(victim, images()).macs, trace.macs)


def test_closed_form() -> None:
    victim = build()
    residual, small = 2 * CONVOLUTION, 2 * (4 * 4 * 9 * 12 * 12)
    always = 8 * 8 * 9 * 3 * 8 + 4 * 4 * 9 * 8 * 12 + 12 * 5
    gating = 3 * 8 + 12
    assert victim.dense_macs == always + 3 * residual + small
    assert victim.max_macs == victim.dense_macs + gating
    trace = victim.trace(images())
    assert [gate.name for gate in trace.gates] == ["blocks.0", "blocks.1", "blocks.2", "blocks.4"]
    assert [gate.cost for gate in trace.gates] == [residual] * 3 + [small]
    expected = always + gating + sum(gate.active[:, 0].double() * gate.cost for gate in trace.gates)
    assert torch.equal(trace.macs, expected)


def test_a_skipped_block_is_the_identity() -> None:
    victim = build()
    for gate in victim.gates.values():
        gate.linear.weight.data.zero_()
        gate.linear.bias.data.fill_(-1)
    with torch.no_grad():
        expected = victim.head(victim.blocks[3](victim.stem(images())))
        torch.testing.assert_close(victim(images()), expected)
        torch.testing.assert_close(victim.trace(images()).logits, expected)


def test_images_of_a_batch_do_not_meet(victim: SkipNet) -> None:
    victim, batch = victim.double(), images().double()
    with torch.no_grad():
        together = victim(batch)
        alone = torch.cat([victim(image) for image in batch.split(1)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)


def test_gradient_from_every_gate(victim: SkipNet) -> None:
    pixels = images().requires_grad_()
    for gate in victim.trace(pixels).gates:
        (gradient,) = torch.autograd.grad(gate.margin.sum(), pixels, retain_graph=True)
        assert gradient.flatten(1).any(1).all()


class TestPolicy:
    def test_sign_bounds_and_slope(self) -> None:
        z = torch.linspace(-9, 9, 1801, dtype=torch.float64).requires_grad_()
        margin = SigmoidGate().margin(z)
        assert torch.equal(margin > 0, SigmoidGate().computes(z))
        sure = z.abs() > 1e-9
        assert torch.equal((margin > 0)[sure], (z.sigmoid() > 0.5)[sure])
        assert (margin.abs() <= 0.5).all()
        (slope,) = torch.autograd.grad(margin.sum(), z)
        assert slope.max().item() == pytest.approx(0.25)

    def test_not_blind_where_the_sigmoid_saturates(self) -> None:
        z = torch.tensor([-500.0, 500.0], requires_grad=True)
        assert not torch.autograd.grad((z.sigmoid() - 0.5).sum(), z)[0].any()
        assert (torch.autograd.grad(SigmoidGate().margin(z).sum(), z)[0] > 1e-7).all()

    @pytest.mark.parametrize("threshold", [0.2, 0.9])
    def test_other_thresholds(self, threshold: float) -> None:
        z = torch.linspace(-5, 5, 999, dtype=torch.float64)
        assert torch.equal(SigmoidGate(threshold).computes(z), z.sigmoid() > threshold)

    @pytest.mark.parametrize("threshold", [0, 1, -0.5, float("nan")])
    def test_out_of_range(self, threshold: float) -> None:
        with pytest.raises(UsageError, match="gate threshold"):
            build(threshold=threshold)


def test_relaxed_path_takes_the_same_decisions(victim: SkipNet) -> None:
    logits, share = victim.relaxed(images())
    with torch.no_grad():
        torch.testing.assert_close(logits, victim(images()), rtol=1e-4, atol=1e-5)
    assert ((share > 0) & (share < 1)).all()
    share.sum().backward()
    parameters = list(victim.gates.parameters())
    assert any(p.grad is not None and p.grad.any() for p in parameters)
    assert len({id(p) for p in parameters}) == len(parameters)


@pytest.mark.parametrize(
    ("gates", "message"),
    [
        ([None] * 5, "at least one"),
        ([PooledGate(8)] * 3, "5 blocks and 3 gates"),
        ([None, None, None, PooledGate(8), None], "block 3 turns"),
        ([nn.Identity(), None, None, None, None], "must give one logit"),
    ],
)
def test_bad_gates(gates: list[Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build(gates=gates)
