"""Preprocessing as a layer: the pixels of timm's own transforms, differentiable, free of MACs."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from torch import nn

from effattack.counting.macs import count_macs
from effattack.errors import UsageError
from effattack.models_zoo import Preprocess, preprocessed

PHOTO = torch.randint(0, 256, (3, 90, 120), generator=torch.Generator().manual_seed(0)) / 255


def timm_model() -> nn.Module:
    sizes = {"img_size": 32, "patch_size": 16, "embed_dim": 24, "depth": 1, "num_heads": 2}
    vit = timm.create_model("vit_tiny_patch16_224", **sizes)
    vit.pretrained_cfg = {**vit.pretrained_cfg, "input_size": (3, 32, 32)}
    vit.default_cfg = vit.pretrained_cfg
    return vit


def test_sees_what_timm_sees() -> None:
    vit = timm_model()
    transform = create_transform(**resolve_model_data_config(vit), is_training=False)
    smooth = nn.functional.avg_pool2d(PHOTO, 9, 1, 4, count_include_pad=False)
    picture = Image.fromarray((smooth * 255).round().byte().permute(1, 2, 0).numpy())
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 255
    found = preprocessed(vit)[0](pixels)[0]
    torch.testing.assert_close(found, transform(picture), rtol=0, atol=2 / 255 / 0.5)


def test_only_what_is_asked_for() -> None:
    images = PHOTO[None]
    torch.testing.assert_close(Preprocess()(images), images)
    torch.testing.assert_close(Preprocess(0.5, (0.1, 0.2, 0.5))(images)[:, 2], images[:, 2] * 2 - 1)
    assert torch.equal(Preprocess(crop=80)(images), images[..., 5:85, 20:100])
    assert Preprocess(resize=45)(images).shape == (1, 3, 45, 60)
    assert torch.equal(Preprocess(resize=90)(images), images)


def test_differentiable_and_free() -> None:
    layer, images = Preprocess(0.5, 0.5, resize=40, crop=32), PHOTO[None].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(layer(images).square().sum(), images)
    assert gradient[..., 30:60, 40:80].abs().gt(0).all()
    assert count_macs(layer, images) == 0


def test_a_crop_beyond_the_image() -> None:
    with pytest.raises(UsageError, match="crop = 64 of a shorter side of 32 pixels"):
        Preprocess(resize=32, crop=64)
    with pytest.raises(UsageError, match="crop = 100 of an image of 90 x 120 pixels"):
        Preprocess(crop=100)(PHOTO[None])
