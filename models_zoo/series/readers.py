"""What reads a series piece by piece and remembers what it has seen, for ``EarlyReading``.

A memory is a tuple of tensors with one row per series, so that series which are done can leave the
batch. Reading a series in pieces of any sizes, whole frames each, gives what reading it at once
does.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Reader(nn.Module):
    """Subclass it: ``start`` and ``read`` are all that must be written.

    Args:
        channels: of the series.
        width: of the summary that the classifier is given.
        frame: steps that it reads together; a piece holds a whole number of frames.
    """

    def __init__(self, channels: int, width: int, frame: int = 1) -> None:
        super().__init__()
        self.channels, self.width, self.frame = channels, width, frame

    def start(self, count: int, like: Tensor) -> tuple[Tensor, ...]:
        """The memory of ``count`` series of which nothing has been read."""
        raise NotImplementedError

    def read(self, piece: Tensor, memory: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The next piece (B, channels, steps) -> the memory after it; its first part, (B, width),
        is the summary."""
        raise NotImplementedError


class GRUReader(Reader):
    """A gated recurrent unit, frame by frame; its state is all that it remembers.

    Cho et al., EMNLP 2014 (arXiv 1406.1078): 3 width (frame · channels + width) MACs a frame.
    """

    def __init__(self, channels: int, width: int, frame: int = 1) -> None:
        super().__init__(channels, width, frame)
        self.gru = nn.GRU(channels * frame, width, batch_first=True)

    def start(self, count: int, like: Tensor) -> tuple[Tensor, ...]:
        return (like.new_zeros(count, self.width),)

    def read(self, piece: Tensor, memory: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        frames = piece.unflatten(2, (-1, self.frame)).transpose(1, 2).flatten(2)
        return (self.gru(frames, memory[0][None])[1][0],)


class ConvReader(Reader):
    """Causal convolutions, each with twice the dilation of the one before; the largest value of
    each channel so far is the summary.

    Bai et al., "An Empirical Evaluation of Generic Convolutional and Recurrent Networks for
    Sequence Modeling", 2018 (arXiv 1803.01271), without its residuals. A layer remembers the steps
    that its kernel still reaches back to.

    Args:
        channels: of the series.
        widths: of the layers; the last one's is that of the summary.
        kernel: steps that each layer weighs.
    """

    def __init__(self, channels: int, widths: Sequence[int], kernel: int = 3) -> None:
        super().__init__(channels, widths[-1])
        inputs = (channels, *widths[:-1])
        self.layers = nn.ModuleList(
            nn.Conv1d(i, o, kernel, dilation=2**k)
            for k, (i, o) in enumerate(zip(inputs, widths, strict=True))
        )

    def start(self, count: int, like: Tensor) -> tuple[Tensor, ...]:
        pasts = [
            like.new_zeros(count, layer.in_channels, layer.dilation[0] * (layer.kernel_size[0] - 1))
            for layer in self.layers
        ]
        return like.new_zeros(count, self.width), *pasts

    def read(self, piece: Tensor, memory: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        largest, *pasts = memory
        remembered = []
        for layer, past in zip(self.layers, pasts, strict=True):
            seen = torch.cat([past, piece], dim=2)
            remembered.append(seen[:, :, seen.shape[2] - past.shape[2] :])
            piece = F.relu(layer(seen))
        return torch.maximum(largest, piece.amax(2)), *remembered
