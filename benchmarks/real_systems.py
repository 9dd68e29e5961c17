"""Real systems under attack, one module each under ``systems/``; rows are kept in ``reports/real``.

python benchmarks/real_systems.py mtcnn PHOTOGRAPHS
python benchmarks/real_systems.py mtcnn --table
python benchmarks/real_systems.py --table README.md     # that of all systems, put in its place
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

SYSTEMS = sorted(file.stem for file in (Path(__file__).parent / "systems").glob("[!_]*.py"))


def main() -> None:
    if sys.argv[1:2] == ["--table"] and len(sys.argv) == 3:
        import_module("readme_table").put(Path(sys.argv[2]))
        return
    if len(sys.argv) < 2 or sys.argv[1] not in SYSTEMS:
        sys.exit(f"usage: real_systems.py --table PAGE | {{{','.join(SYSTEMS)}}} ...")
    system = import_module(f"systems.{sys.argv.pop(1)}")
    system.main()


if __name__ == "__main__":
    main()
