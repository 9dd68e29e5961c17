"""Files that cannot be judged, each with cause and remedy; exits that an export folded away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx_graphs as graphs
import pytest
import torch
from onnx_graphs import MICROSOFT, body, node, save, stored, value, weight
from torch import Tensor, nn

from effattack.errors import UsageError
from effattack.victim.deployed.onnx_runtime.feeding import pixels, slot_of
from effattack.victim.deployed.onnx_runtime.folded import Merged, decides, merged
from effattack.victim.deployed.onnx_runtime.session import read, session


def product(path: Path, *axes: int | str, type: int = graphs.TYPES.FLOAT, **saving: Any) -> Path:
    """One MatMul from inputs of these axes."""
    last = axes[-1] if isinstance(axes[-1], int) else 8
    return save(
        path,
        [node("Cast", ["x"], ["f"], to=1), node("MatMul", ["f", "w"], ["y"])],
        [value("x", *axes, type=type)],
        [graphs.helper.make_tensor_value_info("y", 1, None)],
        [weight("w", last, 4)],
        **saving,
    )


def test_what_is_no_onnx_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"absent\.onnx is no file: give the path of an ONNX model"
    ):
        read(tmp_path / "absent.onnx")
    with pytest.raises(UsageError, match="is no file"):
        read(tmp_path)
    (tmp_path / "text.onnx").write_text("hello there")
    with pytest.raises(UsageError, match=r"text\.onnx is no ONNX file \(.*\): write it with torch"):
        read(tmp_path / "text.onnx")
    (tmp_path / "empty.onnx").touch()
    with pytest.raises(UsageError, match=r"empty\.onnx holds no ONNX graph: write it with torch"):
        read(tmp_path / "empty.onnx")
    whole = product(tmp_path / "whole.onnx", 1, 8).read_bytes()
    (tmp_path / "half.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsageError, match=r"half\.onnx is no ONNX file .* if it was cut off"):
        read(tmp_path / "half.onnx")


def test_weights_that_are_absent_are_named(tmp_path: Path) -> None:
    path = product(
        tmp_path / "outside.onnx",
        *(1, 8),
        save_as_external_data=True,
        location="weights.data",
        size_threshold=0,
    )
    read(path)
    (tmp_path / "weights.data").unlink()
    with pytest.raises(UsageError, match=r"its weights in weights\.data, which is not beside it"):
        read(path)


def test_operators_that_the_runtime_lacks_are_named(tmp_path: Path) -> None:
    custom = node("FancyConv", ["x"], ["y"], domain="com.acme")
    graph = graphs.helper.make_graph([custom], "g", [value("x", 1, 8)], [value("y", 1, 8)])
    opsets = [graphs.helper.make_opsetid("", 17), graphs.helper.make_opsetid("com.acme", 1)]
    model = graphs.helper.make_model(graph, opset_imports=opsets, ir_version=9)
    graphs.onnx.save(model, tmp_path / "custom.onnx")
    with pytest.raises(UsageError, match=r"com\.acme:FancyConv.*without custom operators, or hand"):
        session(tmp_path / "custom.onnx", "ENABLE_ALL")


def test_an_operator_set_of_the_future_is_refused(tmp_path: Path) -> None:
    path = product(tmp_path / "future.onnx", 1, 8, opset=999)
    with pytest.raises(UsageError, match=r"opset.*update onnxruntime, or export it with an older"):
        session(path, "ENABLE_ALL")


def test_an_invalid_graph_is_refused(tmp_path: Path) -> None:
    path = save(
        tmp_path / "invalid.onnx",
        [node("Relu", ["nothing"], ["y"])],
        [value("x", 1, 8)],
        [value("y", 1, 8)],
    )
    with pytest.raises(UsageError, match=r"invalid\.onnx \(.*'nothing'.*\): onnx\.checker"):
        session(path, "ENABLE_ALL")


@pytest.mark.parametrize(
    ("axes", "type", "message"),
    [
        ((4, 8), graphs.TYPES.FLOAT, r"axis 0 of its input 'x', the batch, is fixed at 4: export"),
        ((8,), graphs.TYPES.FLOAT, r"the shape of its input 'x' has 1 axes: export it with the"),
        ((1, 8), graphs.TYPES.INT64, r"its input 'x' holds no floats: leave the conversion"),
        ((1, 8), graphs.TYPES.UINT8, r"its input 'x' holds no floats"),
    ],
)
def test_inputs_that_cannot_be_fed_are_refused(
    tmp_path: Path, axes: tuple[Any, ...], type: int, message: str
) -> None:
    path = product(tmp_path / "m.onnx", *axes, type=type)
    with pytest.raises(UsageError, match=message):
        slot_of(path, read(path))


def test_several_inputs_are_refused_by_their_names(tmp_path: Path) -> None:
    path = save(
        tmp_path / "two.onnx",
        [node("Add", ["image", "mask"], ["y"])],
        [value("image", 1, 8), value("mask", 1, 8)],
        [value("y", 1, 8)],
    )
    with pytest.raises(UsageError, match=r"takes 2 inputs \(image, mask\): export it with one, or"):
        slot_of(path, read(path))


def test_stored_weights_that_are_listed_as_inputs_are_none(tmp_path: Path) -> None:
    path = save(
        tmp_path / "old.onnx",
        [node("MatMul", ["x", "w"], ["y"])],
        [value("x", 1, 8), value("w", 8, 4)],
        [value("y", 1, 4)],
        [weight("w", 8, 4)],
    )
    assert slot_of(path, read(path)).name == "x"


def test_images_are_told_by_their_shape(tmp_path: Path) -> None:
    def domain(*axes: int | str) -> Any:
        path = product(tmp_path / "m.onnx", *axes)
        return pixels(path, slot_of(path, read(path)))

    assert domain(1, 3, 4, 8).shape == (3, 4, 8)
    assert domain("batch", 3, "height", "width").shape == (3, None, None)
    with pytest.raises(UsageError, match=r"'x' of shape \(1, channels, 4, 8\) does not say what"):
        domain(1, "channels", 4, 8)
    with pytest.raises(UsageError, match=r"'x' of shape \(batch, 8\) does not say what it holds: "):
        domain("batch", 8)


def test_batches_are_fed_as_the_graph_takes_them(tmp_path: Path) -> None:
    batch = torch.rand(3, 8)
    free = product(tmp_path / "free.onnx", "batch", 8)
    (whole,) = slot_of(free, read(free)).feeds(batch)
    assert torch.equal(torch.from_numpy(whole["x"]), batch)
    for path in (product(tmp_path / "one.onnx", 1, 8), graphs.early_exit(tmp_path / "exit.onnx")):
        feeds = slot_of(path, read(path)).feeds(batch)
        assert [feed["x"].shape for feed in feeds] == [(1, 8)] * 3


def test_a_batch_that_shares_a_scale_is_fed_one_by_one(tmp_path: Path) -> None:
    """Dynamic quantization takes its scale over all that comes in at once."""
    path = save(
        tmp_path / "dynamic.onnx",
        [node("DynamicQuantizeMatMul", ["x", "w", "s"], ["y"], **MICROSOFT)],
        [value("x", "batch", 8)],
        [value("y", "batch", 4)],
        [stored("w", [[1] * 4] * 8, "uint8"), stored("s", 0.1, "float32")],
    )
    assert slot_of(path, read(path)).alone


class Exits(nn.Module):
    """An early exit, written as export does not like it."""

    def __init__(self, choose: Any) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(8, 16), nn.Linear(16, 4)
        self.deep = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))
        self.choose = choose

    def forward(self, x: Tensor) -> Tensor:
        features = self.first(x).relu()
        early = self.head(features)
        sure = early.softmax(1).amax(1, keepdim=True) > 0.5
        return self.choose(self, sure, early, features)


def where(model: Exits, sure: Tensor, early: Tensor, features: Tensor) -> Tensor:
    return torch.where(sure, early, model.deep(features))


def cond(model: Exits, sure: Tensor, early: Tensor, features: Tensor) -> Tensor:
    def done(early: Tensor, features: Tensor) -> Tensor:
        return early.clone()

    def go(early: Tensor, features: Tensor) -> Tensor:
        return model.deep(features)

    return torch.cond(sure[0, 0], done, go, (early, features))


def always_deep(model: Exits, sure: Tensor, early: Tensor, features: Tensor) -> Tensor:
    return model.deep(features)


def exported(path: Path, choose: Any) -> Any:
    graphs.import_or_skip("onnxscript")
    program = torch.onnx.export(
        Exits(choose).eval(), (torch.rand(1, 8),), dynamo=True, verbose=False
    )
    program.save(path)
    return read(path).graph


@pytest.mark.slow
def test_exits_that_were_folded_away_are_found_with_their_nodes(tmp_path: Path) -> None:
    """Both sides computed, one chosen; a real branch, and a model without exits, are none."""
    folded = exported(tmp_path / "where.onnx", where)
    (found,) = merged(folded)
    assert not decides(folded)
    assert len(found.sides) == 3, "the exit's head, and two layers behind it"
    real = exported(tmp_path / "cond.onnx", cond)
    assert decides(real)
    assert not merged(real)
    assert not merged(exported(tmp_path / "deep.onnx", always_deep))


def test_a_mask_is_no_exit(tmp_path: Path) -> None:
    """Scores where a computed mask is set, else a constant; and one result in two forms."""
    path = save(
        tmp_path / "mask.onnx",
        [
            node("MatMul", ["x", "w"], ["scores"]),
            node("Greater", ["scores", "zero"], ["keep"]),
            node("Where", ["keep", "scores", "low"], ["masked"]),
            node("Exp", ["masked"], ["e"]),
            node("Where", ["keep", "masked", "e"], ["y"]),
        ],
        [value("x", 1, 8)],
        [value("y", 1, 4)],
        [weight("w", 8, 4), stored("zero", 0, "float32"), stored("low", -1e9, "float32")],
    )
    assert not merged(read(path).graph)


def test_a_skipped_block_that_runs_all_the_same_is_found(tmp_path: Path) -> None:
    path = save(
        tmp_path / "skip.onnx",
        [
            node("MatMul", ["x", "w"], ["h"], name="stem"),
            node("MatMul", ["h", "v"], ["b"], name="block"),
            node("ReduceMax", ["h"], ["m"]),
            node("Greater", ["m", "zero"], ["go"]),
            node("Where", ["go", "b", "h"], ["y"], name="choose"),
        ],
        [value("x", 1, 8)],
        [value("y", 1, 8)],
        [weight("w", 8, 8), weight("v", 8, 8), stored("zero", 0, "float32")],
    )
    assert merged(read(path).graph) == [Merged("choose", ("block",))]


def test_a_choice_by_what_a_branch_multiplied_is_found(tmp_path: Path) -> None:
    """The bodies of a node are read, too: its outputs come from all that they read."""
    branches = {
        name: body([node("MatMul", ["h", w], [name])], [], [value(name, 1, 8)])
        for name, w in [("then_branch", "w"), ("else_branch", "v")]
    }
    path = save(
        tmp_path / "both.onnx",
        [
            node("MatMul", ["x", "w"], ["h"], name="stem"),
            node("MatMul", ["h", "v"], ["other"], name="other"),
            node("ReduceMax", ["h"], ["m"], keepdims=0),
            node("Greater", ["m", "zero"], ["go"]),
            node("If", ["go"], ["one"], **branches),
            node("Where", ["go", "one", "other"], ["y"], name="choose"),
        ],
        [value("x", 1, 8)],
        [value("y", 1, 8)],
        [weight("w", 8, 8), weight("v", 8, 8), stored("zero", 0, "float32")],
    )
    assert merged(read(path).graph) == [Merged("choose", ("other",))]
    assert decides(read(path).graph)
