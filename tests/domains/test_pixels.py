"""What counts as images and labels, and what is said about the rest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from toys import noise_images

from effattack.budgets import LEVELS
from effattack.domains import Pixels
from effattack.domains.pixels import to_grid
from effattack.errors import UsageError
from effattack.tasks.classes import check_labels

SHAPE = (3, 4, 4)


def test_grid() -> None:
    every = torch.arange(256) / LEVELS
    assert torch.equal(to_grid(every), every), "256 levels, to the last bit"
    between = to_grid(torch.rand(1000))
    assert torch.equal(to_grid(between), between), "idempotent"
    x = torch.rand(1000)
    assert (to_grid(x) - x).abs().max() <= 0.5 / LEVELS + 1e-6
    assert to_grid(x.double()).dtype == torch.float64


def test_images_that_are() -> None:
    Pixels(SHAPE).check(noise_images(2, 0, SHAPE))
    Pixels(SHAPE).check(torch.zeros(1, *SHAPE, dtype=torch.float64))
    Pixels(SHAPE).check(torch.ones(1, *SHAPE, dtype=torch.float16))


good = torch.full((2, *SHAPE), 0.5)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, *SHAPE)), "must be a torch tensor, not ndarray: use torch.as_tensor"),
        ((good * LEVELS).to(torch.uint8), "dtype torch.uint8, not float: divide 8-bit images"),
        (good.bool(), "dtype torch.bool"),
        (good[0], r"shape \(3, 4, 4\), the victim takes \(B, 3, 4, 4\): series .* are no images"),
        (good[:, :1], r"shape \(2, 1, 4, 4\)"),
        (good.permute(0, 2, 3, 1), "resize or convert"),
        (torch.zeros(0, *SHAPE), "batch is empty"),
        (good.masked_fill(good > 0, torch.nan), "NaN or infinity"),
        (good * torch.inf, "NaN or infinity"),
        (good - 0.51, r"lie in \[-0.01, -0.01\], not in \[0, 1\]: undo the normalisation"),
        (good * 255, r"or divide by 255"),
        (good + 0.5001, "not in"),
        (torch.empty(0), "batch is empty"),
        (good.to_sparse(), "images are a sparse tensor: give a dense one"),
        (good.to("meta"), "images are a meta tensor"),
        (torch.nested.nested_tensor([*good], layout=torch.jagged), "images are a nested tensor"),
        (good.to(torch.float8_e4m3fn), "float8_e4m3fn, too coarse for 8 bits: give float32"),
        (good.to(torch.complex64), "complex64, not float"),
    ],
)
def test_images_that_are_none(images: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Pixels(SHAPE).check(images)


def test_labels_that_are() -> None:
    check_labels(torch.tensor([0, 9]), 2, 10)
    check_labels(torch.tensor([0, 9], dtype=torch.uint8), 2, 10)
    check_labels(torch.tensor([0, 9], dtype=torch.uint64), 2, 10)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1], "must be a tensor"),
        (np.array([0, 1]), "must be a tensor"),
        (torch.tensor([0.0, 1.0]), "integer class indices"),
        (torch.eye(2, dtype=torch.long), r"\(B,\)"),
        (torch.tensor([1]), "2 inputs but 1 labels"),
        (torch.tensor([0, 1, 2]), "2 inputs but 3 labels"),
        (torch.tensor([0, 10]), r"lie in \[0, 10\], the victim has classes 0 to 9"),
        (torch.tensor([-1, 0]), "classes 0 to 9"),
        (torch.tensor([0j, 1j]), "integer class indices"),
        (torch.tensor([0, 10], dtype=torch.uint16), "classes 0 to 9"),
        (torch.tensor([0, 1]).to_sparse(), "labels are a sparse tensor"),
    ],
)
def test_labels_that_are_none(labels: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_labels(labels, 2, 10)


@pytest.mark.parametrize("shape", [(1, -4, 4), (3, 0, 8), (), (1, 1, 4, 4), "chw"])
def test_shapes_that_no_image_has_are_refused(shape: Any) -> None:
    with pytest.raises(UsageError, match=r"the shape of an image is .*: give \(C, H, W\)"):
        Pixels(shape)
