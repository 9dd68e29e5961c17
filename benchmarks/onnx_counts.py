"""Plain models of timm: MACs by dispatch, and by ONNX Runtime's record of the exported file.

Weights are random: counts do not depend on them. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import timm
import torch

from effattack.counting.macs import count_macs
from effattack.victim.deployed.onnx_runtime.costs import macs_of
from effattack.victim.deployed.onnx_runtime.record import Record

MODELS = (
    "resnet18",
    "mobilenetv3_small_100",
    "convnext_atto",
    "vit_tiny_patch16_224",
    "swin_tiny_patch4_window7_224",
    "maxvit_nano_rw_256",
    "mixer_s32_224",
)


def row(name: str, folder: Path) -> str:
    """MACs of one model in torch, in nominal shapes, and in those that are served."""
    model = timm.create_model(name, pretrained=False).eval()
    image = torch.rand(1, *model.default_cfg["input_size"])
    path = folder / f"{name}.onnx"
    torch.onnx.export(model, (image,), str(path), dynamo=False, input_names=["x"])
    counts = [count_macs(model, image)]
    for level in ("ENABLE_EXTENDED", "ENABLE_ALL"):
        (ran,) = Record(path, level).runs([{"x": image.numpy()}])
        counts.append(sum(map(macs_of, ran)))
    return f"| {name} | {' | '.join(f'{count:,}' for count in counts)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=MODELS, help="names of timm")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    print("| model | torch | ONNX, nominal | ONNX, served |\n|---|---:|---:|---:|")
    with TemporaryDirectory() as folder:
        for name in arguments.models:
            print(row(name, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
