"""Recordings: sound of one channel and 16 bits, as long as it is, up to a window."""

from __future__ import annotations

from typing import Any

from torch import Tensor, zeros
from torch.nn.functional import pad

from effattack.domains import Series
from effattack.domains.tokens import Tokenizer
from effattack.errors import UsageError

STEP = 2.0**-15
"""Between two samples of 16 bits that a file can tell apart, in full scale."""


class Recordings(Series):
    """Samples (B, 1, length) in [-1, 1) at one rate; those of one batch are equally long.

    A recording that is shorter than the window is what an attacker may change; the silence that a
    model sets behind it is the model's own.

    Args:
        rate: samples per second.
        longest: most samples of one recording.
        words: the tokenizer of what is written down, by which labels of files are read.
    """

    noun, nouns = "recording", "recordings"
    _resize = "give samples of one channel, in the order (batch, 1, samples)"
    _rescale = "divide samples of 16 bits by 32768"

    def __init__(self, rate: int, longest: int, words: Tokenizer | None = None) -> None:
        super().__init__(1, None, -1.0, 1.0 - STEP, step=STEP)
        self.rate, self.longest, self.words = rate, longest, words

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "rate": self.rate}

    def fits(self, inputs: Any) -> bool:
        return super().fits(inputs) and inputs.shape[2] <= self.longest

    def check(self, inputs: Tensor) -> None:
        if super().fits(inputs) and not self.fits(inputs):
            raise UsageError(
                f"recordings have {inputs.shape[2]} samples, {inputs.shape[2] / self.rate:.1f} s; "
                f"the window is {self.longest / self.rate:g} s of {self.rate} samples: cut them "
                "into windows"
            )
        super().check(inputs)

    def example(self, count: int) -> Tensor:
        """Silence of a tenth of a second, or a window."""
        return zeros(count, 1, min(self.rate // 10, self.longest))

    def stretched(self, inputs: Tensor) -> Tensor:
        """With silence behind them, up to the window."""
        return pad(inputs, (0, self.longest - inputs.shape[2]))
