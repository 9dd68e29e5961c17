"""The door of a victim: what its paths are given, and in which precision they answer.

Attacks, budgets and results hold inputs in float32, whatever a victim computes in; ids are whole
numbers everywhere. Both of its paths are entered here: they get a copy in the victim's precision,
so that a path may write into its input, and their answers go out in the precision of the inputs.
Gradients pass both ways.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from effattack.domains import Batch, Domain, PartsBatch
from effattack.domains.base import tensors
from effattack.errors import ContractError, GradientError, MeasurementError, first_line

Answer = TypeVar("Answer")

PRECISIONS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
"""What a victim may compute in."""

_writers: ContextVar[dict[str, None] | None] = ContextVar("writers", default=None)


def enter(
    path: str,
    run: Callable[[Batch], Any],
    batch: Batch,
    victim: nn.Module,
    kind: type[Answer],
    expected: str,
) -> Answer:
    """Run one path of a victim on a copy of a batch.

    Args:
        path: ``"forward"`` or ``"trace"``.
        run: the path.
        batch: what the path writes into its input does not reach it.
        victim: whose path it is.
        kind: what the path has to return,
        expected: and that in words.

    Raises:
        ContractError: where it returns something else, or the weights are on the meta device.
        GradientError: where an operation in place breaks the gradient.
        MeasurementError: where this torch has no kernel for it.
    """
    example = example_of(victim)
    if example.is_meta:
        raise ContractError(without_numbers(str(victim.name)))
    given = copied(batch, example.dtype)
    with in_words(f"{victim.name}: {path}"):
        found = run(given)
    if not isinstance(found, kind):
        returned = "None" if found is None else f"a {type(found).__name__}"
        raise ContractError(f"{victim.name}: {path} returned {returned}: return {expected}")
    writers = _writers.get()
    if writers is not None and _differ(given, batch):
        writers[path] = None
    return found


def example_of(module: nn.Module) -> Tensor:
    """A tensor of the device and precision that a module computes in; float32 without weights."""
    tensors = chain(module.parameters(), module.buffers())
    return next((t for t in tensors if t.dtype in PRECISIONS), torch.empty(0, dtype=torch.float32))


def blank(module: nn.Module, domain: Domain, count: int) -> Batch:
    """Inputs that mean nothing, as a module takes them."""
    example = example_of(module)
    return domain.place(domain.example(count), example.device, example.dtype)


def copied(batch: Batch, dtype: torch.dtype) -> Batch:
    """A copy whose floats are in a precision; ids stay whole numbers."""
    if isinstance(batch, PartsBatch):
        return PartsBatch({name: copied(part, dtype) for name, part in batch.parts.items()})
    return batch.to(dtype, copy=True) if batch.is_floating_point() else batch.clone()


def precision(batch: Batch, weights: torch.dtype) -> torch.dtype:
    """In which a victim answers: that of the floats of a batch; of ids, float32 at least."""
    floats = (part.dtype for part in tensors(batch) if part.is_floating_point())
    return next(floats, torch.promote_types(weights, torch.float32))


def _differ(given: Batch, batch: Batch) -> bool:
    """Whether a path wrote into the copy that it was given."""
    pairs = zip(tensors(given), tensors(batch), strict=True)
    return not all(torch.equal(one.detach(), own.detach().to(one.dtype)) for one, own in pairs)


def answered(value: Any, dtype: torch.dtype) -> Any:
    """Floats in a precision; whatever is none, as it is."""
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


def coarsest(*dtypes: torch.dtype) -> torch.dtype:
    """The one of least precision."""
    return max(dtypes, key=lambda dtype: torch.finfo(dtype).eps)


@contextmanager
def noticing() -> Iterator[dict[str, None]]:
    """The paths that write into their input, of all that are entered inside the block."""
    writers: dict[str, None] = {}
    token = _writers.set(writers)
    try:
        yield writers
    finally:
        _writers.reset(token)


@contextmanager
def in_words(what: str) -> Iterator[None]:
    """Tell in one line what torch says in its own words.

    Args:
        what: was done, such as ``"toy: forward"``.

    Raises:
        GradientError: where an operation in place breaks the gradient.
        MeasurementError: where this torch has no kernel for it, or it holds inference tensors.
    """
    try:
        yield
    except RuntimeError as error:
        line = first_line(error)
        if any(said in line for said in ("inplace operation", "in-place operation", "inplace. ")):
            raise GradientError(
                f"{what} changes in place what the gradient needs ({line.partition(':')[0]}): use "
                "inplace=False in its modules and no x += ..., or clone() before"
            ) from error
        if "not implemented for" in line or line.startswith("Could not run"):
            raise MeasurementError(
                f"{what} needs a kernel that this torch {torch.__version__} lacks ({line}): score "
                "the victim in float32 (victim.float()), or on a device that has it"
            ) from error
        if "nference tensor" in line:
            raise MeasurementError(
                f"{what} holds tensors made under torch.inference_mode() ({line}): make them "
                "outside, or register them as parameters or buffers"
            ) from error
        if "TorchScript interpreter" in line:
            last = str(error).strip().splitlines()[-1].removeprefix("RuntimeError:").strip()
            raise MeasurementError(
                f"{what} failed inside TorchScript ({last or 'an operator that no counter sees'}): "
                "score the model that was scripted, or torch.jit.script of it alone"
            ) from error
        raise


def without_numbers(name: str) -> str:
    """What to say of weights that were never loaded."""
    return (
        f"{name} has weights on the meta device, which hold no numbers: build it on the CPU, or "
        "call to_empty(device='cpu') and load its state dict"
    )
