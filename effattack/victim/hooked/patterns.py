"""What each pattern of decisions costs: counted by dispatch, then looked up."""

from __future__ import annotations

from collections.abc import Callable

from effattack.errors import ContractError

Pattern = tuple[tuple[int, ...], tuple[int, ...]]
"""Sizes of the input, and the number of active units per gate, in the order of the gates."""

ASK = "give Hooked(..., macs=f), f(trace) -> (B,) executed MACs"

SIGHTINGS = 2
"""How often the MACs of a pattern are counted, to see whether it fixes them."""


class Patterns:
    """The MACs of the patterns seen so far.

    Args:
        name: of the victim, for messages.
        gates: their names.
    """

    def __init__(self, name: str, gates: list[str]) -> None:
        self.name = name
        self.gates = gates
        self._macs: dict[Pattern, int] = {}
        self._seen: dict[Pattern, int] = {}

    def macs(self, pattern: Pattern, count: Callable[[], int]) -> int:
        """MACs of a pattern, counted the first ``SIGHTINGS`` times that it is asked for.

        Args:
            pattern: of an input.
            count: runs the deployed path on that input.

        Raises:
            ContractError: where two inputs of one pattern execute different MACs.
        """
        if self._seen.get(pattern, 0) == SIGHTINGS:
            return self._macs[pattern]
        self._seen[pattern] = self._seen.get(pattern, 0) + 1
        counted = count()
        known = self._macs.setdefault(pattern, counted)
        if known == counted:
            return counted
        units = ", ".join(f"{g} {n}" for g, n in zip(self.gates, pattern[1], strict=True))
        raise ContractError(
            f"{self.name}: two inputs with equal decisions (active units: {units}) executed "
            f"{known:,} and {counted:,} MACs: if a rule or its threshold is not the one that the "
            f"model compares, correct it; else decisions do not fix MACs: {ASK}"
        )
