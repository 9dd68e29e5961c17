"""Victims as ONNX files with real branches: what an exit saves is not computed in the file either.

A file is written, run and compared before it is there: its answers, its decisions and, by ONNX
Runtime's own record, the nodes that ran and their MACs are those of the victim.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch

from effattack.domains import Batch
from effattack.errors import MissingPackage, NotApplicable, first_line, install
from effattack.victim.contract import Victim
from effattack.victim.deployed.branching import Branching
from effattack.victim.deployed.comparing import compare
from effattack.victim.digests import victim_digest
from effattack.victim.structure import Exits, Models
from effattack.victim.undisturbed import undisturbed

OPSET = 18
"""Of ONNX, that files are written in."""


class Exported(NamedTuple):
    """A file that does what its victim does."""

    path: Path
    gates: tuple[str, ...]
    """Names of its outputs behind the answer: (1, units) bool, whether the gate was passed."""
    inputs: int
    """How many it was compared on,"""
    early: int
    """and how many of them stopped early."""


def export(victim: Victim, path: Path, inputs: Batch) -> Exported:
    """Write a victim as an ONNX file for one input at a time, in which each decision is an ``If``.

    The input is a batch of one, (1, ...), in float32. The first output, ``logits``, is the answer
    (1, classes); each gate is an output of its own name, (1, units) bool. The file holds the name
    of the victim, its digest and the names of its gates as metadata.

    Args:
        victim: one that tells its :meth:`~effattack.Victim.structure`.
        path: of the file; weights of more than 2 GB lie beside it.
        inputs: to compare both on; some should stop early, and some not.

    Raises:
        NotApplicable: for a victim without a structure, or which torch cannot export.
        MeasurementError: where the file does something else than the victim, or computes what the
            victim leaves out.
        MissingPackage: without onnx, onnxscript or ONNX Runtime.
    """
    structure = victim.structure()
    if not isinstance(structure, Exits | Models):
        raise NotApplicable(
            f"{victim.name} does not say what it is made of in a chain of stages: early exits and "
            "cascades do, so wrap its parts in EarlyExit or Cascade of effattack.models_zoo, or "
            "implement structure()"
        )
    branching = Branching(structure, victim.dtype).eval()
    gates = tuple(dict.fromkeys(branching.decisions))
    with undisturbed(victim), torch.no_grad(), _draft(path) as draft:
        _write(victim, branching, gates, draft)
        early = compare(victim, draft, gates, inputs)
    return Exported(path, gates, len(inputs), early)


@contextmanager
def _draft(path: Path) -> Iterator[Path]:
    """A file of the same name elsewhere, moved into place once nothing was raised."""
    with TemporaryDirectory(prefix=".exporting-", dir=path.parent) as folder:
        yield Path(folder) / path.name
        for file in Path(folder).iterdir():
            file.replace(path.parent / file.name)


def _write(victim: Victim, branching: Branching, gates: Sequence[str], path: Path) -> None:
    """Raises: NotApplicable, where torch does not export it."""
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingPackage(f"ONNX files need onnxscript ({error}): {install('onnx')}") from error
    names = ["logits", *gates]
    with _quiet():
        try:
            graph = torch.export.export(branching, (victim.example(1),), strict=True)
            program = torch.onnx.export(
                graph, input_names=["input"], output_names=names, opset_version=OPSET,
                dynamo=True, verbose=False,
            )  # fmt: skip
        except Exception as error:  # torch's own, by what it met
            raise NotApplicable(
                f"torch {torch.__version__} does not export {victim.name} ({_cause(error)}): "
                "write that part with operators that torch.onnx.export knows, and quantize or "
                "compile the exported file rather than the model"
            ) from error
        program.model.metadata_props.update(
            {"victim": victim.name, "digest": victim_digest(victim), "gates": ", ".join(gates)}
        )
        program.save(path)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch and its compiler note about a graph on their way."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _cause(error: BaseException) -> str:
    """What torch says first, of the error below all that wrap it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error) if isinstance(error, Exception) else type(error).__name__
