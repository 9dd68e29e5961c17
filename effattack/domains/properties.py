"""The laws of a domain, checked before anything runs: every stored number rests on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Generator

from effattack.domains.base import Batch, Domain
from effattack.domains.parts import PartsBatch
from effattack.errors import ContractError, UsageError, first_line

Law = Callable[[Domain, Batch], bool]


def row_by_row(domain: Domain, inputs: Batch) -> bool:
    """join(rows of x) is x."""
    return same(domain.join([inputs[row : row + 1] for row in range(len(inputs))]), inputs)


def stored_and_back(domain: Domain, inputs: Batch) -> bool:
    """unpack(pack(x)) is x."""
    return same(domain.unpack(domain.pack(inputs), inputs), inputs)


def snapped_once(domain: Domain, inputs: Batch) -> bool:
    """snap(place(snap(x))) is snap(x)."""
    return same(domain.snap(domain.place(inputs, "cpu")), inputs)


def told_apart(domain: Domain, inputs: Batch) -> bool:
    """fingerprints(x) differ exactly where inputs do."""
    hashed = domain.fingerprints(inputs)
    other = hashed[1:] + hashed[:1]
    return [a != b for a, b in zip(hashed, other, strict=True)] == _moved(domain, inputs)


def apart_where_different(domain: Domain, inputs: Batch) -> bool:
    """distances(x, y) are 0 between equal inputs, and between no others."""
    apart = torch.stack([*domain.distances(inputs, _turned(domain, inputs)).values()], 1)
    to_itself = domain.distances(inputs, inputs).values()
    far = [bool((row != 0).any()) for row in apart]
    return far == _moved(domain, inputs) and not any(column.any() for column in to_itself)


def measured_per_input(domain: Domain, inputs: Batch) -> bool:
    """distances(x, y) are columns (B,) of numbers from 0 on."""
    columns = domain.distances(inputs, _turned(domain, inputs)).values()
    return all(column.shape == (len(inputs),) and bool((column >= 0).all()) for column in columns)


def noisy_and_valid(domain: Domain, inputs: Batch) -> bool:
    """disturbed(x) is taken by check, drawn by the generator alone, and leaves x as it is."""
    before = domain.pack(inputs)
    once, again = (domain.disturbed(inputs, Generator().manual_seed(1)) for _ in range(2))
    domain.check(once)
    return same(once, again) and domain.pack(inputs) == before


LAWS: tuple[Law, ...] = (
    row_by_row,
    measured_per_input,
    noisy_and_valid,
    stored_and_back,
    snapped_once,
    told_apart,
    apart_where_different,
)


def check_domain(domain: Domain) -> None:
    """Refuse a domain that breaks one of its laws, on inputs of its own.

    Raises:
        ContractError: naming the domain and the law.
    """
    hold(LAWS, domain, _examples(domain), _broken)


def hold(
    laws: Iterable[Callable[[Any, Any], bool]],
    subject: object,
    given: Batch,
    broken: Callable[[Any, str], ContractError],
) -> None:
    """Refuse what breaks a law, or raises where one is tried.

    Args:
        laws: each of the subject and what is given; its docstring tells it.
        subject: a domain, or a task.
        given: inputs of the domain, outputs of the task.
        broken: what to raise, of the subject and the law.
    """
    for law in laws:
        try:
            holds = law(subject, given)
        except Exception as error:  # whatever a user's class raises
            found = f"{law.__doc__} ({type(error).__name__}: {first_line(error)})"
            raise broken(subject, found) from error
        if not holds:
            raise broken(subject, str(law.__doc__))


def same(one: Batch, other: Batch) -> bool:
    """Whether two batches hold the same inputs."""
    if isinstance(one, PartsBatch):
        return all(same(part, other[name]) for name, part in one.parts.items())
    return torch.equal(one, other)


def _turned(domain: Domain, inputs: Batch) -> Batch:
    """Every row in the place of the one before."""
    return domain.join([inputs[1:], inputs[:1]])


def _moved(domain: Domain, inputs: Batch) -> list[bool]:
    """Of each row, whether the next one is another."""
    other = _turned(domain, inputs)
    rows = [slice(row, row + 1) for row in range(len(inputs))]
    return [not same(inputs[row], other[row]) for row in rows]


def _examples(domain: Domain) -> Batch:
    """Two inputs that mean nothing, and the same half noise, as a victim is fed them."""
    plain = domain.example(2)
    if len(plain) != 2:
        raise _broken(domain, f"example(2) gives 2 {domain.nouns}, not {len(plain)}")
    noisy = domain.disturbed(plain, Generator().manual_seed(0))
    inputs = domain.snap(domain.place(domain.join([plain, noisy]), "cpu"))
    try:
        domain.check(inputs)
    except UsageError as error:
        raise _broken(domain, f"check(x) refuses its examples ({first_line(error)})") from error
    return inputs


def _broken(domain: Domain, law: str) -> ContractError:
    name = type(domain).__name__
    return ContractError(
        f"{name} breaks a law of domains: {law.rstrip('.')}: correct the class, or no stored "
        "number would mean anything"
    )
