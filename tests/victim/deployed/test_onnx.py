"""ONNX files as victims: work to the last MAC, decisions, answers, and what is refused."""

from __future__ import annotations

import pickle
import warnings
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import onnx_graphs as graphs
import pytest
import torch
from onnx_graphs import body, node, save, stored, value
from torch import nn
from toys import LinearSaver, grey_images

from effattack import evaluate
from effattack.attacks import Transfer
from effattack.domains import Pixels
from effattack.errors import UsageError
from effattack.victim import Opaque
from effattack.victim.deployed import onnx
from effattack.victim.digests import victim_digest

BOOL = graphs.TYPES.BOOL


def kept(twin: LinearSaver) -> list[Any]:
    """The weights of a twin, as a graph stores them, by the twin's own names."""
    return [
        stored(name, parameter.detach().numpy(), np.float32)
        for name, parameter in twin.named_parameters()
    ]


def linear(x: str, layer: str, y: str) -> Any:
    return node("Gemm", [x, f"{layer}.weight", f"{layer}.bias"], [y], transB=1)


BASE = [linear("flat", "base.0", "h"), node("Relu", ["h"], ["r"]), linear("r", "base.2", "b")]
SAVER = [
    node("Flatten", ["x"], ["flat"]),
    linear("flat", "saver", "s"),
    node("Split", ["s"], ["one", "other"], axis=1, num_outputs=2),
    node("Sub", ["one", "other"], ["lead"]),
    node("Abs", ["lead"], ["size"]),
    node("Less", ["size", "doubt"], ["unsure"]),
]


def shipped(path: Path, twin: LinearSaver, doubt: float = 1.0, batch: int | str = 1) -> Path:
    """The toy cascade with a real branch, as an exporter would write it."""
    branches = {
        "then_branch": body(BASE, [], [value("b", batch, 2)]),
        "else_branch": body([node("Identity", ["s"], ["i"])], [], [value("i", batch, 2)]),
    }
    return save(
        path,
        [*SAVER, node("If", ["unsure"], ["logits"], **branches)],
        [value("x", batch, 1, 4, 4)],
        [value("logits", batch, 2)],
        [*kept(twin), stored("doubt", doubt, np.float32)],
    )


def folded(path: Path, twin: LinearSaver) -> Path:
    """The same with both sides computed."""
    return save(
        path,
        [*SAVER, *BASE, node("Where", ["unsure", "b", "s"], ["logits"], name="choose")],
        [value("x", "batch", 1, 4, 4)],
        [value("logits", "batch", 2)],
        [*kept(twin), stored("doubt", 1.0, np.float32)],
    )


@pytest.fixture
def twin() -> LinearSaver:
    return LinearSaver()


def test_a_file_works_and_decides_as_its_twin(tmp_path: Path, twin: LinearSaver) -> None:
    victim = onnx(shipped(tmp_path / "cascade.onnx", twin), twin)
    images = grey_images(24)
    trace = twin.trace(images)
    (gate,) = trace.gates
    assert 0 < gate.active.float().mean() < 1
    assert victim.name == "cascade"
    assert torch.allclose(victim(images), trace.logits, atol=1e-5)
    for index, single in enumerate(images.split(1)):
        ran = victim.ran(single)
        assert ran.macs == trace.macs[index] == ran.counts["deployed_macs"]
        assert torch.equal(ran.decisions["saver"], gate.active[index])
        assert torch.allclose(ran.outputs, trace.logits[index : index + 1], atol=1e-5)
        assert ran.as_twin


def test_decisions_are_the_files_own(tmp_path: Path, twin: LinearSaver) -> None:
    """A file that was calibrated anew doubts where its twin does not, and is judged as it is."""
    victim = onnx(shipped(tmp_path / "eager.onnx", twin, doubt=1e6), twin)
    images = grey_images(12)
    assert not twin.trace(images).gates[0].active.all()
    assert all(victim.ran(single).decisions["saver"].all() for single in images.split(1))
    assert all(victim.ran(single).macs == 176 for single in images.split(1))
    assert not all(victim.ran(single).as_twin for single in images.split(1))


def test_outputs_named_after_gates_tell_decisions(tmp_path: Path, twin: LinearSaver) -> None:
    path = shipped(tmp_path / "told.onnx", twin)
    model = graphs.onnx.load(path)
    model.graph.node.append(node("Identity", ["unsure"], ["saver"]))
    model.graph.output.append(value("saver", 1, 1, type=BOOL))
    graphs.onnx.save(model, path)
    victim, images = onnx(path, twin), grey_images(12)
    outputs, decisions = victim.run(images)
    assert torch.allclose(outputs, twin(images), atol=1e-5)
    assert torch.equal(decisions["saver"], twin.trace(images).gates[0].active)
    assert torch.equal(victim.ran(images[:1]).decisions["saver"], decisions["saver"][0])


def test_both_branches_multiplying_tell_no_decisions(tmp_path: Path, twin: LinearSaver) -> None:
    """Neither side is the cheap one: the file is compared by answer and work."""
    branches = {
        "then_branch": body(BASE, [], [value("b", 1, 2)]),
        "else_branch": body([linear("flat", "saver", "i")], [], [value("i", 1, 2)]),
    }
    path = save(
        tmp_path / "both.onnx",
        [*SAVER, node("If", ["unsure"], ["logits"], **branches)],
        [value("x", 1, 1, 4, 4)],
        [value("logits", 1, 2)],
        [*kept(twin), stored("doubt", 1.0, np.float32)],
    )
    assert onnx(path, twin).ran(grey_images(1)).decisions == {}


def test_a_batch_is_decided_input_by_input(tmp_path: Path, twin: LinearSaver) -> None:
    """A graph that takes any batch would decide for all of it by its first row."""
    victim = onnx(shipped(tmp_path / "cascade.onnx", twin), twin)
    images = grey_images(9)
    together, alone = victim(images), torch.cat([*map(victim, images.split(1))])
    assert torch.equal(together, alone)
    assert torch.equal(victim.work(images)["macs"], twin.trace(images).macs)


def test_exits_that_were_folded_away_are_refused_with_their_nodes(
    tmp_path: Path, twin: LinearSaver
) -> None:
    path = folded(tmp_path / "folded.onnx", twin)
    with pytest.raises(
        UsageError, match=r"its twin decides at saver.*Gemm_1.*choose chooses among"
    ):
        onnx(path, twin)
    with pytest.warns(UserWarning, match=r"computes both sides of a decision: .*torch\.cond"):
        victim = onnx(path)
    assert victim.ran(grey_images(1)).macs == 176


def test_a_traced_if_is_refused(tmp_path: Path, twin: LinearSaver) -> None:
    path = save(
        tmp_path / "traced.onnx",
        [node("Flatten", ["x"], ["flat"]), *BASE],
        [value("x", 1, 1, 4, 4)],
        [value("b", 1, 2)],
        kept(twin),
    )
    with pytest.raises(UsageError, match=r"folded that away \(it has no If, and no operator whose"):
        onnx(path, twin)


def test_without_a_twin_the_file_says_what_it_takes(tmp_path: Path, twin: LinearSaver) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        victim = onnx(shipped(tmp_path / "cascade.onnx", twin), name="alone")
    assert (victim.name, victim.sees) == ("alone", "answers")
    assert isinstance(victim.domain, Pixels)
    assert (victim.input_shape, victim.num_classes) == ((1, 4, 4), 2)
    assert isnan(victim.max_macs)
    images = grey_images(6)
    assert torch.equal(victim.work(images)["macs"], twin.trace(images).macs)
    assert victim.ran(images[:1]).decisions == {}
    assert onnx(shipped(tmp_path / "cascade.onnx", twin), max_macs=176).max_macs == 176


def test_free_sizes_that_cannot_be_fed_are_named(tmp_path: Path, twin: LinearSaver) -> None:
    path = save(
        tmp_path / "free.onnx",
        [node("Flatten", ["x"], ["flat"]), *BASE],
        [value("x", "batch", 1, "height", "width")],
        [value("b", "batch", 2)],
        kept(twin),
    )
    with pytest.raises(UsageError, match=r"shape \(1, 32, 32\).*height, width are free.*domain="):
        onnx(path)
    victim = onnx(path, domain=Pixels((1, 4, 4)))
    assert victim(grey_images(5)).shape == (5, 2)


def test_outputs_that_are_no_logits_are_refused(tmp_path: Path) -> None:
    path = save(
        tmp_path / "map.onnx",
        [node("Relu", ["x"], ["features"])],
        [value("x", 1, 1, 4, 4)],
        [value("features", 1, 1, 4, 4)],
    )
    with pytest.raises(UsageError, match=r"'features' has shape \(1, 1, 4, 4\) in torch.float32: "):
        onnx(path)


def test_a_twin_of_other_classes_or_sizes_is_refused(tmp_path: Path, twin: LinearSaver) -> None:
    path = shipped(tmp_path / "cascade.onnx", twin)
    model = graphs.onnx.load(path)
    model.graph.node.append(node("Concat", ["logits", "logits"], ["four"], axis=1))
    model.graph.output[0].CopyFrom(value("four", 1, 4))
    graphs.onnx.save(model, tmp_path / "four.onnx")
    with pytest.raises(UsageError, match=r"tells 4 classes and its twin toy 2: give the twin that"):
        onnx(tmp_path / "four.onnx", twin)
    wide = Opaque(nn.Sequential(nn.Flatten(), nn.Linear(32, 2)), (1, 4, 8))
    with pytest.raises(UsageError, match=r"inputs of shape \(1, 4, 8\) .*give the twin that"):
        onnx(path, wide)


def test_a_file_that_multiplies_nothing_is_refused(tmp_path: Path) -> None:
    path = save(
        tmp_path / "mean.onnx",
        [node("ReduceMean", ["x", "axes"], ["y"], keepdims=0)],
        [value("x", 1, 3, 4, 4)],
        [value("y", 1, 3)],
        [stored("axes", [2, 3], np.int64)],
    )
    with pytest.raises(UsageError, match="multiplies no matrices at all"):
        onnx(path)


def test_an_unknown_level_is_refused(tmp_path: Path, twin: LinearSaver) -> None:
    with pytest.raises(UsageError, match=r"level = 'O3' is none of ONNX Runtime's: give one of"):
        onnx(shipped(tmp_path / "cascade.onnx", twin), twin, level="O3")


def test_the_digest_is_that_of_the_file(tmp_path: Path, twin: LinearSaver) -> None:
    """Wherever it lies, and as soon as one of its weights moves."""
    one = onnx(shipped(tmp_path / "cascade.onnx", twin), twin)
    (tmp_path / "elsewhere").mkdir()
    same = onnx(shipped(tmp_path / "elsewhere" / "cascade.onnx", twin), twin)
    other = onnx(
        shipped(tmp_path / "elsewhere" / "other.onnx", twin, doubt=1.5), twin, name="cascade"
    )
    before = victim_digest(one)
    one.ran(grey_images(1))
    assert before == victim_digest(one) == victim_digest(same) != victim_digest(other)


def test_a_victim_travels_to_workers(tmp_path: Path, twin: LinearSaver) -> None:
    victim = onnx(shipped(tmp_path / "cascade.onnx", twin), twin)
    victim.ran(grey_images(1))
    other = pickle.loads(pickle.dumps(victim))
    images = grey_images(3)
    assert torch.equal(other(images), victim(images))
    assert other.ran(images[:1]).macs == victim.ran(images[:1]).macs


@pytest.mark.slow
def test_a_file_is_scored_with_and_without_its_twin(tmp_path: Path, twin: LinearSaver) -> None:
    """On the twin's gradients the house attack opens each gate that it can, and the file pays.

    Without a twin, queries and what transfers from a surrogate are left, and the ratio judges.
    """
    path, images = shipped(tmp_path / "cascade.onnx", twin), grey_images(12)
    labels = twin(images).argmax(1)
    seen = evaluate(onnx(path, twin), images, labels, ["Slowdown"], eps=4 / 255, timed=1)
    scores = seen.scores().set_index("attack")
    reached = (twin.missing(images) < twin.reach(4)).double()
    assert scores.twin_agreement.dropna().eq(1).all()
    assert scores.loc["Slowdown", "macs"] == (32 + 144 * reached).mean().item()
    assert scores.loc["clean", "macs"] == twin.trace(images).macs.mean().item()

    alone = onnx(path)
    moved = Transfer(alone, eps=4 / 255, source=twin, attack="Slowdown")
    blind = evaluate(alone, images, labels, ["QueryAttack", moved], eps=4 / 255, timed=1)
    found = blind.scores().set_index("attack")
    assert found.savings_retained.isna().all()
    assert found.twin_agreement.isna().all()
    assert found[found.kind != "control"].macs_ratio.min() > 1
