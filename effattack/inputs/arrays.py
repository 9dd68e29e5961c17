"""Arrays as users, their data sets and their loaders give them, as tensors."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from effattack.domains.base import check_dense
from effattack.errors import UsageError


def pair(found: Any, source: str) -> tuple[Tensor, Tensor]:
    """Images and labels of what a loader or a factory gave.

    Raises:
        UsageError: if it is no pair of arrays of numbers.
    """
    if not isinstance(found, tuple | list) or len(found) != 2:
        raise UsageError(f"{source} must return images and labels, not {type(found).__name__}")
    images, labels = as_tensors(found[0], found[1], source)
    check_paired(images, labels)
    return images, labels


def as_tensors(images: Any, labels: Any, source: str) -> tuple[Tensor, Tensor]:
    """Arrays of numbers as tensors, integer labels as int64.

    Raises:
        UsageError: if they are no arrays of numbers.
    """
    try:
        images, labels = _tensor(images), _tensor(labels)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise UsageError(
            f"images and labels of {source} are no arrays of numbers ({error}): give float images "
            "and integer labels"
        ) from error
    check_dense("images", images)
    check_dense("labels", labels)
    other = labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool
    return images, labels if other else labels.long()


def _tensor(values: Any) -> Tensor:
    if isinstance(values, np.ndarray):
        native = values.dtype.newbyteorder("=")
        if values.dtype != native or min(values.strides, default=0) < 0:
            values = np.ascontiguousarray(values, native)
    with warnings.catch_warnings():  # what is read here is never written to
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.as_tensor(values)


def taken(array: Any, rows: slice | list[int]) -> Any:
    """A copy of rows of an array, in memory.

    An array on the disk is mapped anew each time: pages once looked at count as memory in use for
    as long as their mapping lasts.
    """
    if isinstance(array, Tensor):
        return array[rows].detach().clone()
    if isinstance(array, np.memmap):
        order: Literal["C", "F"] = "C" if array.flags.c_contiguous else "F"
        assert array.filename is not None
        array = np.memmap(array.filename, array.dtype, "r", array.offset, array.shape, order)
    return np.array(array[rows])


def check_paired(images: Any, labels: Any) -> None:
    """Refuse arrays that are not one label for each image.

    Raises:
        UsageError: naming their lengths.
    """
    if not (images.ndim and labels.ndim):
        raise UsageError(
            "images and labels are single numbers: give arrays (B, C, H, W) and (B,), one label "
            "for each image"
        )
    if len(images) != len(labels):
        raise UsageError(
            f"there are {len(images)} inputs but {len(labels)} labels: they must pair up"
        )
