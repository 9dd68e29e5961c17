"""SkipNet: a gate before every residual block decides whether the block is computed.

Wang et al., "SkipNet: Learning Dynamic Routing in Convolutional Networks", ECCV 2018
(arXiv 1711.09485). The official code computes every block and masks it; here a skipped block is
not computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from effattack.counting.macs import count_macs
from effattack.domains import Pixels
from effattack.errors import UsageError
from effattack.models_zoo.layer_skipping.score_gate import ScoreMarginGate
from effattack.victim import Gate, Trace, Victim
from effattack.victim.door import blank
from effattack.victim.margins import bounded, log_odds
from effattack.victim.structure import ScoreGate, Skips

Memory = tuple[Tensor, Tensor] | None
"""Hidden and cell state (B, width) that recurrent gates hand on."""


class SigmoidGate:
    """The policy: compute the block where σ(z) exceeds the threshold.

    The margin (z - log-odds of t) / (4 + 2 |z - log-odds of t|) has the sign of σ(z) - t and, at
    t = 1/2, its slope at the threshold and its bounds; but its slope falls with 1 / z² where that
    of the sigmoid underflows, so that gradient attacks see confident gates, too.
    """

    def __init__(self, threshold: float = 0.5) -> None:
        if not 0 < threshold < 1:
            raise UsageError(f"gate threshold {threshold}: use a value between 0 and 1")
        self.threshold = threshold

    def __repr__(self) -> str:
        return f"SigmoidGate({self.threshold})"

    def share(self, z: Tensor) -> Tensor:
        """Gate logits (B,) -> σ (B,), moved so that the threshold lies at 1/2, where it is σ(z)."""
        return (z - log_odds(self.threshold)).sigmoid()

    def margin(self, z: Tensor) -> Tensor:
        """Gate logits (B,) -> margin (B,) in [-1/2, 1/2] of computing the block."""
        return bounded(z - log_odds(self.threshold), 2) / 2

    def computes(self, z: Tensor) -> Tensor:
        """Gate logits (B,) -> the decision (B,) bool."""
        return self.margin(z) > 0


class SkipNet(Victim):
    """Your own residual blocks and gates.

    Gates read the features before their block, of every image; ``forward`` then runs the block on
    the images that opened the gate, and the others keep their features. One gate per gated block,
    ``blocks.k``: active where it is computed. The trace's ``aux`` holds "shares" (B, gates): σ of
    each gate, above 1/2 where its block is computed.

    Args:
        stem: images -> features of the first block (B, C, H, W).
        blocks: modules features -> features, shortcut and activation included. A gated block must
            keep the shape: skipping it is the identity.
        gates: one per block: a module features -> logit (B,) or (B, 1) such as
            :class:`PooledGate` or
            :class:`~effattack.models_zoo.layer_skipping.score_gate.ScoreMarginGate`, a
            :class:`RecurrentGate`, or None for a block that always runs.
        head: features -> logits.
        input_shape: (C, H, W) of one image.
        threshold: a block is computed where σ(logit) exceeds it.
        settings: ``data``.

    Raises:
        UsageError: if blocks and gates do not pair up, nothing is gated, a gated block changes the
            shape, or a gate gives no single logit.
    """

    def __init__(
        self,
        stem: nn.Module,
        blocks: Sequence[nn.Module],
        gates: Sequence[nn.Module | None],
        head: nn.Module,
        input_shape: tuple[int, ...],
        *,
        threshold: float = 0.5,
        name: str = "SkipNet",
        **settings: Any,
    ) -> None:
        gated = {str(k): gate for k, gate in enumerate(gates) if gate is not None}
        if len(blocks) != len(gates) or not gated:
            raise UsageError(
                f"{len(blocks)} blocks and {len(gates)} gates: give one gate per block (None for a "
                "block that always runs), and at least one"
            )
        policy = SigmoidGate(threshold)
        modules = nn.ModuleList([stem, *blocks, *gated.values(), head]).eval()
        with torch.no_grad():
            x = blank(modules, Pixels(input_shape), 1)
            always, gating, skippable = count_macs(stem, x), 0, {}
            x, memory = stem(x), None
            for k, (block, gate) in enumerate(zip(blocks, gates, strict=True)):
                if gate is None:
                    always += count_macs(block, x)
                else:
                    skippable[k] = count_macs(block, x)
                    gating += count_macs(gate_logits, gate, x, memory)
                    z, memory = gate_logits(gate, x, memory)
                    _check_gated(k, x, block(x), z)
                x = block(x)
            always += count_macs(head, x)
            classes = head(x).shape[-1]
        super().__init__(
            name=name,
            family="layer skipping",
            input_shape=input_shape,
            num_classes=classes,
            max_macs=always + gating + sum(skippable.values()),
            dense_macs=always + sum(skippable.values()),
            **settings,
        )
        self.stem, self.head = stem, head
        self.blocks, self.gates = nn.ModuleList(blocks), nn.ModuleDict(gated)
        self.policy = policy
        self._least_macs, self._block_macs = float(always + gating), skippable

    def _pairs(self) -> Iterator[tuple[nn.Module, nn.Module | None]]:
        """Every block with its gate, if it has one."""
        gates = dict(self.gates.items())
        for k, block in enumerate(self.blocks):
            yield block, gates.get(str(k))

    def forward(self, images: Tensor) -> Tensor:
        x, memory = self.stem(images), None
        for block, gate in self._pairs():
            if gate is None:
                x = block(x)
                continue
            z, memory = gate_logits(gate, x, memory)
            rows = self.policy.computes(z).nonzero()[:, 0]
            if len(rows) == len(x):
                x = block(x)
            elif len(rows):
                x = x.index_copy(0, rows, block(x[rows]))
        return self.head(x)

    def trace(self, images: Tensor) -> Trace:
        x, memory, gates, shares = self.stem(images), None, [], []
        macs = torch.full((len(x),), self._least_macs, dtype=torch.float64, device=x.device)
        for k, (block, gate) in enumerate(self._pairs()):
            if gate is None:
                x = block(x.clone())  # a block may write into its input
                continue
            z, memory = gate_logits(gate, x, memory)
            computed = self.policy.computes(z)
            gates.append(
                Gate(
                    name=f"blocks.{k}",
                    margin=self.policy.margin(z),
                    active=computed,
                    reached=torch.ones_like(computed),
                    cost=float(self._block_macs[k]),
                )
            )
            shares.append(self.policy.share(z))
            macs = macs + computed * self._block_macs[k]
            x = torch.where(_per_image(computed, x), block(x.clone()), x)
        return Trace(
            logits=self.head(x),
            gates=tuple(gates),
            macs=macs,
            aux={"shares": torch.stack(shares, dim=1)},
        )

    def structure(self) -> Skips | None:
        """Its parts where all gates decide by score margins; None elsewhere."""
        gated = {
            int(k): ScoreGate(gate.scores, gate.threshold - log_odds(self.policy.threshold))
            for k, gate in self.gates.items()
            if isinstance(gate, ScoreMarginGate)
        }
        if len(gated) < len(self.gates):
            return None
        names = tuple(f"blocks.{k}" for k in gated)
        return Skips(self.stem, tuple(self.blocks), gated, self.head, names)

    def relaxed(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """For training: the hard decisions, with the gradient of σ(z) in their place.

        Returns:
            logits (B, classes), and the expected share of gated blocks computed (B,).
        """
        x, memory, shares = self.stem(images), None, []
        for block, gate in self._pairs():
            if gate is None:
                x = block(x)
                continue
            z, memory = gate_logits(gate, x, memory)
            share = z.sigmoid()
            computed = self.policy.computes(z).to(x.dtype) + share - share.detach()
            x = x + _per_image(computed, x) * (block(x.clone()) - x)
            shares.append(share)
        return self.head(x), torch.stack(shares, dim=1).mean(1)


class PooledGate(nn.Module):
    """A feed-forward gate: global average pooling and one linear layer."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        return self.linear(features.mean((2, 3)))


class GateCell(nn.Module):
    """The memory that recurrent gates share: an LSTM cell that reads one gate after another."""

    def __init__(self, width: int = 10) -> None:
        super().__init__()
        self.width = width
        self.lstm = nn.LSTMCell(width, width)
        self.linear = nn.Linear(width, 1)

    def forward(self, x: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        memory = self.lstm(x, memory)
        return self.linear(memory[0]), memory


class RecurrentGate(nn.Module):
    """Global average pooling and one linear layer into a :class:`GateCell` shared by all gates."""

    def __init__(self, channels: int, cell: GateCell) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, cell.width)
        self.cell = cell

    def forward(self, features: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        return self.cell(self.linear(features.mean((2, 3))), memory)


def gate_logits(gate: nn.Module, features: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
    """Logits (B,) of one gate, and what recurrent gates remember."""
    if isinstance(gate, RecurrentGate):
        z, memory = gate(features, memory)
    else:
        z = gate(features)
    return (z.squeeze(1) if z.dim() == 2 else z), memory


def _check_gated(k: int, before: Tensor, after: Tensor, z: Tensor) -> None:
    if before.shape != after.shape:
        raise UsageError(
            f"block {k} turns {tuple(before.shape[1:])} into {tuple(after.shape[1:])}, so it "
            "cannot be skipped: give it no gate (None), or split off what changes the shape"
        )
    if z.shape != (1,):
        raise UsageError(
            f"the gate of block {k} gives {tuple(z.shape)} for one image: it must give one logit, "
            "(B,) or (B, 1)"
        )


def _per_image(values: Tensor, like: Tensor) -> Tensor:
    """(B,) -> (B, 1, ..., 1) with the dimensions of ``like``."""
    return values.view(-1, *(1,) * (like.dim() - 1))
