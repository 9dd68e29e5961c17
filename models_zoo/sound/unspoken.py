"""Sound without speech, made by a seed: silence, the hum of mains, and babble."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from effattack.domains.tokens import PAD
from effattack.models_zoo.sound.log_mel import RATE
from effattack.models_zoo.sound.recordings import STEP

SOUNDS = ("silence", "hum", "babble")
SAMPLES = 5 * 64 * 512
"""Of each: 10.24 s."""
HUM, VOICES, LOUDNESS = 0.02, 8, 0.01
"""Of full scale the first harmonic of a hum; how many voices a babble has, and its deviation.
Fixed before anything was measured on them."""


def unspoken() -> tuple[Tensor, Tensor]:
    """Recordings (3, 1, n) in the order of :data:`SOUNDS`, and what is said in them: nothing."""
    sounds = torch.stack([torch.zeros(SAMPLES), hum(), babble()])[:, None]
    return (sounds / STEP).round() * STEP, torch.full((len(SOUNDS), 1), PAD)


def hum() -> Tensor:
    """(n,): 50 Hz and five harmonics, each half as loud as the one before."""
    time = torch.arange(SAMPLES) / RATE
    harmonics = torch.arange(1, 7)[:, None]
    waves = (2 * math.pi * 50 * harmonics * time).sin() * 0.5 ** (harmonics - 1)
    return HUM * waves.sum(0)


def babble() -> Tensor:
    """(n,): voices that nobody understands: harmonics of wandering pitches, in the rhythm of
    syllables, each from another place."""
    draw, time = Generator().manual_seed(0), torch.arange(SAMPLES) / RATE
    total = torch.zeros(SAMPLES)
    for _ in range(VOICES):
        pitch, wander, beat, start, place = torch.rand(5, generator=draw).tolist()
        turns = (90 + 130 * pitch) * time + (1 + wander) * (2 * math.pi * 0.7 * time).sin()
        loud = (math.pi * (3 + 3 * beat) * time + 2 * math.pi * start).sin().square()
        for harmonic in range(1, 13):
            formant = math.exp(-((harmonic * (90 + 130 * pitch) - 400 - 600 * place) ** 2) / 4e5)
            total += formant * loud * (2 * math.pi * harmonic * turns).sin()
    return LOUDNESS * total / total.std()
