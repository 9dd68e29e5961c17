"""A voice detector before a recogniser: what is heard decides which windows are paid for."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from effattack.counting.tallies import Count, tally
from effattack.domains.tokens import PAD
from effattack.errors import UsageError
from effattack.models_zoo.detection.pipeline import by_look
from effattack.models_zoo.sound.recordings import Recordings
from effattack.models_zoo.sound.silero import CHUNK, MACS, silero
from effattack.models_zoo.sound.whisper import Whisper
from effattack.models_zoo.sound.whisper_models import from_ctranslate2
from effattack.tasks import Text
from effattack.victim import Gate, Trace, Victim

THRESHOLD = 0.5
"""Probability of a voice above which a chunk is one: silero-vad's own."""
SPREAD = 4.0
"""Log-odds beyond the threshold at which a margin is tanh(1)."""
DETECTOR, RECOGNISER = "voice detector", "recogniser"
"""In ``Trace.stages``: where the work went."""


class VoiceGate(Victim):
    """Writes down the windows of a recording in which a voice is heard, one after the other.

    The detector hears every chunk of 512 samples; a window goes to the recogniser if any of its
    chunks is a voice. Services also ask for 250 ms of voice, and close the gate late; not here.

    Gates are ``voice``, a unit per chunk, and those of the recogniser, ``recogniser.NAME``, window
    by window. MACs judge; ``windows`` and the counts of the recogniser stand beside.

    Args:
        detector: recordings (B, 1, n) -> log-odds (B, chunks), such as :func:`.silero.silero`.
        recogniser: writes down one window.
        chunks: of a window.
        windows: most of them in a recording.
        threshold: probability of a voice above which a chunk is one.
        name, data: as of all victims.

    Raises:
        UsageError: for windows that are none, or longer than the recogniser's.
    """

    domain: Recordings
    task: Text

    def __init__(
        self,
        detector: nn.Module,
        recogniser: Whisper,
        *,
        chunks: int,
        windows: int,
        threshold: float = THRESHOLD,
        name: str = "voice_gate",
        data: str | None = None,
    ) -> None:
        heard = recogniser.domain
        most = heard.longest // CHUNK
        if not (1 <= chunks <= most and windows >= 1):
            raise UsageError(
                f"{name}: {windows} windows of {chunks} chunks: give at least one window, of 1 to "
                f"{most} chunks, as {recogniser.name} hears"
            )
        super().__init__(
            name=name,
            family="cascade",
            domain=Recordings(heard.rate, windows * chunks * CHUNK, heard.words),
            task=Text(windows * recogniser.cap, None, recogniser.task.tokenizer),
            max_macs=windows * (chunks * MACS + recogniser.max_macs),
            data=data,
        )
        self.detector, self.recogniser = detector, recogniser
        self.chunks, self.threshold = chunks, threshold
        self.cap = windows * recogniser.cap
        self.counts = {"windows": Count("window", self._whole)} | {
            name: Count(count.unit, partial(self._most, name), count.audited)
            for name, count in recogniser.counts.items()
        }
        self.eval()

    def ceiling(self, batch: Tensor, count: str = "macs") -> Tensor:
        """All windows of recordings of this length, each at its most."""
        if count == "macs":
            heard = math.ceil(batch.shape[2] / CHUNK) * MACS
            return heard + self._whole(batch) * self.recogniser.max_macs
        return super().ceiling(batch, count)

    def forward(self, batch: Tensor) -> Tensor:
        """Recordings (B, 1, n) -> what is written of all windows, (B, cap), without end tokens."""
        paid = self._paid(self._margin(batch))
        tally("windows", paid.sum())
        if not paid.any():
            return self._in_a_row(paid, batch.new_zeros(0, 0, dtype=torch.long))
        return self._in_a_row(paid, self.recogniser(self._windows(batch)[paid]))

    def trace(self, batch: Tensor) -> Trace:
        margin = self._margin(batch)
        paid = self._paid(margin)
        heard = self._windows(batch)[paid] if paid.any() else self.recogniser.example(1).to(batch)
        look = self.recogniser.trace(heard)

        def by_window(values: Tensor, without: float = 0.0) -> Tensor:
            rest = torch.full(paid.shape, without, dtype=values.dtype, device=values.device)
            return rest.masked_scatter(paid, values)

        assert look.slack is not None
        detected = torch.full_like(margin[:, 0].double(), margin.shape[1] * MACS)
        spent = by_window(look.macs).sum(1)
        voice = Gate(
            "voice",
            margin,
            margin > 0,
            torch.ones_like(margin, dtype=torch.bool),
            cost=self.recogniser.max_macs,
        )
        return Trace(
            logits=self._in_a_row(paid, look.logits[: int(paid.sum())]),
            gates=(voice, *(by_look(gate, paid) for gate in look.gates)),
            macs=detected + spent,
            stages={DETECTOR: detected, RECOGNISER: spent},
            also={"windows": paid.sum(1).double()}
            | {name: by_window(count).sum(1) for name, count in look.also.items()},
            slack=by_window(look.slack, math.inf).amin(1),
        )

    def _margin(self, batch: Tensor) -> Tensor:
        """(B, chunks): bounded log-odds of a voice, beyond those of the threshold."""
        beyond = math.log(self.threshold / (1 - self.threshold))
        return torch.tanh((self.detector(batch) - beyond) / SPREAD)

    def _paid(self, margin: Tensor) -> Tensor:
        """(B, windows) bool: any of their chunks is a voice."""
        whole = pad(margin > 0, (0, -margin.shape[1] % self.chunks))
        return whole.unflatten(1, (-1, self.chunks)).any(2)

    def _windows(self, batch: Tensor) -> Tensor:
        """(B, windows, 1, samples), silence behind the last."""
        size = self.chunks * CHUNK
        return pad(batch, (0, -batch.shape[2] % size)).unflatten(2, (-1, size)).transpose(1, 2)

    def _in_a_row(self, paid: Tensor, texts: Tensor) -> Tensor:
        """Texts of the windows that were paid for -> (B, cap), one behind the other."""
        written = torch.full((len(paid), self.cap), PAD, device=paid.device)
        recordings = paid.nonzero()[:, 0]
        for row, line in enumerate(written):
            answers = self.recogniser.task.answer(texts[recordings == row])
            words = answers[answers != PAD]
            line[: len(words)] = words
        return written

    def _whole(self, batch: Tensor) -> Tensor:
        """(B,): windows of recordings of this length."""
        count = math.ceil(batch.shape[2] / (self.chunks * CHUNK))
        return torch.full((len(batch),), float(count), dtype=torch.float64, device=batch.device)

    def _most(self, name: str, batch: Tensor) -> Tensor:
        """(B,): of a count of the recogniser, over all windows."""
        size = self.chunks * CHUNK
        return self._whole(batch) * self.recogniser.ceiling(batch[..., :size], name)


def before_whisper(folder: str | Path | None = None) -> VoiceGate:
    """silero-vad before Whisper tiny.en, both from their packages: five windows of 2.048 s.

    Args:
        folder: of another CTranslate2 Whisper, an English one.

    Raises:
        MissingPackage: without silero-vad, tokenizers, or a Whisper.
    """
    found = VoiceGate(silero(), from_ctranslate2(folder), chunks=64, windows=5)
    found.data = "effattack.models_zoo.sound.unspoken:unspoken"
    return found
