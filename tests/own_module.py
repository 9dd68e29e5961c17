"""A folder of the user's own with one module in it, for tests that call the command in-process."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest


def written(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> Path:
    """The folder, entered, with ``mine.py`` in it, which nobody has imported yet."""
    (folder / "mine.py").write_text(text)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    return folder
