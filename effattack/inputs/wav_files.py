"""Sound in WAV files, of one channel and 16 bits, as a recogniser takes it."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from effattack.domains import Domain
from effattack.domains.tokens import PAD
from effattack.errors import UsageError
from effattack.streams import on_one_line

SUFFIX = ".wav"
CONVERT = "ffmpeg -i IN -ar {rate} -ac 1 -c:a pcm_s16le OUT.wav"


def read_wav(path: str | Path, rate: int = 16_000, longest: float = 30.0) -> Tensor:
    """The samples of a file, (1, 1, n) in [-1, 1) on the grid of 16 bits.

    Args:
        path: of the file.
        rate: samples per second that the victim takes; nothing is resampled here.
        longest: seconds of the victim's window.

    Raises:
        UsageError: for a file that is missing, empty, damaged, compressed or no WAV; of another
            rate, of several channels or other bits; longer than the window.
    """
    name, convert = on_one_line(Path(path)), CONVERT.format(rate=rate)
    if not Path(path).is_file():  # opening a pipe would wait for a writer
        raise UsageError(f"cannot read {name}: it is no file, or there is none of that name")
    try:
        with wave.open(str(path), "rb") as file:
            channels, width, found, *_ = file.getparams()
            held = file.readframes(file.getnframes())
    except EOFError as error:
        raise UsageError(f"{name} ends before its sound begins: record it again") from error
    except (OSError, wave.Error) as error:
        raise UsageError(f"{name} cannot be read as WAV ({error}): {convert}") from error
    if channels != 1:
        raise UsageError(f"{name} has {channels} channels, the victim takes one: {convert}")
    if width != 2:
        raise UsageError(f"{name} has samples of {8 * width} bits, not 16: {convert}")
    if found != rate:
        raise UsageError(f"{name} has {found} samples per second, not {rate}: {convert}")
    if not len(held):
        raise UsageError(f"{name} holds no sound: record it again")
    if len(held) > 2 * rate * longest:
        raise UsageError(
            f"{name} has {len(held) / 2 / rate:.1f} s, the window is {longest:g} s: cut it into "
            "windows"
        )
    samples = np.frombuffer(held, "<i2").astype(np.float32) / 2**15
    return torch.from_numpy(samples)[None, None]


def read_recording(path: Path, domain: Domain | None) -> tuple[Tensor, Tensor]:
    """A recording (1, 1, n) for a victim of sound, and its label (1, L): the words of the text file
    beside it, ``hello.txt`` of ``hello.wav``.

    Args:
        path: of the sound.
        domain: of the victim; one of sound has a ``rate``, the ``longest`` of its samples, and
            ``words``, the tokenizer of what is written down.

    Raises:
        UsageError: for a victim of something else, one without a tokenizer, or a text file that is
            missing; and as :func:`read_wav`.
    """
    name, said = on_one_line(path), path.with_suffix(".txt")
    rate, longest, words = (getattr(domain, part, None) for part in ("rate", "longest", "words"))
    if rate is None or longest is None:
        takes = "no recordings" if domain is None else domain.nouns
        raise UsageError(f"{name} holds sound, and the victim takes {takes}: name a recogniser")
    sound = read_wav(path, rate, longest / rate)
    if words is None:
        raise UsageError(
            f"{name}: the victim has no tokenizer for the words of {said.name}: give words= to it, "
            "or recordings and ids of what is said, by module:factory"
        )
    try:
        text = said.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise UsageError(
            f"what is said in {name} cannot be read from {said.name} beside it ({reason}): write "
            "it there; an empty file says that it is nothing"
        ) from error
    return sound, torch.tensor([words.encode(" " + " ".join(text)) or [PAD]])


def write_wav(path: str | Path, sound: Tensor, rate: int = 16_000) -> None:
    """A recording (1, 1, n) in [-1, 1), rounded to 16 bits."""
    levels = (sound.detach().cpu()[0, 0].double() * 2**15).round().clamp(-(2**15), 2**15 - 1)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(levels.numpy().astype("<i2").tobytes())
