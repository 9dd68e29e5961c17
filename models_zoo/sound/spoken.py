"""Sentences as ``espeak-ng`` speaks them, read from WAV files at the rate of Whisper."""

from __future__ import annotations

import math
import subprocess
import tempfile
import wave
from pathlib import Path

import numpy as np
import torch
from scipy.signal import resample_poly
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from effattack.domains.tokens import PAD
from effattack.errors import MissingPackage
from effattack.inputs.wav_files import read_wav, write_wav
from effattack.models_zoo.sound.log_mel import RATE
from effattack.models_zoo.sound.whisper_models import Words, packaged

SENTENCES = (
    "Open the window, it is getting warm in here.",
    "My brother bought a red bicycle last summer.",
    "We will meet in front of the library at noon.",
    "She forgot her umbrella on the bus again.",
    "The soup needs a little more salt.",
    "How far is it from the station to the harbour?",
)
"""Fixed before anything was measured on them."""


def sentences() -> tuple[Tensor, Tensor]:
    """All of them, silence behind the shorter ones: recordings (B, 1, n), and their ids (B, L).

    Raises:
        MissingPackage: without espeak-ng, tokenizers, or the package that holds Whisper's.
    """
    words = Words(packaged() / "tokenizer.json")
    said = pad_sequence([spoken(text)[0, 0] for text in SENTENCES], batch_first=True)
    ids = [torch.tensor(words.encode(f" {text}")) for text in SENTENCES]
    return said[:, None], pad_sequence(ids, batch_first=True, padding_value=PAD)


def spoken(text: str) -> Tensor:
    """Samples (1, 1, n).

    Raises:
        MissingPackage: without espeak-ng.
    """
    with tempfile.TemporaryDirectory() as folder:
        said, file = Path(folder) / "said.wav", Path(folder) / "file.wav"
        try:
            subprocess.run(["espeak-ng", "-w", str(said), text], check=True)
        except FileNotFoundError as error:
            raise MissingPackage("nobody speaks here: apt-get install espeak-ng") from error
        with wave.open(str(said), "rb") as source:
            rate = source.getframerate()
            samples = np.frombuffer(source.readframes(source.getnframes()), "<i2")
        divisor = math.gcd(RATE, rate)
        found = resample_poly(samples.astype(float), RATE // divisor, rate // divisor)
        write_wav(file, torch.from_numpy(found / 2**15)[None, None], RATE)
        return read_wav(file)
