"""Attack success of the house attack on victims written by hand, and on the same models hooked.

    python benchmarks/hooked.py [--images 20] [--attack Slowdown] [--eps 8/255 2/255]

prints one row per model and budget, in Markdown (docs/your_own_model.md). The models are those of
the embedded victims, in code as an engineer writes it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from effattack import Victim, evaluate
from effattack.attacks import build
from effattack.budgets import parse_number
from effattack.models_zoo import load
from effattack.models_zoo.digits import SHAPE, digits
from effattack.models_zoo.token_sparsification.ats import significance
from effattack.models_zoo.token_sparsification.vit import attention_map
from effattack.victim.hooked import Decision, Hooked, above, confidence, kept


class Loop(nn.Module):
    """A BranchyNet."""

    def __init__(self, stages: nn.ModuleList, exits: nn.ModuleList, threshold: float) -> None:
        super().__init__()
        self.stages, self.exits, self.threshold = stages, exits, threshold

    def forward(self, x: Tensor) -> Tensor:
        for stage, leave in zip(self.stages, self.exits, strict=True):
            x = stage(x)
            logits = leave(x)
            if logits.softmax(1).max() >= self.threshold:
                break
        return logits


class Two(nn.Module):
    """A small model before a large one."""

    def __init__(self, small: nn.Module, large: nn.Module, threshold: float) -> None:
        super().__init__()
        self.small, self.large, self.threshold = small, large, threshold

    def forward(self, x: Tensor) -> Tensor:
        logits = self.small(x)
        return logits if logits.softmax(1).max() >= self.threshold else self.large(x)


def early_exit() -> tuple[Victim, Victim]:
    """A loop over stages and exits."""
    by_hand: Any = load("digits_cnn_early_exit")
    threshold = by_hand.criterion.at(0)
    exits = [
        Decision(f"exits.{k}", f"exits.{k}", above(threshold, confidence), "threshold")
        for k in range(len(by_hand.stages) - 1)
    ]
    return by_hand, Hooked(Loop(by_hand.stages, by_hand.heads, threshold), exits, SHAPE)


def cascade() -> tuple[Victim, Victim]:
    """Two models and an if."""
    by_hand: Any = load("digits_tinysaver_cascade")
    threshold = by_hand.criterion.at(0)
    small, large = by_hand.models
    escalate = Decision("escalate", "small", above(threshold, confidence), "threshold")
    return by_hand, Hooked(Two(small, large, threshold), [escalate], SHAPE)


def tokens() -> tuple[Victim, Victim]:
    """ATS as its deployed code runs, its scores read off the queries, keys and values."""
    by_hand: Any = load("digits_vit_ats")

    def scores(block: int) -> Callable[[nn.Module, tuple[Any, ...], Any], Tensor]:
        attention = by_hand.vit.blocks[block].attn

        def read(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Tensor:
            parts = output.unflatten(1, (3, attention.num_heads, attention.head_dim))
            q, k, v = (part.transpose(0, 1)[None] for part in parts.unbind(1))
            return significance(attention_map(q * attention.scale, k), v)

        return read

    def mask(s: Tensor) -> Tensor:
        return by_hand.policy.keep(s, torch.ones_like(s, dtype=torch.bool))

    rule = kept(mask, lambda s: by_hand.policy.points * s - 1)
    decisions = [
        Decision(f"blocks.{b}.tokens", (f"vit.blocks.{b}.attn.qkv", scores(b)), rule)
        for b in by_hand.ats_blocks
    ]
    depth = len(by_hand.vit.blocks)
    spares = {
        f"blocks.{b}.tokens": [f"vit.blocks.{later}" for later in range(b + 1, depth)]
        for b in by_hand.ats_blocks
    }
    return by_hand, Hooked(by_hand, decisions, SHAPE, spares=spares, max_macs=by_hand.max_macs)


MODELS = {
    "early-exit loop": early_exit,
    "two models and an `if`": cascade,
    "token sampling inside attention": tokens,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--attack", default="Slowdown")
    parser.add_argument("--eps", nargs="+", default=["8/255", "2/255"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    images, labels = (part[: options.images] for part in digits("test"))
    print("| model | victim by hand | eps | attack success | hooked | share |")
    print("|---|---|---:|---:|---:|---:|")
    for model, make in MODELS.items():
        by_hand, hooked = make()
        for eps in options.eps:
            found = []
            for victim in (by_hand, hooked):
                attack = build(options.attack, victim, parse_number(eps, "eps"))
                scores = evaluate(victim, images, labels, [attack], timed=0).scores()
                found.append(scores.set_index("attack").attack_success[attack.name])
            print(
                f"| {model} | `{by_hand.name}` | {eps} | {found[0]:.1%} | {found[1]:.1%} | "
                f"{found[1] / found[0]:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
