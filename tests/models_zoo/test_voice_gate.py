"""A voice detector before a recogniser: which windows are paid for, and what that costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from effattack import attacks
from effattack.counting.macs import count_macs
from effattack.domains.tokens import PAD
from effattack.errors import UsageError
from effattack.models_zoo.sound.listener import Listener, Sizes
from effattack.models_zoo.sound.silero import CHUNK, MACS, Silero, silero
from effattack.models_zoo.sound.unspoken import SOUNDS, unspoken
from effattack.models_zoo.sound.voice_gate import VoiceGate
from effattack.models_zoo.sound.whisper import Whisper
from effattack.threats import parse_threat
from effattack.victim import audit
from effattack.victim.checks import INVARIANTS, Check

END, CAP, CHUNKS, WINDOWS = 3, 6, 2, 3
SIZES = Sizes(12, 8, 2, 12, 1, 1, positions=4, context=8, bands=8)


def drawn(network: nn.Module, scale: float) -> nn.Module:
    draw = Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=draw))
    return network.eval()


def detector() -> Silero:
    """Random, and undecided on noise."""
    found = drawn(Silero(), 0.1)
    assert isinstance(found, Silero)
    with torch.no_grad():
        found.final_conv.bias -= found(sounds(8)).median()
    return found


def victim(**settings: Any) -> VoiceGate:
    network = drawn(Listener(SIZES, (1, 2)), 0.5)
    assert isinstance(network, Listener)
    recogniser = Whisper(network, end=END, first=[6], cap=CAP)
    usual: dict[str, Any] = {"chunks": CHUNKS, "windows": WINDOWS}
    return VoiceGate(detector(), recogniser, **{**usual, **settings})


def sounds(count: int, samples: int = WINDOWS * CHUNKS * CHUNK - 200) -> Tensor:
    """Noise that is louder in some windows."""
    draw = Generator().manual_seed(1)
    noise = torch.randn(count, 1, samples, generator=draw)
    loud = torch.rand(count, 1, WINDOWS, generator=draw).repeat_interleave(CHUNKS * CHUNK, 2)
    return (noise * loud[..., :samples] / 16 * 2**15).round().clamp(-(2**15), 2**15 - 1) / 2**15


@torch.no_grad()
def test_chunks_are_heard_one_after_the_other() -> None:
    """By the cell of torch, chunk by chunk, with 64 samples of the one before."""
    mine, heard = detector(), sounds(2)
    state, before, found = None, torch.zeros(2, 64), []
    for chunk in F.pad(heard[:, 0], (0, 200)).split(CHUNK, 1):
        wave = F.pad(torch.cat([before, chunk], 1)[:, None], (0, 64), mode="reflect")
        parts = mine.stft_conv(wave)
        seen = (parts[:, :129] ** 2 + parts[:, 129:] ** 2).sqrt()
        for layer in (mine.conv1, mine.conv2, mine.conv3, mine.conv4):
            seen = layer(seen).relu()
        state = mine.lstm_cell(seen[..., 0], state)
        found.append(mine.final_conv(state[0].relu()[..., None])[:, 0, 0])
        before = chunk[:, -64:]
    assert torch.allclose(torch.stack(found, 1), mine(heard), atol=1e-5)


def test_a_chunk_costs_what_is_known_of_it() -> None:
    assert MACS == 679_552
    assert count_macs(detector(), sounds(2)) == 2 * 6 * MACS


@pytest.mark.parametrize("check", INVARIANTS, ids=lambda check: check.__name__)
def test_every_invariant_holds(check: Check) -> None:
    assert not check(victim(), sounds(6))


@torch.no_grad()
def test_windows_with_a_voice_are_written_down_and_paid_for() -> None:
    mine, heard = victim(), sounds(8)
    trace, found = mine.trace(heard), audit(mine, heard)
    written = mine(heard)
    odds = mine.detector(heard)
    for row, one in enumerate(heard.split(1)):
        windows = F.pad(one, (0, 200)).split(CHUNKS * CHUNK, 2)
        voices = odds[row].split(CHUNKS)
        paid = [w for w, voice in zip(windows, voices, strict=True) if (voice > 0).any()]
        texts = [mine.recogniser.task.answer(mine.recogniser(w))[0] for w in paid]
        words = [word for text in texts for word in text.tolist() if word != PAD]
        assert written[row][written[row] != PAD].tolist() == words
        looks = sum(mine.recogniser.trace(window).macs.item() for window in paid)
        assert found.macs[row] == trace.macs[row] == 6 * MACS + looks
        assert found.counts["windows"][row] == trace.also["windows"][row] == len(paid)
    assert trace.also["windows"].unique().numel() > 2
    for name in ("passes", "output_tokens", "cache_bytes"):
        assert torch.equal(found.counts[name], trace.also[name])


def test_no_window_is_no_text() -> None:
    mine, silence = victim(threshold=1 - 1e-6), torch.zeros(2, 1, 700)
    trace = mine.trace(silence)
    assert (mine(silence) == PAD).all()
    assert (trace.also["windows"] == 0).all()
    assert (trace.macs == 2 * MACS).all()
    assert (mine.ceiling(silence) == 2 * MACS + mine.recogniser.max_macs).all()


def test_attacks_open_the_gate() -> None:
    mine, heard = victim(), sounds(6)
    found = attacks.build("Slowdown(steps=4)", mine, parse_threat("linf:0.02"))(heard)
    assert ((found - heard).abs() <= 0.02).all()
    before, after = (mine.trace(some).also["windows"].sum() for some in (heard, found))
    assert after > before


def test_sound_without_speech_is_the_same_each_time() -> None:
    first, second = unspoken(), unspoken()
    assert torch.equal(first[0], second[0])
    assert first[0].shape == (len(SOUNDS), 1, 5 * 64 * CHUNK)
    assert first[0][0].abs().max() == 0
    assert first[0][1:].abs().max() < 0.2


def test_files_that_hold_something_else_are_refused(tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(2)}, tmp_path / "other.jit")
    (tmp_path / "text.jit").write_text("nothing")
    for name in ("other.jit", "text.jit", "none.jit"):
        with pytest.raises(UsageError, match=r"holds no silero-vad of 16 kHz: give the silero_vad"):
            silero(tmp_path / name)


@pytest.mark.parametrize("settings", [{"chunks": 0}, {"chunks": 3}, {"windows": 0}])
def test_windows_that_are_none_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="give at least one window, of 1 to 2 chunks, as whisper"):
        victim(**settings)
