"""Images as everybody here expects them: float, (B, C, H, W), in [0, 1], on the 8-bit grid."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from effattack.budgets import LEVELS
from effattack.errors import UsageError


def in_float32(images: Tensor) -> Tensor:
    """Images of any precision as attacks, budgets and results hold them; victims cast at the door.

    Half precision has the levels of an image only nearly: :func:`to_grid` rounds to them.
    """
    return images.detach().to(torch.float32)


def to_grid(images: Tensor) -> Tensor:
    """The nearest images on the 8-bit grid."""
    return (images * LEVELS).round() / LEVELS


def fingerprints(images: Tensor) -> list[str]:
    """A hash of each image's 8-bit levels: equal images, and only they, have equal ones."""
    levels = (images.detach().cpu() * LEVELS).round().to(torch.uint8)
    return [hashlib.sha256(image.numpy().tobytes()).hexdigest()[:16] for image in levels]


def check_dense(name: str, tensor: Tensor) -> None:
    """Refuse a tensor whose values cannot be read one by one.

    Raises:
        UsageError: naming it, and the remedy.
    """
    kinds = {
        "meta": tensor.is_meta,
        "nested": tensor.is_nested,
        "sparse": tensor.layout != torch.strided,
    }
    for kind, found in kinds.items():
        if found:
            raise UsageError(f"{name} are a {kind} tensor: give a dense one that holds its values")


def check_images(images: Tensor, input_shape: tuple[int, ...]) -> None:
    """Refuse what no victim can be scored on.

    Raises:
        UsageError: naming the cause and the remedy.
    """
    if not isinstance(images, Tensor):
        raise UsageError(
            f"images must be a torch tensor, not {type(images).__name__}: "
            "use torch.as_tensor(images)"
        )
    check_dense("images", images)
    if not images.is_floating_point():
        remedy = (
            "divide 8-bit images by 255"
            if images.dtype == torch.uint8
            else "pixels are floats in [0, 1], 8-bit ones divided by 255; token ids are no images "
            "and cannot be scored"
        )
        raise UsageError(f"images have dtype {images.dtype}, not float: {remedy}")
    if images.dtype.itemsize < 2:
        raise UsageError(f"images have dtype {images.dtype}, too coarse for 8 bits: give float32")
    if images.dim() and not len(images):
        raise UsageError("there are no images: the batch is empty")
    if images.dim() != 1 + len(input_shape) or tuple(images.shape[1:]) != tuple(input_shape):
        raise UsageError(
            f"images have shape {tuple(images.shape)}, the victim takes (B, "
            f"{', '.join(map(str, input_shape))}): resize or convert them first"
        )
    if not torch.isfinite(images).all():
        raise UsageError("images contain NaN or infinity: drop or repair those images")
    low, high = images.min().item(), images.max().item()
    if low < 0 or high > 1:
        raise UsageError(
            f"images lie in [{low:.3g}, {high:.3g}], not in [0, 1]: undo the normalisation (it "
            "belongs inside the victim) or divide by 255"
        )


def check_labels(labels: Tensor, count: int, num_classes: int) -> None:
    """Refuse labels that do not belong to ``count`` images of ``num_classes`` classes.

    Raises:
        UsageError: naming the cause and the remedy.
    """
    integer = isinstance(labels, Tensor) and not (
        labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool
    )
    if not integer or labels.dim() != 1:
        raise UsageError("labels must be a tensor (B,) of integer class indices")
    check_dense("labels", labels)
    labels = labels.long()  # torch has no order for its larger unsigned types
    if len(labels) != count:
        raise UsageError(f"there are {count} images but {len(labels)} labels: they must pair up")
    if count and not (int(labels.min()) >= 0 and int(labels.max()) < num_classes):
        raise UsageError(
            f"labels lie in [{int(labels.min())}, {int(labels.max())}], the victim has classes "
            f"0 to {num_classes - 1}"
        )
