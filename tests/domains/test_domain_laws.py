"""What every domain has to keep, on inputs of every kind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from drawn import DOMAINS, Drawn, batches, generators, reproducible, some
from hypothesis import given
from torch import Generator, Tensor

from effattack.domains import Batch, Pixels, Series, Tokens, check_domain
from effattack.domains.properties import LAWS, same
from effattack.errors import ContractError


@reproducible
@given(batches())
def test_what_is_packed_comes_back(drawn: Drawn) -> None:
    domain, inputs = drawn
    assert same(domain.unpack(domain.pack(inputs), inputs), inputs)
    first = inputs[:1]
    assert same(domain.unpack(domain.pack(inputs)[:1], first), first)


@reproducible
@given(batches())
def test_what_is_snapped_stays(drawn: Drawn) -> None:
    domain, inputs = drawn
    assert same(domain.snap(inputs), inputs)
    domain.check(inputs)


@reproducible
@given(batches())
def test_digests_and_distances_differ_exactly_where_inputs_do(drawn: Drawn) -> None:
    domain, inputs = drawn
    hashed = domain.fingerprints(inputs)
    for row in range(len(inputs)):
        others = domain.join([inputs[row : row + 1]] * len(inputs))
        distances = torch.stack([*domain.distances(inputs, others).values()], 1)
        assert distances.dtype == torch.float64
        for other, apart in enumerate(distances):
            equal = same(inputs[row : row + 1], inputs[other : other + 1])
            assert (hashed[row] == hashed[other]) == equal
            assert bool((apart == 0).all()) == equal


@reproducible
@given(batches(), generators())
def test_disturbed_inputs_are_inputs(drawn: Drawn, generator: Generator) -> None:
    domain, inputs = drawn
    noisy = domain.disturbed(inputs, generator)
    domain.check(noisy)
    assert same(domain.snap(noisy), noisy)
    assert len(noisy) == len(inputs)


@reproducible
@given(batches())
def test_every_law_holds_on_any_inputs(drawn: Drawn) -> None:
    for law in LAWS:
        assert law(*drawn), law.__doc__


@pytest.mark.parametrize("name", DOMAINS)
def test_the_house_domains_pass_the_check_at_run_time(name: str) -> None:
    check_domain(DOMAINS[name])
    assert len(DOMAINS[name].example(3)) == 3


@pytest.mark.parametrize("name", DOMAINS)
def test_placed_inputs_are_detached_and_keep_their_precision(name: str) -> None:
    domain = DOMAINS[name]
    inputs = some(domain, 2, Generator().manual_seed(0))
    again = domain.unpack(domain.pack(inputs), domain.place(inputs, "cpu", torch.float64))
    domain.check(again)


class Forgets(Pixels):
    """Stores a bit less than it was given."""

    def pack(self, inputs: Tensor) -> list[bytes]:
        return super().pack(inputs.clamp(max=0.6))


class Drifts(Series):
    """Rounds to another value every time."""

    def snap(self, inputs: Tensor) -> Tensor:
        return (super().snap(inputs) * 0.9).clamp(self.low, self.high)


class Mixes(Tokens):
    """Tells prompts apart by their length."""

    def fingerprints(self, inputs: Tensor) -> list[str]:
        return [str(len(row)) for row in self.pack(inputs)]


class SeesNothing(Tokens):
    """Every prompt is equally far from every other."""

    def distances(self, inputs: Tensor, clean: Tensor) -> dict[str, Tensor]:
        return {"edits": torch.zeros(len(inputs), dtype=torch.float64)}


class Reverses(Tokens):
    """Joins batches back to front."""

    def join(self, batches: Any) -> Batch:
        return super().join([*batches][::-1])


class Refuses(Series):
    """Its own examples lie outside its range."""

    def example(self, count: int) -> Tensor:
        return torch.full((count, 1, 4), 7.0)

    def snap(self, inputs: Tensor) -> Tensor:
        return inputs


class Flat(Tokens):
    """Measures words, not prompts."""

    def distances(self, inputs: Tensor, clean: Tensor) -> dict[str, Tensor]:
        return {"edits": (inputs != clean).double()}


class Wild(Series):
    """Noise that no sensor reads."""

    def disturbed(self, inputs: Tensor, generator: Generator) -> Tensor:
        return inputs + 100


class Unwritten(Series):
    """Distances are yet to be written."""

    def distances(self, inputs: Tensor, clean: Tensor) -> Any:
        return 3


@pytest.mark.parametrize(
    ("domain", "law"),
    [
        (Flat(50, 8), r"Flat breaks a law of domains: distances\(x, y\) are columns"),
        (Wild(1, 4, -1, 1), r"Wild breaks a law of domains: disturbed\(x\) is taken by check"),
        (Unwritten(1, 4, -1, 1), r"columns .*AttributeError: 'int' object has no attribute"),
        (Forgets((1, 4, 4)), r"Forgets breaks a law of domains: unpack\(pack\(x\)\) is x"),
        (Drifts(1, 4, -1, 1), r"Drifts breaks a law of domains: snap\(place"),
        (Mixes(50, 8), r"Mixes breaks a law of domains: fingerprints"),
        (SeesNothing(50, 8), r"SeesNothing breaks a law of domains: distances\(x, y\) are 0"),
        (Reverses(50, 8), r"Reverses breaks a law of domains: join\(rows of x\) is x: correct"),
        (Refuses(1, 4, -1, 1), r"check\(x\) refuses its examples \(series lie in"),
    ],
)
def test_a_domain_that_breaks_a_law_is_named(domain: Any, law: str) -> None:
    with pytest.raises(ContractError, match=law):
        check_domain(domain)
