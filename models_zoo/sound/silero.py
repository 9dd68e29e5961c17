"""silero-vad at 16 kHz: how likely each chunk of a recording holds a voice.

    pip install --no-deps silero-vad==6.2.3

The network of that package (MIT) in plain modules, so that it is differentiated and counted: a
Fourier transform, four convolutions, one recurrent cell whose state goes from chunk to chunk.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from effattack.errors import MissingPackage, UsageError

PIP = "pip install --no-deps silero-vad==6.2.3"
CHUNK, CONTEXT, MIRRORED = 512, 64, 64
"""Samples of a chunk, those before it that are heard with it, and those mirrored behind it."""
FRAME, HOP = 256, 128
BINS, WIDTH = FRAME // 2 + 1, 128
FRAMES = (CONTEXT + CHUNK + MIRRORED - FRAME) // HOP + 1
NAMES = {
    "stft_conv.weight": "stft.forward_basis_buffer",
    **{
        f"conv{k + 1}.{part}": f"encoder.{k}.reparam_conv.{part}"
        for k in range(4)
        for part in ("weight", "bias")
    },
    **{
        f"lstm_cell.{part}_{side}": f"decoder.rnn.{part}_{side}"
        for part in ("weight", "bias")
        for side in ("ih", "hh")
    },
    "final_conv.weight": "decoder.decoder.2.weight",
    "final_conv.bias": "decoder.decoder.2.bias",
}
"""Ours -> those of the package's network of 16 kHz."""
MACS = (
    FRAMES * 2 * BINS * FRAME
    + FRAMES * BINS * WIDTH * 3
    + 2 * WIDTH * 64 * 3
    + 64 * 64 * 3
    + 64 * WIDTH * 3
    + 2 * WIDTH * 4 * WIDTH
    + WIDTH
)
"""Of a chunk: transform, four convolutions of which the second and third halve the four frames, the
cell, and the last layer."""


class Silero(nn.Module):
    """Recordings -> log-odds of a voice in each chunk; random weights until they are loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 2 * BINS, FRAME, HOP, bias=False)
        self.conv1 = nn.Conv1d(BINS, WIDTH, 3, padding=1)
        self.conv2 = nn.Conv1d(WIDTH, 64, 3, 2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, 2, padding=1)
        self.conv4 = nn.Conv1d(64, WIDTH, 3, padding=1)
        self.lstm_cell = nn.LSTMCell(WIDTH, WIDTH)
        self.final_conv = nn.Conv1d(WIDTH, 1, 1)

    def forward(self, sound: Tensor) -> Tensor:
        """Samples (B, 1, n) -> (B, chunks); the last chunk is filled up with silence."""
        chunks = -(-sound.shape[2] // CHUNK)
        heard = F.pad(sound[:, 0], (CONTEXT, chunks * CHUNK - sound.shape[2]))
        each = heard.unfold(1, CONTEXT + CHUNK, CHUNK).flatten(0, 1)
        features = self._features(each).unflatten(0, (len(sound), chunks))
        return self.final_conv(F.relu(self._remembered(features)).transpose(1, 2))[:, 0]

    def _features(self, chunks: Tensor) -> Tensor:
        """(n, CONTEXT + CHUNK) -> (n, WIDTH). Amplitudes have no gradient in silence."""
        waves = self.stft_conv(F.pad(chunks[:, None], (0, MIRRORED), mode="reflect"))
        seen = torch.linalg.vector_norm(waves.unflatten(1, (2, BINS)), dim=1)
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
            seen = F.relu(layer(seen))
        return seen[..., 0]

    def _remembered(self, features: Tensor) -> Tensor:
        """(B, chunks, WIDTH) -> the same shape: the cell's output after each chunk."""
        cell = self.lstm_cell
        given = F.linear(features, cell.weight_ih, cell.bias_ih)
        output = state = features.new_zeros(len(features), WIDTH)
        found = []
        for one in given.unbind(1):
            doors = one + F.linear(output, cell.weight_hh, cell.bias_hh)
            into, keep, new, out = doors.chunk(4, 1)
            state = keep.sigmoid() * state + into.sigmoid() * new.tanh()
            output = out.sigmoid() * state.tanh()
            found.append(output)
        return torch.stack(found, 1)


def silero(path: str | Path | None = None) -> Silero:
    """With the weights of a ``silero_vad.jit``, the file that the package loads by default.

    Args:
        path: of the file; None: that of the package.

    Raises:
        MissingPackage: where no file is named and the package is absent.
        UsageError: for a file that cannot be read, or holds another network.
    """
    path = packaged() if path is None else Path(path)
    network = Silero()
    try:
        held = _held(path)
        network.load_state_dict({ours: held[f"_model.{name}"] for ours, name in NAMES.items()})
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise UsageError(
            f"{path} holds no silero-vad of 16 kHz: give the silero_vad.jit of {PIP}"
        ) from error
    return network.requires_grad_(requires_grad=False).eval()


def packaged() -> Path:
    """The file of the package.

    Raises:
        MissingPackage: where it is absent.
    """
    package = find_spec("silero_vad")
    if package is None or package.origin is None:
        raise MissingPackage(f"no voice detector is there: {PIP}, or name its silero_vad.jit")
    return Path(package.origin).parent / "data" / "silero_vad.jit"


def _held(path: Path) -> Mapping[str, Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch says of its own format that it ages
        return dict(torch.jit.load(str(path), map_location="cpu").state_dict())
