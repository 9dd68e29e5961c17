"""Victims by name."""

from __future__ import annotations

from effattack.errors import UsageError
from effattack.registry import VICTIMS, call, expect_twinned, is_file, named
from effattack.victim.contract import Victim


def load_victim(name: str, twin: str = "", through: str = "") -> Victim:
    """The victim of a registered name, of a factory ``package.module:factory``, or of a file.

    Args:
        name: of the victim; what ends in ``.onnx`` is a file that ONNX Runtime runs.
        twin: name of the victim that such a file was exported from: attacks see it.
        through: the steps inside its door, as ``"resize(256),center_crop(224),jpeg(90)"``; empty:
            its inputs are what it computes on.

    Raises:
        UsageError: if the name is unknown, the path does not import, no Victim comes back, a twin
            stands beside what is no file, or a step is none.
    """
    victim = _from_file(name, twin) if is_file(name) else _made(name, twin)
    if not through:
        return victim
    from effattack.victim.entry import entry_of

    return entry_of(victim, through)


def _from_file(path: str, twin: str) -> Victim:
    from effattack.victim.deployed import onnx

    return onnx(path, twin=load_victim(twin) if twin else None)


def _made(name: str, twin: str) -> Victim:
    expect_twinned((name,), twin)
    victim = call(named(VICTIMS, name), name)
    if not isinstance(victim, Victim):
        raise UsageError(
            f"{name} returned {type(victim).__name__}, not an effattack.Victim: wrap a model that "
            "cannot be opened as effattack.Opaque(model, input_shape), or use one of the wrappers "
            "in effattack.models_zoo"
        )
    return victim
