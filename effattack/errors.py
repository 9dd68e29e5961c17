"""What can go wrong, each with an exit code of the command line.

Every message names the cause and the remedy in one line.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class EffattackError(Exception):
    """Base of all errors that effattack raises on purpose."""

    exit_code = 2


class UsageError(EffattackError, ValueError):
    """Input that cannot be used: images, labels, budgets, names, paths (exit code 2)."""


class NotApplicable(UsageError):
    """An attack was asked for on a victim that it cannot apply to (exit code 2)."""


class MissingPackage(UsageError):
    """An optional package is not installed, or does not fit this torch (exit code 2)."""


class StoreError(UsageError):
    """A store that cannot be written any more; what is finished is safe (exit code 2)."""


class FactoryError(UsageError):
    """A user's own module or factory raised; its error is the cause (exit code 2)."""


class RecordError(EffattackError):
    """A record that does not hold: it was changed, or claims what is not counted (exit code 1)."""

    exit_code = 1


class HardeningError(EffattackError):
    """A hardening lost more than it may, or won nothing: the original stays (exit code 1)."""

    exit_code = 1

    def __init__(self, message: str, hardened: Any = None) -> None:
        super().__init__(message)
        self.hardened = hardened
        """The :class:`effattack.hardening.Hardened` that is not handed out."""


class MeasurementError(EffattackError):
    """Something was asked for that could not be measured (exit code 3)."""

    exit_code = 3


class ContractError(MeasurementError):
    """A victim breaks the contract: no number measured on it would mean anything (exit code 3)."""


class AuditError(ContractError):
    """The declared MACs of a victim are not the executed ones (exit code 3)."""


class ExitError(MeasurementError):
    """A user's own code would have ended the process (exit code 3)."""


class CellError(MeasurementError):
    """A cell failed, in this process or another, for the reason given (exit code 3)."""


class LibraryError(MeasurementError):
    """Another library failed during an attack; its error is the cause (exit code 3)."""


class UnknownOperator(MeasurementError):
    """The MACs counter met an operator that it has no cost for (exit code 3)."""


class UnseenWork(ContractError):
    """A forward does work that the MACs counter cannot see, and declares none (exit code 3)."""


class GradientError(ContractError):
    """No gradient reaches the pixels (exit code 3)."""


def first_line(error: Exception) -> str:
    """Of its message; its class where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def install(extra: str) -> str:
    """How to get the packages of an extra; effattack itself is on no package index."""
    return f"pip install '.[{extra}]' in a clone of effattack"


def unknown_name(
    kind: str, name: str, known: Iterable[str], outside: Iterable[str] = ()
) -> UsageError:
    """The error for a name that is not known, with the nearest known ones.

    Args:
        kind: what it should be a name of.
        name: what was given.
        known: names of ours, or of the user's.
        outside: those that other installed packages register.
    """
    from difflib import get_close_matches  # costs every pytest session a millisecond at the top

    known, outside = sorted(known), sorted(outside)
    near = get_close_matches(name, [*known, *outside], n=3, cutoff=0.4)
    lowered = {k.lower(): k for k in (*known, *outside)}
    if not near and (match := get_close_matches(name.lower(), lowered, n=1, cutoff=0.4)):
        near = [lowered[match[0]]]
    listed = ", ".join(known[:8]) + (f" and {len(known) - 8} more" if len(known) > 8 else "")
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {listed or 'none'}"
    others = f"; of other packages: {', '.join(outside)}" if outside and not near else ""
    return UsageError(f"unknown {kind} {name!r}: {hint}{others}")


def unknown_operator(name: str) -> UnknownOperator:
    """The error for an operator in no table of the MACs counter."""
    return UnknownOperator(
        f"the MACs counter has no cost for operator {name}: teach it one with "
        f"effattack.counting.macs.register({name!r}, formula), or formula=None if it "
        "multiplies no matrices"
    )


def expect_least(name: str, value: float, least: float) -> None:
    """Refuse a number below ``least``, or one that is not finite.

    Raises:
        UsageError: naming it, and what it may be.
    """
    if not least <= value < float("inf"):
        raise UsageError(f"{name} = {value} is out of range: give {least} or more")


def expect_seed(seed: int) -> None:
    """Refuse a seed that the generators do not take.

    Raises:
        UsageError: naming it.
    """
    expect_least("seed", seed, 0)
    if seed >= 2**63:
        raise UsageError(f"seed = {seed} is out of range: give less than 2**63")
