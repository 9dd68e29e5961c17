"""ONNX files and the sessions that run them; whatever is wrong with a file is said here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from effattack.errors import MissingPackage, UsageError, first_line, install

LEVELS = ("DISABLE_ALL", "ENABLE_BASIC", "ENABLE_EXTENDED", "ENABLE_ALL")
"""ONNX Runtime's levels of graph optimisation; the last one blocks channels and pads them."""
NEEDED = "or hand it over as a callable: effattack.victim.deployed.Deployed(twin, run, work)"


def read(path: Path) -> Any:
    """The ``onnx.ModelProto`` of a file, without weights that lie outside.

    Raises:
        UsageError: where there is none, or weights are missing.
        MissingPackage: without onnx and ONNX Runtime.
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise MissingPackage(f"{path} cannot be run ({error}): {install('onnx')}") from error
    if not path.is_file():
        raise UsageError(f"{path} is no file: give the path of an ONNX model")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's own, by version
        raise UsageError(
            f"{path} is no ONNX file ({first_line(error)}): write it with torch.onnx.export, or "
            "fetch it again if it was cut off"
        ) from error
    if not model.graph.node:
        raise UsageError(f"{path} holds no ONNX graph: write it with torch.onnx.export")
    absent = [file.name for file in weights_outside(path, model) if not file.is_file()]
    if absent:
        raise UsageError(
            f"{path} keeps its weights in {', '.join(absent)}, which is not beside it: put both "
            "into one folder"
        )
    return model


def weights_outside(path: Path, model: Any) -> tuple[Path, ...]:
    """Files that hold weights of the ``onnx.ModelProto`` of a path."""
    from onnx.external_data_helper import _get_all_tensors, uses_external_data

    kept = (tensor for tensor in _get_all_tensors(model) if uses_external_data(tensor))
    entries = (entry for tensor in kept for entry in tensor.external_data)
    names = {entry.value for entry in entries if entry.key == "location"}
    return tuple(path.parent / name for name in sorted(names))


def session(path: Path, level: str, threads: int = 1, **settings: Any) -> Any:
    """An ``onnxruntime.InferenceSession`` on the CPU.

    Args:
        path: of an ONNX file.
        level: one of :data:`LEVELS`.
        threads: for one operator.
        settings: further attributes of ``onnxruntime.SessionOptions``.

    Raises:
        UsageError: where the runtime refuses the file.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_{level}")
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # what is fatal is raised
    for name, value in settings.items():
        setattr(options, name, value)
    outside = {"file_name": "weights.bin", "min_size_in_bytes": "1024"}
    if options.optimized_model_filepath:  # protobuf holds no more than 2 GB
        for key, value in outside.items():
            options.add_session_config_entry(
                f"session.optimized_model_external_initializers_{key}", value
            )
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's own, by kind of failure
        raise UsageError(_refused(path, str(error))) from error


def _refused(path: Path, said: str) -> str:
    """Cause and remedy, where ONNX Runtime does not load a file."""
    cause = said.strip().splitlines()[0].rpartition(" : ")[2]
    if "not a registered function/op" in said:
        remedy = f"export it without custom operators, {NEEDED}"
    elif "opset" in said.lower() or "IR version" in said:
        remedy = "update onnxruntime, or export it with an older opset_version"
    elif "NOT_IMPLEMENTED" in said:
        remedy = f"export it with operators that ONNX Runtime has on the CPU, {NEEDED}"
    else:
        remedy = "onnx.checker.check_model says more about it; export it again"
    return f"ONNX Runtime does not load {path} ({cause[-300:]}): {remedy}"
