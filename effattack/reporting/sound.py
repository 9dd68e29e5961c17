"""Recordings as they sound: waveform and spectrogram, clean and attacked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from effattack.reporting import pictures, svg, warmth
from effattack.reporting.stored import Description
from effattack.reporting.strips import Pair, Shown, Strips

WIDTH, LEFT, RIGHT = 480.0, 40.0, 476.0
TOP, WAVE, GAP, BANDS = 10.0, 56.0, 18.0, 96.0
"""Heights: above the waveform, of it, of what is between, of the spectrogram."""
COLUMNS = 400
"""Pieces of time that are told apart."""
WINDOW = 0.025
"""Seconds of sound in one column of a spectrogram."""
RANGE = 80.0
"""Decibels from the loudest frequency of both recordings down to the darkest colour."""
HOW = (
    "Sound is shown as its waveform, in full scale, and below it as its spectrogram: loud "
    f"frequencies are light, those {RANGE:g} dB below the loudest of both recordings dark."
)


def can(domain: Description) -> bool:
    """One channel at a rate."""
    return domain["kind"] == "series" and "rate" in domain and domain["shape"][0] == 1


def size(domain: Description) -> float:
    """Bytes of both waveforms and spectrograms."""
    return 2.0 * (COLUMNS * 20 + COLUMNS * BANDS)


def show(pairs: Sequence[Pair], domain: Description) -> Strips:
    """Both recordings of each input."""
    return Strips([_both(pair, float(domain["rate"])) for pair in pairs], "")


def _both(pair: Pair, rate: float) -> list[Shown]:
    clean, attacked = pair.clean[0], pair.attacked[0]
    power = [spectrogram(sound, rate) for sound in (clean, attacked)]
    loudest = max(one.max() for one in power)
    seconds = f"{len(clean) / rate:.2f} s"
    told = ["clean", f"attacked, {_ratio(clean, attacked)}"]
    return [
        Shown(
            f"{name}, {seconds}",
            _drawn(f"recording {pair.sample}, {name}, {seconds}", sound, found - loudest, rate),
        )
        for name, sound, found in zip(told, (clean, attacked), power, strict=True)
    ]


def _ratio(clean: NDArray[Any], attacked: NDArray[Any]) -> str:
    """How much louder a recording is than what was changed of it."""
    if len(clean) != len(attacked):
        return "of another length"
    change, signal = float(((attacked - clean) ** 2).sum()), float((clean**2).sum())
    if not change:
        return "unchanged"
    return f"{10 * np.log10(signal / change):.1f} dB above the change" if signal else "of silence"


def spectrogram(sound: NDArray[Any], rate: float) -> NDArray[np.float64]:
    """(frequencies, columns) in dB of full scale, from 0 to half the rate, squared windows of Hann.

    Args:
        sound: (n,) in [-1, 1].
        rate: samples per second.
    """
    window = max(2, round(WINDOW * rate))
    padded = np.pad(sound, (0, max(0, window - len(sound))))
    starts = np.linspace(0, len(padded) - window, COLUMNS).round().astype(int)
    pieces = np.lib.stride_tricks.sliding_window_view(padded, window)[np.unique(starts)]
    weights = np.hanning(window + 1)[:-1]
    amplitude = np.abs(np.fft.rfft(pieces * weights)) / weights.sum() * 2
    return 20 * np.log10(np.maximum(amplitude, 1e-8)).T


def _drawn(label: str, sound: NDArray[Any], decibels: NDArray[Any], rate: float) -> svg.Drawing:
    top = TOP + WAVE + GAP
    bottom = top + BANDS
    marks = [_wave(sound), *_scale(TOP, WAVE, ("1", "0", "−1"))]
    value = np.clip(1 + decibels / RANGE, 0, 1)[::-1]
    uri = pictures.png(warmth.colours(value))
    marks.append(svg.image(uri, LEFT, top, RIGHT - LEFT, BANDS))
    marks += _scale(top, BANDS, [f"{rate * share / 1000:g} kHz" for share in (0.5, 0.25, 0)])
    length = len(sound) / rate
    for tick in svg.ticks(0, length):
        at = LEFT + (RIGHT - LEFT) * tick / length
        marks.append(svg.text(f"{tick:g} s", "tick middle", min(at, WIDTH - 12), bottom + 16))
    return svg.draw(WIDTH, bottom + 22, label, *marks)


def _scale(top: float, height: float, told: Sequence[str]) -> list[Markup]:
    """What stands at the upper end, the middle and the lower end of a panel."""
    marks = []
    for place, word in enumerate(told):
        at = top + height * place / 2
        marks.append(svg.text(word, "tick end small", LEFT - 4, at + 3))
    return marks


def _wave(sound: NDArray[Any]) -> Markup:
    """From the lowest to the highest sample of each piece of time."""
    pieces = np.array_split(sound, min(COLUMNS, len(sound)))
    step = (RIGHT - LEFT) / len(pieces)
    high = [(LEFT + step * at, _y(piece.max())) for at, piece in enumerate(pieces)]
    low = [(LEFT + step * at, _y(piece.min()) + 0.5) for at, piece in enumerate(pieces)]
    corners = [(round(x, 1), y) for x, y in high + low[::-1]]
    return svg.path("wave", corners, closed=True)


def _y(value: float) -> float:
    return TOP + WAVE * (1 - float(value)) / 2
