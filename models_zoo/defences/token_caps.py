"""Token caps: no image keeps more tokens in a block than images did on average before.

Hazan et al., "DeSparsify", NeurIPS 2024 (arXiv 2402.02554), section on countermeasures: the cap of
a block is the mean of its kept tokens over held-out images; which of the surplus tokens go is
decided by confidence or at random. It was published without an attack that knows of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any, Literal

import torch
from torch import Tensor

from effattack.errors import UsageError, unknown_name
from effattack.models_zoo.token_sparsification.ats import ATS
from effattack.models_zoo.token_sparsification.avit import AViT
from effattack.models_zoo.token_sparsification.avit_policy import Halted
from effattack.victim import Gate, Victim
from effattack.victim.undisturbed import undisturbed

Order = Literal["confidence", "random"]
ORDERS: tuple[Order, ...] = ("confidence", "random")


class TokenCaps:
    """The policy: of the tokens that a block wants to keep, at most so many stay.

    Args:
        caps: block -> patch tokens that may stay; other blocks have no cap.
        order: which stay: those most confident of being kept, or a draw. The draw is one of many
            that a fixed key decides from the image's own wanted tokens, so that an image is always
            treated alike, whatever its batch.

    Raises:
        UsageError: for caps below 1 or an unknown order.
    """

    def __init__(self, caps: Mapping[int, int], order: Order = "confidence") -> None:
        if order not in ORDERS:
            raise unknown_name("order of a token cap", order, ORDERS)
        if not caps or not all(isinstance(cap, int) and cap >= 1 for cap in caps.values()):
            raise UsageError(
                f"caps = {dict(caps)}: give a number of tokens, 1 or more, for each capped block, "
                "such as heldout_caps(victim, images)"
            )
        self.caps, self.order = dict(caps), order

    def admit(self, block: int, wanted: Tensor, confidence: Tensor, live: Tensor) -> Tensor:
        """Which tokens stay, (B, n) bool.

        Args:
            block: its index.
            wanted: (B, n) bool, tokens that the mechanism would keep.
            confidence: (B, n), higher is kept rather.
            live: (B, n) bool, tokens that reached the block: dead ones must not matter.
        """
        if block not in self.caps:
            return wanted
        rank = confidence.detach() if self.order == "confidence" else _drawn(wanted, live)
        rank = rank.double().masked_fill(~wanted, -torch.inf)
        first = rank.argsort(dim=1, descending=True, stable=True)[:, : self.caps[block]]
        return wanted & torch.zeros_like(wanted).scatter(1, first, True)

    def most(self, block: int, tokens: int) -> int:
        """The largest number of patch tokens that stay of ``tokens``."""
        return min(tokens, self.caps.get(block, tokens))


class CappedATS(ATS):
    """ATS whose sampling blocks have a cap; the confidence of a token is its significance.

    Args:
        caps, order: see :class:`TokenCaps`.
        arguments: those of :class:`ATS`.
    """

    def __init__(
        self, *arguments: Any, caps: Mapping[int, int], order: Order = "confidence", **settings: Any
    ) -> None:
        self.caps = TokenCaps(caps, order)
        super().__init__(*arguments, **settings)
        _check_blocks(caps, self.ats_blocks)

    def keep(self, index: int, scores: Tensor, live: Tensor) -> Tensor:
        return self.caps.admit(index, super().keep(index, scores, live), scores, live)

    def most(self, index: int, patches: int) -> int:
        return self.caps.most(index, super().most(index, patches))


class CappedAViT(AViT):
    """A-ViT with caps on the patch tokens that go on; the confident ones have halted least so far.

    CLS is never cut. The images of a batch run one by one. A token that only the cap stops was not
    asked: its gate counts as not reached.

    Args:
        caps, order: see :class:`TokenCaps`.
        arguments: those of :class:`AViT`.
    """

    def __init__(
        self, *arguments: Any, caps: Mapping[int, int], order: Order = "confidence", **settings: Any
    ) -> None:
        self.caps = TokenCaps(caps, order)
        super().__init__(*arguments, **settings)
        depth = len(self.vit.blocks)
        _check_blocks(caps, range(depth - 1))
        counts = [self.tokens]
        for index in range(depth - 1):
            counts.append(1 + self.caps.most(index, counts[-1] - 1))
        self.max_macs = float(self._macs(counts))

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([super(CappedAViT, self).forward(image) for image in images.split(1)])

    def step(self, index: int, before: Halted, log_odds: Tensor, patches: int) -> Halted:
        state = super().step(index, before, log_odds, patches)
        wanted, halted, live = (
            field[:, patches:] for field in (state.onward, state.cumulative, before.onward)
        )
        stay = self.caps.admit(index, wanted, -halted, live)
        return state._replace(onward=torch.cat([state.onward[:, :patches], stay], dim=1))

    def _gates(self, index: int, before: Halted, after: Halted, log_odds: Tensor) -> list[Gate]:
        cls, tokens = super()._gates(index, before, after, log_odds)
        wanted = (after.cumulative < self.policy.threshold)[:, 1:]
        return [cls, tokens._replace(reached=tokens.reached & (tokens.active | ~wanted))]


def heldout_caps(victim: Victim, images: Tensor) -> dict[int, int]:
    """Block -> the mean number of patch tokens that it keeps over held-out images, rounded up.

    Args:
        victim: with gates ``blocks.k.tokens``, undefended.
        images: (B, *input_shape) in [0, 1], none of which will be scored.

    Raises:
        UsageError: if the victim has no such gate.
    """
    with undisturbed(victim), torch.no_grad():
        gates = victim.trace(images).gates
    kept = {g.name: g.active.sum(1).double().mean().item() for g in gates if _of_tokens(g)}
    if not kept:
        raise UsageError(
            f"{victim.name} has no gates blocks.k.tokens: token caps are for token sparsification"
        )
    return {int(name.split(".")[1]): max(1, ceil(mean)) for name, mean in kept.items()}


def _of_tokens(gate: Gate) -> bool:
    return gate.name.startswith("blocks.") and gate.name.endswith(".tokens")


def _check_blocks(caps: Mapping[int, int], blocks: Any) -> None:
    if strange := sorted(set(caps) - set(blocks)):
        raise UsageError(f"caps for blocks {strange}: only {[*blocks]} decide on tokens")


def _drawn(wanted: Tensor, live: Tensor) -> Tensor:
    """A number (B, n) per token, drawn from the pattern of wanted tokens among the live ones."""
    slot = live.long().cumsum(1)
    key = (_scrambled(slot) * (wanted & live)).sum(1, keepdim=True)
    return _scrambled(key ^ slot) & 0x7FFFFFFF


def _scrambled(values: Tensor) -> Tensor:
    """Integers (int64) to integers that look random: two rounds of multiply and shift."""
    for factor in (0x1E3779B97F4A7C15, 0x3F58476D1CE4E5B9):
        values = values * factor
        values = values ^ (values >> 29)
    return values
