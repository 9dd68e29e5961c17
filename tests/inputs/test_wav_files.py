"""WAV files: what is read, and what is refused in words."""

from __future__ import annotations

import os
import wave
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from effattack.domains import Domain, Series
from effattack.errors import UsageError
from effattack.inputs.source import Source
from effattack.inputs.wav_files import read_wav, write_wav
from effattack.models_zoo.sound.recordings import Recordings


def written(
    path: Path, frames: bytes, channels: int = 1, width: int = 2, rate: int = 16_000
) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, width, rate, 0, "NONE", ""))
        file.writeframes(frames)
    return path


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(samples=st.lists(st.integers(-(2**15), 2**15 - 1), min_size=1, max_size=50))
def test_samples_are_those_of_the_file(samples: list[int], tmp_path: Path) -> None:
    frames = b"".join(sample.to_bytes(2, "little", signed=True) for sample in samples)
    found = read_wav(written(tmp_path / "a.wav", frames))
    assert found.shape == (1, 1, len(samples))
    assert (found * 2**15).flatten().tolist() == samples
    write_wav(tmp_path / "b.wav", found)
    assert (tmp_path / "b.wav").read_bytes() == (tmp_path / "a.wav").read_bytes()


def test_a_silent_file_is_read(tmp_path: Path) -> None:
    found = read_wav(written(tmp_path / "a.wav", bytes(200)))
    assert torch.equal(found, torch.zeros(1, 1, 100))


@pytest.mark.parametrize(
    ("frames", "form", "words"),
    [
        (bytes(40), {"rate": 22_050}, "has 22050 samples per second, not 16000: ffmpeg -i IN -ar"),
        (bytes(40), {"channels": 2}, "has 2 channels, the victim takes one: ffmpeg"),
        (bytes(40), {"width": 1}, "has samples of 8 bits, not 16: ffmpeg"),
        (b"", {}, "holds no sound: record it again"),
        (bytes(2 * 16_000 * 2), {}, "has 2.0 s, the window is 1 s: cut it into windows"),
    ],
)
def test_other_sound_is_refused(
    frames: bytes, form: dict[str, int], words: str, tmp_path: Path
) -> None:
    path = written(tmp_path / "a.wav", frames, **form)
    with pytest.raises(UsageError, match=words):
        read_wav(path, longest=1.0)


@pytest.mark.parametrize(
    ("held", "words"),
    [
        (b"", "ends before its sound begins: record it again"),
        (b"ID3\x03 no wave at all", "cannot be read as WAV"),
        (None, "or there is none of that name"),
    ],
)
def test_what_is_no_wav_is_refused(held: bytes | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    if held is not None:
        path.write_bytes(held)
    with pytest.raises(UsageError, match=words):
        read_wav(path)


class Letters:
    """A tokenizer of letters."""

    def encode(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]

    def decode(self, ids: list[int]) -> str:
        return "".join(map(chr, ids))


def test_a_recording_is_data_with_its_words_beside(tmp_path: Path) -> None:
    written(tmp_path / "a.wav", bytes(range(200)))
    (tmp_path / "a.txt").write_text("yes\n  no\n", encoding="utf-8")
    sounds, labels = Source(str(tmp_path / "a.wav"), (1, None)).open(SOUND).whole()
    assert torch.equal(sounds, read_wav(tmp_path / "a.wav"))
    assert Letters().decode(labels[0].tolist()) == " yes no"


SOUND = Recordings(16_000, 150, Letters())


@pytest.mark.parametrize(
    ("domain", "frames", "words"),
    [
        (None, 100, r"a.wav holds sound, and the victim takes no recordings: name a recogniser"),
        (Series(1, None, -1, 1), 100, "and the victim takes series: name a recogniser"),
        (Recordings(16_000, 150), 100, "the victim has no tokenizer for the words of a.txt"),
        (SOUND, 100, r"what is said in .*a.wav cannot be read from a.txt beside it \(No such"),
        (SOUND, 400, r"the window is 0.009375 s: cut it into windows"),
    ],
)
def test_recordings_that_do_not_fit_are_refused(
    domain: Domain | None, frames: int, words: str, tmp_path: Path
) -> None:
    written(tmp_path / "a.wav", bytes(frames))
    with pytest.raises(UsageError, match=words):
        Source(str(tmp_path / "a.wav"), (1, None)).open(domain)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.wav")
    with pytest.raises(UsageError, match="it is no file"):
        read_wav(tmp_path / "a.wav")
