"""silero-vad by its weights: its probabilities are the package's, chunk by chunk."""

from __future__ import annotations

from importlib.util import find_spec
from shutil import which
from typing import Any

import pytest
import torch

from effattack.models_zoo.sound.silero import CHUNK, PIP, packaged, silero
from effattack.models_zoo.sound.spoken import SENTENCES, spoken
from effattack.models_zoo.sound.unspoken import SOUNDS, unspoken


@pytest.fixture(scope="module")
def theirs() -> Any:
    """The package's network with the state that it keeps."""
    if find_spec("silero_vad") is None:
        pytest.skip(f"silero-vad is not there ({PIP}), or there is no network")
    return torch.jit.load(str(packaged()))


@pytest.mark.parametrize("loudness", [1.0, 0.002])
@pytest.mark.parametrize("number", range(len(SOUNDS)), ids=SOUNDS)
@pytest.mark.filterwarnings("ignore:.*torch.jit.load.*:FutureWarning")
@torch.no_grad()
def test_probabilities_are_the_package_s(theirs: Any, number: int, loudness: float) -> None:
    """In silence, hum and babble, the first 48 chunks, in noise of two loudnesses."""
    sound = unspoken()[0][number : number + 1, :, : 48 * CHUNK]
    draw = torch.Generator().manual_seed(number)
    heard = (sound + loudness * torch.randn(sound.shape, generator=draw) / 4).clamp(-1, 1)
    theirs.reset_states()
    expected = torch.cat([theirs(chunk[:, 0], 16_000) for chunk in heard.split(CHUNK, 2)], 1)
    found = silero()(heard).sigmoid()
    assert found.shape == expected.shape == (1, 48)
    assert (found - expected).abs().max() < 1e-5


@pytest.mark.skipif(which("espeak-ng") is None, reason="apt-get install espeak-ng")
@torch.no_grad()
def test_a_voice_is_heard_and_nothing_else(theirs: Any) -> None:
    """A spoken sentence has one; silence, hum and babble have none in any chunk."""
    network = silero()
    assert (network(spoken(SENTENCES[0])) > 0).double().mean() > 0.5
    assert not (network(unspoken()[0]) > 0).any()
