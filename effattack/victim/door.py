"""The door of a victim: what its paths are given, and in which precision they answer.

Attacks, budgets and results hold images in float32, whatever a victim computes in. Both of its
paths are entered here: they get a copy in the victim's precision, so that a path may write into its
input, and their answers go out in the precision of the images. Gradients pass both ways.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from effattack.errors import ContractError, GradientError, MeasurementError, first_line

Answer = TypeVar("Answer")

PRECISIONS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
"""What a victim may compute in."""
EXPECTED = {
    "forward": "return plain logits, a tensor (B, classes)",
    "trace": "return effattack.Trace(logits, gates, macs)",
}

_writers: ContextVar[dict[str, None] | None] = ContextVar("writers", default=None)


def enter(
    path: str, run: Callable[[Tensor], Any], images: Tensor, victim: nn.Module, kind: type[Answer]
) -> Answer:
    """Run one path of a victim on a copy of the images.

    Args:
        path: ``"forward"`` or ``"trace"``.
        run: the path.
        images: (B, *input_shape); what the path writes into its input does not reach them.
        victim: whose path it is.
        kind: what the path has to return.

    Raises:
        ContractError: where it returns something else, or the weights are on the meta device.
        GradientError: where an operation in place breaks the gradient.
        MeasurementError: where this torch has no kernel for it.
    """
    example = example_of(victim)
    if example.is_meta:
        raise ContractError(without_numbers(str(victim.name)))
    given = images.to(example.dtype, copy=True)
    with in_words(f"{victim.name}: {path}"):
        found = run(given)
    if not isinstance(found, kind):
        returned = "None" if found is None else f"a {type(found).__name__}"
        raise ContractError(f"{victim.name}: {path} returned {returned}: {EXPECTED[path]}")
    writers = _writers.get()
    if writers is not None and not torch.equal(given.detach(), images.detach().to(given.dtype)):
        writers[path] = None
    return found


def example_of(module: nn.Module) -> Tensor:
    """A tensor of the device and precision that a module computes in; float32 without weights."""
    tensors = chain(module.parameters(), module.buffers())
    return next((t for t in tensors if t.dtype in PRECISIONS), torch.empty(0, dtype=torch.float32))


def blank(module: nn.Module, shape: tuple[int, ...], value: float = 0.5) -> Tensor:
    """Grey images of a shape, as a module takes them."""
    example = example_of(module)
    return torch.full(shape, value, dtype=example.dtype, device=example.device)


def answered(value: Any, dtype: torch.dtype) -> Any:
    """Floats in the precision of the images; whatever is none, as it is."""
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
