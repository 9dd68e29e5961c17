"""What makes a measurement void, found before anything is measured."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from effattack.domains import Batch
from effattack.errors import MeasurementError, UsageError
from effattack.victim import Victim

OWNED = "EFFATTACK_DEVICE_OWNED"
"""Set in the environment of an xdist worker that shares its device with no other."""
SAME = 1e-3
"""Relative difference of logits up to which two runs are the same: atomics of GPUs reorder sums."""


def expect_own_device() -> None:
    """Refuse to time in an xdist worker: its neighbours are what it would measure.

    Raises:
        UsageError: in a worker, unless ``EFFATTACK_DEVICE_OWNED`` is set.
    """
    if os.environ.get("PYTEST_XDIST_WORKER") and not os.environ.get(OWNED):
        raise UsageError(
            "latency is not measured in xdist workers, which disturb each other: run without "
            f"xdist, ask for no timing (timed=0), or set {OWNED}=1 where this worker has the "
            "device for itself"
        )


def expect_paired(victim: Victim, clean: Batch, attacked: Batch) -> None:
    """Refuse arms that are not as many inputs of the victim; attacked prompts may be longer.

    Raises:
        UsageError: with what they are.
    """
    if len(clean) != len(attacked) or not all(map(victim.domain.fits, (clean, attacked))):
        shapes = (tuple(getattr(arm, "shape", (len(arm),))) for arm in (clean, attacked))
        raise UsageError(
            "clean {nouns} have shape {}, attacked {}: give the same {nouns} in the same "
            "order".format(*shapes, nouns=victim.domain.nouns)
        )


def expect_deterministic(victim: Victim, batch: Batch) -> None:
    """Refuse a victim that does other work each time it is called.

    Args:
        victim: in the state in which it is measured.
        batch: inputs on its device; the first 8 are run twice.

    Raises:
        MeasurementError: if the outputs differ by more than rounding.
    """
    for index, single in enumerate(victim.domain.singles(batch[:8])):
        first, second = victim(single), victim(single)
        gap = victim.task.gap(second, first).item()
        if not gap <= SAME:
            which = f"{victim.domain.noun} {index}"
            raise MeasurementError(
                f"{victim.name} is not deterministic: outputs of {which} differ by {gap:.3g} "
                "from one call to the next, so no two timings are of the same work; put dropout "
                "and sampling into eval mode, or draw from a generator seeded in forward"
            )


def fitting(victim: Victim, arms: Sequence[Tensor], batch_size: int) -> int:
    """The batch size, halved until batches of it fit in memory, with a warning if it had to be.

    Args:
        victim: in the state in which it is measured.
        arms: each (B, *input_shape) on its device: attacked images may take more memory than clean
            ones; fewer than ``batch_size`` make one smaller batch.
        batch_size: images per call.

    Raises:
        MeasurementError: if not even one image fits.
    """
    size = batch_size
    while True:
        try:
            for images in arms:
                victim(images[:size])
            break
        except RuntimeError as error:
            if not _out_of_memory(error):
                raise
            if size == 1:
                raise MeasurementError(
                    f"{victim.name} does not fit in memory with one image: {error}"
                ) from error
        size //= 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    if size < batch_size:
        warnings.warn(
            f"{victim.name}: batches of {batch_size} do not fit in memory on {victim.device}: "
            f"measured in batches of {size}",
            stacklevel=3,
        )
    return size


def _out_of_memory(error: RuntimeError) -> bool:
    """The CPU's allocator has no error class of its own."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
