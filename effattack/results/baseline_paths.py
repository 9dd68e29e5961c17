"""Where baselines are kept: all that the pytest plugin needs to know of them at start-up."""

from __future__ import annotations

import re
from pathlib import Path

from effattack.errors import UsageError

FOLDER = "effattack-baselines"
"""Where baselines are kept unless another folder is named."""


def path_of(name: str, folder: Path) -> Path:
    """Where the baseline of that name is kept.

    Raises:
        UsageError: for a name that is no plain file name.
    """
    if not re.fullmatch(r"[\w][\w.+-]*", name):
        raise UsageError(
            f"baseline {name!r}: use letters, digits and . + - _ only; the folder is given with "
            "--baselines"
        )
    return folder / f"{name.removesuffix('.json')}.json"
