"""What reaches the standard streams: characters they can write, none that a terminal obeys."""

from __future__ import annotations

import codecs
import os
import re
import sys
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from typing import Any, TextIO

NEAREST = "effattack.nearest"
"""An error handler of encoding: the nearest ASCII in place of what a stream cannot write."""
_NAMES = {
    "→": "->", "←": "<-", "►": ">", "×": "x", "±": "+/-", "·": "*", "−": "-", "–": "-", "—": "-",
    "─": "-", "━": "-", "≤": "<=", "≥": ">=", "≠": "!=", "≈": "~", "∞": "inf", "‖": "||",
    "“": '"', "”": '"', "‘": "'", "’": "'", "Σ": "sum", "Δ": "delta", "α": "alpha",
    "β": "beta", "γ": "gamma", "ε": "eps", "θ": "theta", "κ": "kappa", "λ": "lambda", "ρ": "rho",
    "σ": "sigma",
}  # fmt: skip
_OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Control characters but tab and newline, what turns the direction of text, and surrogates."""


def shown(text: str) -> str:
    """The text with control characters written out, as ``\\x1b``: a terminal obeys none."""
    return _OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def on_one_line(name: object) -> str:
    """A name that users gave, with line ends and all that no page can show written out, too."""
    text = str(name)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def encodable(text: str, encoding: str | None) -> str:
    """The text as a stream of that encoding can write it."""
    encoding = encoding or "utf-8"
    return text.encode(encoding, NEAREST).decode(encoding)


@contextmanager
def safe() -> Iterator[None]:
    """While inside, the standard streams write the nearest ASCII for what they cannot encode.

    Warnings are :func:`shown` on one line, each once, without the source that gave them.
    """
    written = warnings.formatwarning
    told: set[str] = set()

    def format_once(message: Warning | str, *_: Any, **__: Any) -> str:
        line = f"effattack: {shown(str(message))}\n"
        again = line in told
        told.add(line)
        return "" if again else line

    with ExitStack() as stack:
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stack.callback(_restored, stream, stream.errors)
                stream.reconfigure(errors=NEAREST)
        stack.callback(setattr, warnings, "formatwarning", written)
        warnings.formatwarning = format_once
        yield


def _restored(stream: Any, errors: str | None) -> None:
    with suppress(ValueError):  # user code may have closed it
        stream.reconfigure(errors=errors)


@contextmanager
def reserved() -> Iterator[TextIO]:
    """The standard output for one writer; what anything else writes there goes to standard error.

    That holds for libraries in C and for child processes too, where both streams are the
    process's own.
    """
    real = sys.stdout
    if _descriptor(real) != 1 or _descriptor(sys.stderr) != 2:
        with redirect_stdout(sys.stderr):
            yield real
        return
    real.flush()
    with open(os.dup(1), "w", encoding="utf-8", errors=NEAREST) as kept:
        os.dup2(2, 1)
        try:
            with redirect_stdout(sys.stderr):
                yield kept
        finally:
            with suppress(ValueError):
                real.flush()
            _flush_c()
            kept.flush()
            os.dup2(kept.fileno(), 1)


def _descriptor(stream: Any) -> int | None:
    try:
        return int(stream.fileno())
    except (AttributeError, OSError, ValueError):
        return None


def _flush_c() -> None:
    """What C libraries have yet to write belongs where the stream still leads."""
    import ctypes

    ctypes.CDLL(None).fflush(None)


def _nearest(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_ascii, error.object[error.start : error.end])), error.end


def _ascii(character: str) -> str:
    if character in _NAMES:
        return _NAMES[character]
    parts = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return parts or character.encode("ascii", "backslashreplace").decode()


codecs.register_error(NEAREST, _nearest)
