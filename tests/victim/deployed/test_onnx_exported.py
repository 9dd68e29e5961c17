"""Exported models: the runtime's record holds as many MACs as the dispatch counter, to the last."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from onnx_graphs import import_or_skip
from torch import Tensor, nn
from toys import embedded, noise_images

from effattack.counting.macs import MacsCounter
from effattack.models_zoo.digits import scored_images
from effattack.models_zoo.networks import small_vit
from effattack.victim.deployed.exporting import export
from effattack.victim.deployed.onnx_runtime.costs import macs_of
from effattack.victim.deployed.onnx_runtime.record import Record

pytestmark = pytest.mark.slow
import_or_skip("onnxscript")


def exported(path: Path, model: nn.Module, example: Tensor) -> Path:
    torch.onnx.export(model.eval(), (example,), dynamo=True, verbose=False).save(path)
    return path


def recorded(path: Path, inputs: Tensor, level: str = "ENABLE_EXTENDED") -> list[int]:
    record = Record(path, level)
    (name,) = (i.name for i in record_inputs(path))
    runs = record.runs([{name: single.numpy()} for single in inputs.split(1)])
    return [sum(map(macs_of, ran)) for ran in runs]


def record_inputs(path: Path) -> Iterator[Any]:
    onnx = import_or_skip("onnx")
    return iter(onnx.load(path, load_external_data=False).graph.input)


def counted(model: nn.Module, inputs: Tensor) -> list[int]:
    totals = []
    for single in inputs.split(1):
        with torch.no_grad(), MacsCounter() as counter:
            model(single)
        totals.append(counter.total)
    return totals


@pytest.mark.parametrize("name", ["digits_cnn_early_exit", "digits_tinysaver_cascade"])
def test_an_exported_victim_does_its_work_input_by_input(tmp_path: Path, name: str) -> None:
    victim, images = embedded(name), scored_images()[0][:24]
    path = export(victim, tmp_path / "victim.onnx", images).path
    expected = victim.trace(images).macs
    assert len(expected.unique()) > 1
    assert recorded(path, images) == expected.tolist()
    padded = recorded(path, images, "ENABLE_ALL")
    assert all(shipped >= plain for shipped, plain in zip(padded, expected, strict=True))


def cnn() -> nn.Module:
    victim = embedded("digits_cnn_early_exit")
    return nn.Sequential(*victim.stages, victim.heads[-1])


class LastOf(nn.Module):
    """What a recurrent network says at the end."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)[0][:, -1]


PLAIN: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "convolutions": (cnn, (3, 32, 32)),
    "transformer": (small_vit, (3, 32, 32)),
    "gru": (lambda: LastOf(nn.GRU(6, 8, 2, batch_first=True, bidirectional=True)), (5, 6)),
    "lstm": (lambda: LastOf(nn.LSTM(6, 8, batch_first=True)), (5, 6)),
    "upsampling": (
        lambda: nn.Sequential(nn.Conv2d(3, 6, 3, groups=3), nn.ConvTranspose2d(6, 4, 2, 2)),
        (3, 8, 8),
    ),
}


@pytest.mark.parametrize("name", PLAIN)
def test_plain_models_count_as_the_dispatch_counter_does(tmp_path: Path, name: str) -> None:
    build, shape = PLAIN[name]
    torch.manual_seed(0)
    model, inputs = build().eval(), noise_images(1, 0, shape)
    path = exported(tmp_path / "plain.onnx", model, inputs)
    assert recorded(path, inputs) == counted(model, inputs)


def test_int8_forms_multiply_as_often(tmp_path: Path) -> None:
    """Dynamic, static with quantize-dequantize pairs, and static with operators of its own."""
    quantization = import_or_skip("onnxruntime.quantization")
    images = scored_images()[0][:4]
    path, expected = exported(tmp_path / "plain.onnx", cnn(), images[:1]), counted(cnn(), images)
    (name,) = (given.name for given in record_inputs(path))

    class Calibration(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.left = iter([{name: single.numpy()} for single in images.split(1)])

        def get_next(self) -> Any:
            return next(self.left, None)

    int8 = {kind: tmp_path / f"{kind}.onnx" for kind in ("dynamic", "QDQ", "QOperator")}
    quantization.quantize_dynamic(path, int8["dynamic"])
    for kind in ("QDQ", "QOperator"):
        quantization.quantize_static(
            path, int8[kind], Calibration(), quant_format=quantization.QuantFormat[kind]
        )
    for shipped in int8.values():
        for level in ("ENABLE_EXTENDED", "ENABLE_ALL"):
            assert recorded(shipped, images, level) == expected
