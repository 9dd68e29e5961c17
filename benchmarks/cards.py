"""The cards of the zoo as one table: what was trained, how accurate it is, what it saves.

    python benchmarks/cards.py cifar10

prints the victims whose name begins so. The cards themselves are written by the recipe that each
names (``python -m effattack.models_zoo.train NAME``), from test images.
"""

from __future__ import annotations

import argparse
import json

import pandas as pd
from tables import markdown

from effattack.models_zoo.files import CARDS

HEADER = ["victim", "accuracy", "dense", "clean MACs", "of max", "of dense", "parameters"]


def row(card: dict[str, float | str]) -> list[str]:
    clean = float(card["clean_macs"])
    return [
        f"`{card['name']}`",
        f"{card['accuracy']:.1%}",
        f"{card['dense_accuracy']:.1%}",
        f"{clean / 1e6:.2f} M",
        f"{clean / float(card['max_macs']):.0%}",
        f"{clean / float(card['dense_macs']):.0%}",
        f"{card['parameters']:,}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("prefix", nargs="?", default="")
    prefix = parser.parse_args().prefix
    cards = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(CARDS.glob(f"{prefix}*.json"))
    ]
    print(markdown(pd.DataFrame(map(row, cards), columns=HEADER)))


if __name__ == "__main__":
    main()
