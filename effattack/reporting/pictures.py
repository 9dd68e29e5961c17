"""Images as pictures: clean, attacked, the difference, and which tokens were kept, as PNG."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from effattack.reporting.maps import token_map
from effattack.reporting.stored import Description
from effattack.reporting.strips import Pair, Shown, Strips

LARGEST_SIDE = 128
DIFFERENCE = "The difference is attacked − clean, amplified, with grey for no change."
HOW = (
    f"{DIFFERENCE} Where tokens are dropped, the maps below fade each patch to blue, the more the "
    "earlier it was dropped."
)


def can(domain: Description) -> bool:
    """Grey and RGB images."""
    shape = domain["shape"]
    return len(shape) == 3 and shape[0] in (1, 3)


def size(domain: Description) -> float:
    """Bytes of the five pictures of one image; those of free sizes are taken as large."""
    shape = [LARGEST_SIDE if side is None else int(side) for side in domain["shape"]]
    return 5 * float(np.prod(shape)) / _stride(shape) ** 2


def _stride(shape: Sequence[int]) -> int:
    return max(1, -(-max(shape[1:]) // LARGEST_SIDE))


def show(pairs: Sequence[Pair], domain: Description) -> Strips:
    """The pictures of each image; the difference of all amplified alike."""
    stride = max(_stride(pair.clean.shape) for pair in pairs)
    largest = max(int(np.abs(pair.attacked.astype(int) - pair.clean).max()) for pair in pairs)
    factor = max(1, 127 // max(largest, 1))
    detail = f"difference × {factor} around grey"
    detail += f", 1 pixel in {stride} of each row shown" * (stride > 1)
    return Strips([_strip(pair, factor, stride) for pair in pairs], detail)


def _strip(pair: Pair, factor: int, stride: int) -> list[Shown]:
    signed = (pair.attacked.astype(int) - pair.clean) * factor + 128
    drawn = {
        "clean": pair.clean,
        "attacked": pair.attacked,
        "difference": np.clip(signed, 0, 255).astype(np.uint8),
    }
    about = f"image {pair.sample}"
    found = [_picture(name, pixels, stride, f"{name}, {about}") for name, pixels in drawn.items()]
    for name, pixels, record in (
        ("kept, clean", pair.clean, pair.before),
        ("kept, attacked", pair.attacked, pair.row),
    ):
        if kept := token_map(pixels, record.get("decisions")):
            found.append(_picture(name, kept.pixels, stride, f"{name}, {about}: {kept.words}"))
    return found


def fitting(pixels: NDArray[np.uint8], longest: int) -> NDArray[np.uint8]:
    """One pixel of every so many, so that no side is longer."""
    stride = max(1, -(-max(pixels.shape[1:]) // longest))
    return pixels[:, ::stride, ::stride]


def _picture(caption: str, pixels: NDArray[np.uint8], stride: int, alt: str) -> Shown:
    uri = png(pixels[:, ::stride, ::stride])
    css = Markup(' class="crisp"') if stride == 1 else ""
    return Shown(caption, Markup('<img src="{}" alt="{}"{}>').format(uri, alt, css))


def png(pixels: NDArray[np.uint8]) -> str:
    """(1, 3 or, with opacity, 4; H, W) uint8 as a data URI."""
    image = Image.fromarray(pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, -1).copy())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
