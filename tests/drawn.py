"""Inputs of every domain, drawn by hypothesis."""

from __future__ import annotations

from typing import NamedTuple

import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Generator, Tensor

from effattack.domains import Arrays, Batch, Domain, Parts, PartsBatch, Pixels, Series, Tokens
from effattack.domains.tokens import PAD

reproducible = settings(deadline=None, derandomize=True)

DOMAINS: dict[str, Domain] = {
    "pixels": Pixels((3, 4, 5)),
    "pixels of any size": Pixels((1, None, None)),
    "series": Series(2, 7, -3.0, 4.5),
    "series on a grid": Series(1, 9, -0.1, 0.7, step=0.013),
    "series of 16 bits": Series(1, None, -32768, 32767, step=1.0),
    "tokens": Tokens(11, 6),
    "parts": Parts(image=Pixels((1, 2, 2)), question=Tokens(5, 4)),
}


class Drawn(NamedTuple):
    """A domain and a batch of it."""

    domain: Domain
    inputs: Batch


def arrays(domain: Arrays, count: int, generator: Generator) -> Tensor:
    """Anything in the range of a domain, repeated values and both of its ends included."""
    sizes = [
        int(torch.randint(1, 6, (1,), generator=generator)) if size is None else size
        for size in domain.shape
    ]
    part = torch.rand(count, *sizes, generator=generator)
    part[torch.rand(part.shape, generator=generator) < 0.2] = 0.0
    part[torch.rand(part.shape, generator=generator) < 0.2] = 1.0
    return (domain.low + part * (domain.high - domain.low)).clamp(domain.low, domain.high)


def tokens(domain: Tokens, count: int, generator: Generator) -> Tensor:
    """Prompts of different lengths."""
    width = int(torch.randint(1, domain.longest + 1, (1,), generator=generator))
    ids = torch.randint(0, domain.vocabulary, (count, width), generator=generator)
    lengths = torch.randint(1, width + 1, (count, 1), generator=generator)
    return ids.masked_fill(torch.arange(width) >= lengths, PAD)


def some(domain: Domain, count: int, generator: Generator) -> Batch:
    """Inputs of a domain that pass its check."""
    if isinstance(domain, Arrays):
        return arrays(domain, count, generator)
    if isinstance(domain, Tokens):
        return tokens(domain, count, generator)
    assert isinstance(domain, Parts)
    return PartsBatch({name: some(part, count, generator) for name, part in domain.parts.items()})


def generators() -> st.SearchStrategy[Generator]:
    """Seeded ones; hypothesis shrinks the seed."""
    return st.integers(0, 2**31).map(lambda seed: Generator().manual_seed(seed))


@st.composite
def batches(draw: st.DrawFn, names: tuple[str, ...] = tuple(DOMAINS)) -> Drawn:
    """Snapped inputs of any domain; some rows twice."""
    domain = DOMAINS[draw(st.sampled_from(names))]
    generator = draw(generators())
    count = draw(st.integers(1, 4))
    inputs = domain.snap(domain.place(some(domain, count, generator), "cpu"))
    rows = draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=5))
    return Drawn(domain, inputs[torch.tensor(rows)])
