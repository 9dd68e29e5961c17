"""The way of an image through the code: domains and tasks made it no longer than by two.

What one attack cell entered before there were domains and tasks is committed here, under the names
that these modules have now. A module that was parted since stands with all its parts: they are one
step of the way, as they were.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import FrameType

import pytest
import torch
from toys import LinearSaver, grey_images

import effattack
from effattack.cells.performing import perform
from effattack.cells.plan import Cell
from effattack.cells.planning import plan
from effattack.cells.spec import Timed
from effattack.cells.store import Memory

PACKAGE = Path(effattack.__file__).parent
BEFORE: tuple[tuple[str, ...], ...] = (
    ("attacks/base.py", "victim/undisturbed.py"),
    ("attacks/fitting.py",),
    ("attacks/foreign/libraries.py",),
    ("attacks/naming.py",),
    ("attacks/objectives.py",),
    (
        *("attacks/searches/best.py", "attacks/searches/climbing.py", "attacks/searches/memory.py"),
        *("attacks/searches/projected.py", "victim/rounding.py"),
    ),
    ("registry/borders.py",),
    ("cells/attacking.py", "cells/marks.py", "cells/performing.py"),
    ("cells/held.py",),
    ("cells/spec.py",),
    ("cells/store/__init__.py",),
    ("counting/costs.py",),
    ("counting/free.py",),
    ("counting/higher_order.py",),
    ("counting/joules.py",),
    ("counting/macs.py",),
    ("counting/outside.py",),
    ("counting/sight.py",),
    ("domains/pixels.py",),
    ("results/decisions.py",),
    ("threats/arrays.py", "threats/base.py"),
    ("threats/balls.py",),
    ("victim/audit.py", "victim/contract.py", "victim/trace.py"),
    ("victim/checks/costs.py",),
    ("victim/door.py",),
)
"""The 25 modules of then, each by what has become of it."""
ADDED = (("domains/arrays.py", "domains/base.py"), ("tasks/base.py", "tasks/classes.py"))
"""What an image's domain and its task are made of, beside ``domains/pixels.py``."""


def entered(cell: Cell) -> set[str]:
    """Our files that one cell calls into, after a first run has loaded everything."""
    files: set[str] = set()

    def note(frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            files.add(frame.f_code.co_filename)

    for profile in (None, note):
        sys.setprofile(profile)
        try:
            outcome = perform(cell, Memory())
        finally:
            sys.setprofile(None)
        assert outcome.state == "done", outcome.error
    inside = (Path(file) for file in files if file.startswith(f"{PACKAGE}{os.sep}"))
    return {file.relative_to(PACKAGE).as_posix() for file in inside}


@pytest.fixture(scope="module")
def files() -> set[str]:
    victim, images, labels = LinearSaver(), grey_images(4), torch.tensor([0, 1, 0, 1])
    cells = plan(victim, images, labels, ["Slowdown"], timed=Timed(calls=0)).attacks
    return entered(next(cell for cell in cells if cell.spec.attack == "Slowdown"))


def test_an_image_enters_its_domain_and_its_task_and_no_more(files: set[str]) -> None:
    known = {file for parts in (*BEFORE, *ADDED) for file in parts}
    assert files - known == set(), "a cell of images calls modules that it never needed"
    steps = [parts for parts in (*BEFORE, *ADDED) if files.intersection(parts)]
    assert len(steps) <= 25 + 2


def test_the_way_is_measured(files: set[str]) -> None:
    """Else nothing would be found to be too much."""
    assert len(BEFORE) == 25
    assert {"victim/contract.py", "domains/pixels.py", "tasks/classes.py"} <= files
    assert all((PACKAGE / file).is_file() for parts in (*BEFORE, *ADDED) for file in parts)
