"""The plain networks under the embedded victims, small enough to train on a CPU in minutes."""

from __future__ import annotations

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from effattack.models_zoo.layer_skipping.skipnet import GateCell, RecurrentGate


def small_vit(
    image: int = 32,
    patch: int = 4,
    width: int = 64,
    depth: int = 6,
    heads: int = 4,
    mlp_ratio: float = 4.0,
    classes: int = 10,
) -> VisionTransformer:
    """A stock timm ViT: 64 patches and CLS, 22.6 M MACs at the default sizes."""
    return VisionTransformer(
        img_size=image,
        patch_size=patch,
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        mlp_ratio=mlp_ratio,
        num_classes=classes,
    )


def convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """3 x 3 convolution, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def pooled_head(width: int, classes: int) -> nn.Sequential:
    """Average pooling over the image, then one linear layer."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))


def exit_stages(classes: int = 10) -> tuple[list[nn.Module], list[nn.Module]]:
    """Four stages of two convolutions and their four heads (the shape of a small SDN)."""
    widths = [(3, 8, 1), (8, 16, 2), (16, 32, 2), (32, 64, 1)]
    stages: list[nn.Module] = [
        nn.Sequential(convolution(i, o, s), convolution(o, o)) for i, o, s in widths
    ]
    heads: list[nn.Module] = [pooled_head(o, classes) for _, o, _ in widths]
    return stages, heads


def tiny_cnn(classes: int = 10) -> nn.Sequential:
    """The saver of the embedded cascade: under half a percent of the base's MACs."""
    return nn.Sequential(
        convolution(3, 6, 2),
        convolution(6, 12, 2),
        convolution(12, 16, 2),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(64, classes),
    )


def saver_cnn(width: int, classes: int = 10) -> nn.Sequential:
    """A candidate saver for 32 x 32 photographs: 1.4 M MACs at width 8, 5.0 M at 16."""
    return nn.Sequential(
        convolution(3, width),
        convolution(width, 2 * width, 2),
        convolution(2 * width, 4 * width, 2),
        convolution(4 * width, 4 * width),
        pooled_head(4 * width, classes),
    )


def base_cnn(classes: int = 10) -> nn.Sequential:
    """The base model of the embedded cascade."""
    return nn.Sequential(
        convolution(3, 32),
        convolution(32, 64, 2),
        convolution(64, 64),
        convolution(64, 96, 2),
        convolution(96, 96),
        pooled_head(96, classes),
    )


class Residual(nn.Module):
    """Two convolutions beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(convolution(width, width), convolution(width, width))

    def forward(self, features: Tensor) -> Tensor:
        return (features + self.body(features)).relu()


def gated_resnet(
    width: int = 8, depth: int = 3, classes: int = 10
) -> tuple[nn.Module, list[nn.Module], list[nn.Module | None], nn.Module]:
    """Stem, blocks, gates and head of a SkipNet: three groups of gated residual blocks.

    Between groups, a convolution that is always computed halves the image and doubles the width.
    Untrained gates are open.
    """
    cell = GateCell()
    nn.init.constant_(cell.linear.bias, 2.0)
    blocks: list[nn.Module] = []
    gates: list[nn.Module | None] = []
    for channels in (width, 2 * width, 4 * width):
        if blocks:
            blocks.append(convolution(channels // 2, channels, 2))
            gates.append(None)
        for _ in range(depth):
            blocks.append(Residual(channels))
            gates.append(RecurrentGate(channels, cell))
    return convolution(3, width), blocks, gates, pooled_head(4 * width, classes)
