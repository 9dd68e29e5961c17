"""The three networks of MTCNN, their weights as facenet-pytorch ships them, and their MACs.

Zhang et al., "Joint Face Detection and Alignment Using Multitask Cascaded Convolutional Networks",
IEEE Signal Processing Letters 2016 (arXiv 1604.02878), in the widths of facenet-pytorch 2.6.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from effattack.errors import MissingPackage, UsageError
from effattack.models_zoo.checkpoints import read_checkpoint

PACKAGE, VERSION = "facenet_pytorch", "2.6.0"
PIP = f"pip install --no-deps {PACKAGE.replace('_', '-')}=={VERSION}"


class Network(nn.Module):
    """A trunk and some heads on it, by the names under which their weights are stored.

    Args:
        trunk: layers, run one after the other.
        heads: layers that each see what the trunk says.
    """

    def __init__(self, trunk: Mapping[str, nn.Module], heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        for name, layer in {**trunk, **heads}.items():
            self.add_module(name, layer)
        self._trunk, self._heads = tuple(trunk), tuple(heads)

    @property
    def trunk(self) -> list[nn.Module]:
        return [self.get_submodule(name) for name in self._trunk]

    @property
    def heads(self) -> list[nn.Module]:
        return [self.get_submodule(name) for name in self._heads]

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """(n, 3, h, w) in [-1, 1] -> what each head says: (n, outputs) or (n, outputs, h', w')."""
        seen = pixels
        for layer in self.trunk:
            seen = layer(seen)
        return tuple(head(seen) for head in self.heads)

    def macs(self, height: int, width: int) -> int:
        """Of one input of this size, in closed form."""
        total, size = 0, (height, width)
        for layer in self.trunk:
            size = _behind(layer, size)
            total += _macs(layer, size)
        return total + sum(_macs(head, size) for head in self.heads)


class ColumnsFirst(nn.Module):
    """(n, c, h, w) -> (n, w · h · c): the order that the dense layers were trained on."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.permute(0, 3, 2, 1).flatten(1)


class Networks(NamedTuple):
    """The three stages of the cascade. Heads give two logits (no face, face), then four
    regressions of the box; the last network five landmarks as well."""

    proposal: Network
    """P-Net: on every window of 12 pixels, as a convolution."""
    refinement: Network
    """R-Net: on crops of 24 pixels."""
    output: Network
    """O-Net: on crops of 48 pixels."""


def untrained() -> Networks:
    """The networks, with weights at random."""
    proposal = Network(
        {**_convolution(1, 3, 10, 3, pool=2), **_convolution(2, 10, 16, 3)}
        | _convolution(3, 16, 32, 3),
        {"conv4_1": nn.Conv2d(32, 2, 1), "conv4_2": nn.Conv2d(32, 4, 1)},
    )
    refinement = Network(
        {**_convolution(1, 3, 28, 3, pool=3), **_convolution(2, 28, 48, 3, pool=3)}
        | {**_convolution(3, 48, 64, 2), **_dense(4, 576, 128)},
        {"dense5_1": nn.Linear(128, 2), "dense5_2": nn.Linear(128, 4)},
    )
    output = Network(
        {**_convolution(1, 3, 32, 3, pool=3), **_convolution(2, 32, 64, 3, pool=3)}
        | {**_convolution(3, 64, 64, 3, pool=2), **_convolution(4, 64, 128, 2)}
        | _dense(5, 1152, 256),
        {"dense6_1": nn.Linear(256, 2), "dense6_2": nn.Linear(256, 4), "dense6_3": _landmarks()},
    )
    return Networks(proposal, refinement, output)


def read_networks(path: str | Path | None = None) -> Networks:
    """The networks with their weights; no code of the package is run.

    Args:
        path: folder of ``pnet.pt``, ``rnet.pt`` and ``onet.pt``. None: that of the installed
            package.

    Raises:
        MissingPackage: if no path is given, and the package is not installed.
        UsageError: if a file is missing, cannot be read, or holds another model.
    """
    folder = _installed() if path is None else Path(path)
    networks = untrained()
    for name, network in zip(("pnet", "rnet", "onet"), networks, strict=True):
        file = folder / f"{name}.pt"
        if not file.is_file():
            raise UsageError(
                f"{file} is missing: name the folder of pnet.pt, rnet.pt and onet.pt, which come "
                f"with {PIP}"
            )
        _fill(network, file)
    return networks


def _installed() -> Path:
    package = find_spec(PACKAGE)
    if package is None or package.origin is None:
        raise MissingPackage(
            f"the weights of MTCNN come with facenet-pytorch, which is not installed: {PIP}, or "
            "name the folder of pnet.pt, rnet.pt and onet.pt"
        )
    return Path(package.origin).parent / "data"


def _fill(network: Network, file: Path) -> None:
    weights, own = read_checkpoint(file), network.state_dict()
    wrong = [
        name
        for name in sorted(own.keys() | weights.keys())
        if name not in own or name not in weights or own[name].shape != weights[name].shape
    ]
    if wrong:
        raise UsageError(
            f"{file} holds the weights of another model: {', '.join(wrong[:3])} "
            f"{'differ' if len(wrong) > 1 else 'differs'} from facenet-pytorch {VERSION} ({PIP})"
        )
    network.load_state_dict(weights)


def _convolution(
    number: int, channels: int, width: int, kernel: int, pool: int | None = None
) -> dict[str, nn.Module]:
    layers: dict[str, nn.Module] = {
        f"conv{number}": nn.Conv2d(channels, width, kernel),
        f"prelu{number}": nn.PReLU(width),
    }
    if pool is not None:
        layers[f"pool{number}"] = nn.MaxPool2d(pool, 2, ceil_mode=True)
    return layers


def _dense(number: int, inputs: int, width: int) -> dict[str, nn.Module]:
    return {
        "columns_first": ColumnsFirst(),
        f"dense{number}": nn.Linear(inputs, width),
        f"prelu{number}": nn.PReLU(width),
    }


def _landmarks() -> nn.Linear:
    return nn.Linear(256, 10)


def _behind(layer: nn.Module, size: tuple[int, int]) -> tuple[int, int]:
    """Height and width behind a layer."""
    if isinstance(layer, nn.Conv2d):
        height, width = (side - int(layer.kernel_size[0]) + 1 for side in size)
    elif isinstance(layer, nn.MaxPool2d):
        height, width = (-(-(side - int(layer.kernel_size)) // 2) + 1 for side in size)
    else:
        height, width = size
    return height, width


def _macs(layer: nn.Module, size: tuple[int, int]) -> int:
    """Of a layer with these height and width behind it."""
    if isinstance(layer, nn.Conv2d):
        return layer.weight.numel() * size[0] * size[1]
    return layer.weight.numel() if isinstance(layer, nn.Linear) else 0
