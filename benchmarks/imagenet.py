"""Accuracy and MACs of the real victims on ImageNet-compatible images.

    python benchmarks/imagenet.py --data nips17/ --weights weights/
    python benchmarks/imagenet.py --data nips17/                      # weights from timm's hub

Thresholds are chosen on every other image, and scored on the rest. Every row is audited: the MACs
are those counted while the deployed model ran, and the victim must have declared the same.
"""

from __future__ import annotations

import argparse
import csv
import shlex
import sys
from pathlib import Path

import numpy as np
import torch
from imagenet_victims import PHOTO, networks, victims, vit_shape
from PIL import Image
from torch import Tensor, nn

import effattack
from effattack.domains.pixels import to_grid
from effattack.errors import EffattackError, UsageError
from effattack.measure.environment import environment
from effattack.models_zoo.preprocessing import Preprocess

HOW_TO_GET_THE_DATA = (
    "give --data FOLDER, with labels.csv (columns file and label, ImageNet-1k class indices from "
    "0) and the files, 299 x 299 pixels, under FOLDER/images/. The 500 images of the NIPS 2017 "
    "adversarial-attack development set are such a set: Kaggle has them as "
    "google-brain/nips-2017-adversarial-learning-development-set (its TrueLabel counts from 1), "
    "CleverHans a downloader in examples/nips17_adversarial_competition"
)
HEADER = ("victim", "accuracy", "clean", "largest seen", "max", "dense")


def main() -> int:
    """Print the table; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with labels.csv and images/")
    parser.add_argument("--weights", type=Path, help="folder of weights; default: timm's hub")
    parser.add_argument("--images", type=int, default=250, help="scored images at most (250)")
    parser.add_argument("--only", default="", help="only victims whose name contains this")
    parser.add_argument("--out", type=Path, help="also write the table there, as Markdown")
    arguments = parser.parse_args()
    try:
        text = table(arguments.data, arguments.weights, arguments.images, arguments.only)
    except EffattackError as error:
        print(f"imagenet.py: {error}", file=sys.stderr)
        return error.exit_code
    if arguments.out is not None:
        arguments.out.write_text(text, encoding="utf-8")
    return 0


def table(data: Path | None, weights: Path | None, count: int, only: str = "") -> str:
    """The table as Markdown, printed row by row on the way.

    Args:
        data: folder with labels.csv and images/.
        weights: folder of weights; None for timm's hub.
        count: images of either half at most.
        only: a part of the names of the victims to score.

    Raises:
        UsageError: for data, weights or a count that cannot be used.
    """
    if count < 1:
        raise UsageError(f"--images {count}: score at least one image")
    images, labels = read(data)
    chosen, scored = (slice(start, 2 * count, 2) for start in (0, 1))
    found = networks(weights)
    *_, vit = found.values()
    photos = {PHOTO: images[scored], vit_shape(vit): crops(images[scored], vit)}

    lines = [
        f"`{shlex.join(['python', *sys.argv])}`",
        "",
        f"{len(images[scored])} images; millions of MACs per image; {machine()}.",
        "",
        f"| {' | '.join(HEADER)} |",
        f"|---|{'---:|' * (len(HEADER) - 1)}",
    ]
    print(*lines, sep="\n")
    for name, victim in victims(found, images[chosen], labels[chosen]):
        if only not in name:
            continue
        lines.append(row(name, victim, photos[victim.input_shape], labels[scored]))
        print(lines[-1], flush=True)
    return "\n".join(lines) + "\n"


def crops(images: Tensor, network: nn.Sequential) -> Tensor:
    """What the model of a network sees of images (B, 3, 299, 299), before normalisation."""
    seen = network[0]
    sizes = {"resize": seen.resize, "crop": seen.crop, "interpolation": seen.interpolation}
    return to_grid(Preprocess(**sizes)(images).clamp(0, 1))


def row(name: str, victim: effattack.Victim, images: Tensor, labels: Tensor) -> str:
    """One audited line of the table."""
    found = effattack.audit(victim, images)
    accuracy = (found.logits.argmax(1) == labels).double().mean().item()
    macs = (found.macs.mean().item(), found.macs.max().item(), victim.max_macs, victim.dense_macs)
    return f"| {name} | {accuracy:.1%} | {' | '.join(map(millions, macs))} |"


def millions(macs: float) -> str:
    """In millions; a dash where unknown."""
    return "–" if np.isnan(macs) else f"{macs / 1e6:,.1f}"


def machine() -> str:
    """What the figures were made on."""
    about = environment("cpu")
    return f"{about['device_name']}, {about['threads']} thread(s), torch {about['torch']}"


def read(folder: Path | None) -> tuple[Tensor, Tensor]:
    """Images (B, 3, 299, 299) in [0, 1] and labels (B,).

    Raises:
        UsageError: saying how to get the data.
    """
    if folder is None or not (folder / "labels.csv").exists():
        missing = "no data" if folder is None else f"{folder} holds no labels.csv"
        raise UsageError(f"{missing}: {HOW_TO_GET_THE_DATA}")
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as file:
        entries = list(csv.DictReader(file))
    pixels = [np.array(Image.open(folder / "images" / e["file"]).convert("RGB")) for e in entries]
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2) / 255
    if tuple(images.shape[1:]) != PHOTO:
        raise UsageError(f"the images are {tuple(images.shape[1:])}, not {PHOTO}: resize them")
    return images, torch.tensor([int(entry["label"]) for entry in entries])


if __name__ == "__main__":
    sys.exit(main())
