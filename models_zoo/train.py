"""Training recipes of the zoo's victims.

    python -m effattack.models_zoo.train NAME...

trains the weights that the named victims need, chooses thresholds on held-out images, and writes
``weights/`` and ``cards/``. Everything is seeded and runs on one thread: minutes of CPU each on
digits, up to an hour on CIFAR-10 (``recipes/cifar10.py`` says where its data come from).
"""

from __future__ import annotations

import argparse
import sys

import torch

from effattack.models_zoo.recipes import RECIPES


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m effattack.models_zoo.train", description=__doc__
    )
    parser.add_argument("name", nargs="+", choices=sorted(RECIPES))
    names = parser.parse_args(arguments).name
    torch.set_num_threads(1)
    for recipe in dict.fromkeys(RECIPES[name] for name in names):
        recipe()
    return 0


if __name__ == "__main__":
    sys.exit(main())
