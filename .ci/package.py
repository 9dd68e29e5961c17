"""Whether the archives in a folder are what a stranger may install: whole, small, without links.

    python .ci/package.py dist

Beside ``twine check`` and ``check-wheel-contents``, which know nothing of this project.
"""

from __future__ import annotations

import sys
import tarfile
from pathlib import Path
from zipfile import ZipFile

MOST = 45 * 2**20
"""Bytes of an archive."""
NEEDED = (
    "effattack/py.typed",
    "effattack/models_zoo/cards/digits_vit_ats.json",
    "effattack/reports/baselines/quick.json",
    "effattack/suites/test_early_exit.py",
)
"""Behind each link of the source tree there is a file in the wheel."""


def faults(folder: Path) -> list[str]:
    """What is wrong with the wheel and the sdist of a folder."""
    wheels, sources = [*folder.glob("*.whl")], [*folder.glob("*.tar.gz")]
    if len(wheels) != 1 or len(sources) != 1:
        return [f"{folder} holds {len(wheels)} wheels and {len(sources)} sdists, not one of each"]
    found = [
        f"{file.name} has {file.stat().st_size / 2**20:.1f} MB, not {MOST / 2**20:.0f}"
        for file in (*wheels, *sources)
        if file.stat().st_size > MOST
    ]
    with ZipFile(wheels[0]) as wheel:
        names = set(wheel.namelist())
    found += [f"{wheels[0].name} lacks {name}" for name in NEEDED if name not in names]
    with tarfile.open(sources[0]) as source:
        found += [
            f"{sources[0].name}: {member.name} is a link to {member.linkname}"
            for member in source
            if member.issym() or member.islnk()
        ]
    return found


if __name__ == "__main__":
    if found := faults(Path(sys.argv[1])):
        sys.exit("\n".join(found))
