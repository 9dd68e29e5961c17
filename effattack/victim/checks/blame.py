"""Which inputs a victim is checked on, and which of them broke a rule."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from effattack.domains import Batch, Domain

DECLARE_COUPLED = "declare batch_coupled=True if the mechanism is coupled by definition"


def beside_noise(batch: Batch, count: int, domain: Domain) -> Batch:
    """B inputs that were snapped -> ``count``: behind them, the same again, half noise.

    Noise opens gates that natural inputs leave shut, and a batch is made of one input.
    """
    if count <= len(batch):
        return batch
    again = batch[torch.arange(count - len(batch)) % len(batch)]
    return domain.join([batch, domain.disturbed(again, Generator().manual_seed(0))])


def first_of(broken: Tensor) -> int:
    """Index of the first input with anything broken, of (B,) or (B, ...) bool."""
    return int(per_image(broken).any(1).nonzero()[0])


def per_image(values: Tensor) -> Tensor:
    """(B,) or (B, ...) -> (B, n)."""
    return values.reshape(len(values), -1)
