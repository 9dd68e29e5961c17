"""The real victims with and without their entry: one attack on the tensor and on the file.

    cd benchmarks && python imagenet_entry.py --data nips17 --weights weights --images 8 --steps 20

``imagenet.py`` says where to get the two folders. Images are of the half that chose no threshold,
and classified right by the dense ViT; budgets are 8/255 in l-inf, of the tensor or of the file.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from imagenet import crops, read
from imagenet_attacked import SAVER, VIT
from imagenet_victims import cascades, networks, quantized_victims, token_victims
from torch import Tensor

from effattack import Victim, audit
from effattack.attacks import build
from effattack.victim.entry import Entry, center_crop, jpeg, resize

EPS = 8 / 255


class Rung(NamedTuple):
    """A victim, what it is attacked by, and the steps of its entry."""

    name: str
    victim: Victim
    attack: str
    entry: Entry


def rungs(weights: Path, images: Tensor, labels: Tensor) -> Iterator[Rung]:
    """The victims whose cost depends on the image.

    Args:
        weights: folder of weights.
        images, labels: held out; TinySaver's threshold is chosen here.
    """
    found = networks(weights)
    preprocess = found[VIT][0]
    through = [resize(preprocess.resize), center_crop(preprocess.crop), jpeg(90)]
    _, ats = next(iter(token_victims(VIT, found[VIT])))
    yield Rung("ATS", ats, "Slowdown", Entry(ats, through))
    ((_, cascade),) = cascades(found, [(SAVER, VIT)], images, labels)
    yield Rung("TinySaver", cascade, "Slowdown", Entry(cascade, [jpeg(90)]))
    *_, (_, int8) = quantized_victims(VIT, found[VIT])
    yield Rung("LLM.int8()", int8, "QuantAttack", Entry(int8, through))


def lines(rung: Rung, photos: Tensor, seen: Tensor, labels: Tensor, steps: int) -> Iterator[str]:
    """Of one victim: attacked as a tensor, that tensor sent as JPEG, and attacked as a file."""
    own = photos if rung.victim.input_shape == tuple(photos.shape[1:]) else seen
    attack = build(f"{rung.attack}(steps={steps})", rung.victim, EPS)
    tensors = attack(own, labels)
    yield line(rung.name, "the tensor", rung.victim, own, tensors, labels)
    sent = Entry(rung.victim, [jpeg(90)])
    yield line(rung.name, "the tensor, sent as jpeg(90)", sent, own, tensors, labels)
    attack = build(f"{rung.attack}(steps={steps})", rung.entry, EPS)
    through = ", ".join(map(str, rung.entry.through))
    yield line(
        rung.name, f"the file: {through}", rung.entry, photos, attack(photos, labels), labels
    )


def line(
    name: str, attacked: str, victim: Victim, clean: Tensor, adversarial: Tensor, labels: Tensor
) -> str:
    """One row of the table."""
    before, after = audit(victim, clean), audit(victim, adversarial)
    right = [(found.logits.argmax(1) == labels).double().mean() for found in (before, after)]
    room = (victim.ceiling(clean) - before.macs).sum()
    retained = 1 - (after.macs - before.macs).sum() / room
    millions = [f"{found.macs.mean() / 1e6:,.1f}" for found in (before, after)]
    return (
        f"| {name} | {attacked} | {right[0]:.0%} | {right[1]:.0%} | {' | '.join(millions)} | "
        f"×{after.macs.sum() / before.macs.sum():.2f} | {retained:.0%} |"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args(arguments)
    images, labels = read(options.data)
    network = networks(options.weights)[VIT]
    photos, answers = images[1::2][: 2 * options.images], labels[1::2][: 2 * options.images]
    with torch.inference_mode():
        right = (torch.cat([network(one[None]).argmax(1) for one in photos]) == answers).nonzero()
    kept = right.flatten()[: options.images]
    photos, answers = photos[kept], answers[kept]
    print(
        "| victim | attacked | clean acc. | attacked acc. | clean | attacked | ratio | retained |"
    )
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    for rung in rungs(options.weights, images[::2], labels[::2]):
        for text in lines(rung, photos, crops(photos, network), answers, options.steps):
            print(text, flush=True)


if __name__ == "__main__":
    main()
