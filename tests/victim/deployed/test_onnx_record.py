"""Executed MACs from ONNX Runtime's record: closed forms, node by node and level by level."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_graphs as graphs
import pytest
from onnx_graphs import MICROSOFT, body, node, save, stored, value, weight

from effattack.errors import MeasurementError, UnknownOperator
from effattack.victim.deployed.onnx_runtime.costs import COSTS, FREE, macs_of, register
from effattack.victim.deployed.onnx_runtime.node import Executed
from effattack.victim.deployed.onnx_runtime.record import AT_ONCE, Record
from effattack.victim.deployed.onnx_runtime.session import LEVELS, session

INT64, BOOL = graphs.TYPES.INT64, graphs.TYPES.BOOL


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def macs(path: Path, feed: Mapping[str, np.ndarray], level: str = "ENABLE_EXTENDED") -> int:
    (ran,) = Record(path, level).runs([feed])
    return sum(map(macs_of, ran))


def one(
    path: Path, operator: str, given: Mapping[str, Any], outputs: list[str], **how: Any
) -> Path:
    """A graph of one node: arrays are its inputs, tensors of ONNX what it stores."""
    computed = {name: each for name, each in given.items() if isinstance(each, np.ndarray)}
    return save(
        path,
        [node(operator, list(given), outputs, **how)],
        [value(name, *each.shape) for name, each in computed.items()],
        [graphs.helper.make_tensor_value_info(name, 1, None) for name in outputs if name],
        [each for each in given.values() if not isinstance(each, np.ndarray)],
        opset=23 if operator == "Attention" and not how.get("domain") else 20,
    )


SINGLE = [
    ("MatMul", {"x": zeros(2, 3, 8), "w": weight("w", 8, 5)}, ["y"], {}, 2 * 3 * 8 * 5),
    ("Gemm", {"x": zeros(8, 3), "w": weight("w", 5, 8)}, ["y"], {"transA": 1, "transB": 1}, 120),
    ("Conv", {"x": zeros(2, 4, 6, 6), "w": weight("w", 8, 2, 3, 3)}, ["y"], {"group": 2}, 4608),
    ("ConvTranspose", {"x": zeros(1, 4, 3, 3), "w": weight("w", 4, 6, 2, 2)}, ["y"], {}, 864),
    (
        "LSTM",
        {"x": zeros(5, 2, 8), "w": weight("w", 2, 16, 8), "r": weight("r", 2, 16, 4)},
        ["", "y"],
        {"hidden_size": 4, "direction": "bidirectional"},
        5 * 2 * 2 * 16 * (8 + 4),
    ),
    (
        "GRU",
        {"x": zeros(5, 2, 8), "w": weight("w", 1, 12, 8), "r": weight("r", 1, 12, 4)},
        ["y"],
        {"hidden_size": 4},
        5 * 2 * 12 * (8 + 4),
    ),
    (
        "RNN",
        {"x": zeros(5, 2, 8), "w": weight("w", 1, 4, 8), "r": weight("r", 1, 4, 4)},
        ["y"],
        {"hidden_size": 4},
        5 * 2 * 4 * (8 + 4),
    ),
    (
        "Einsum",
        {"x": zeros(2, 3, 8), "w": weight("w", 2, 5, 8)},
        ["y"],
        {"equation": "bik,bjk->bij"},
        2 * 3 * 5 * 8,
    ),
    ("Einsum", {"x": zeros(2, 3), "w": weight("w", 2, 3)}, ["y"], {"equation": "ij,ij->ij"}, 0),
    ("Einsum", {"x": zeros(2, 3), "w": weight("w", 3)}, ["y"], {"equation": "ij,j"}, 6),
    (
        "Einsum",
        {"x": zeros(2, 3), "w": weight("w", 3, 4), "v": weight("v", 4, 5)},
        ["y"],
        {"equation": "ij,jk,kl->il"},
        2 * 3 * 4 + 2 * 4 * 5,
    ),
    (
        "Attention",
        {"q": zeros(2, 3, 5, 8), "k": zeros(2, 3, 7, 8), "v": zeros(2, 3, 7, 6)},
        ["y"],
        {},
        2 * 3 * 5 * 7 * (8 + 6),
    ),
    (
        "Attention",
        {"q": zeros(2, 5, 8), "k": zeros(2, 7, 4), "v": zeros(2, 7, 4)},
        ["y"],
        {"q_num_heads": 2, "kv_num_heads": 1},
        2 * 2 * 5 * 7 * (4 + 4),
    ),
    (
        "Attention",
        {"x": zeros(2, 5, 8), "w": weight("w", 8, 24), "b": weight("b", 24)},
        ["y"],
        {**MICROSOFT, "num_heads": 2},
        2 * 5 * 8 * 24 + 2 * 5 * 5 * (8 + 8),
    ),
    (
        "MultiHeadAttention",
        {"q": zeros(2, 5, 8), "k": zeros(2, 7, 8), "v": zeros(2, 7, 8)},
        ["y"],
        {**MICROSOFT, "num_heads": 2},
        2 * 5 * 7 * (8 + 8),
    ),
    (
        "GroupQueryAttention",
        {
            **{"q": zeros(1, 1, 16), "k": zeros(1, 1, 8), "v": zeros(1, 1, 8)},
            **{"K": zeros(1, 1, 4, 8), "V": zeros(1, 1, 4, 8)},
            "lengths": stored("lengths", [4], np.int32),
            "total": stored("total", 5, np.int32),
        },
        ["y", "keys", "values"],
        {**MICROSOFT, "num_heads": 2, "kv_num_heads": 1},
        1 * 5 * (16 + 16),
    ),
    (
        "MatMulNBits",
        {
            "x": zeros(3, 32),
            "w": stored("w", np.ones((16, 1, 16)), np.uint8),
            "s": weight("s", 16),
        },
        ["y"],
        {**MICROSOFT, "K": 32, "N": 16, "bits": 4, "block_size": 32},
        3 * 32 * 16,
    ),
    (
        "FusedMatMul",
        {"x": zeros(8, 3), "w": weight("w", 8, 5)},
        ["y"],
        {**MICROSOFT, "transA": 1},
        3 * 8 * 5,
    ),
    (
        "FusedMatMul",
        {"x": zeros(3, 2, 8), "w": weight("w", 2, 8, 5)},
        ["y"],
        {**MICROSOFT, "transBatchA": 1},
        2 * 3 * 8 * 5,
    ),
    (
        "AffineGrid",
        {"x": zeros(1, 2, 3), "size": stored("size", [1, 1, 4, 5], np.int64)},
        ["y"],
        {},
        4 * 5 * 2 * 3,
    ),
    (
        "CDist",
        {"x": zeros(3, 8), "w": weight("w", 5, 8)},
        ["y"],
        {**MICROSOFT, "metric": "euclidean"},
        3 * 5 * 8,
    ),
    ("Softmax", {"x": zeros(3, 8)}, ["y"], {}, 0),
]


@pytest.mark.parametrize("level", ["DISABLE_ALL", "ENABLE_EXTENDED"])
@pytest.mark.parametrize(
    ("operator", "given", "outputs", "how", "expected"),
    SINGLE,
    ids=[f"{case[0]}-{number}" for number, case in enumerate(SINGLE)],
)
def test_an_operator_costs_its_closed_form(
    tmp_path: Path,
    operator: str,
    given: Mapping[str, Any],
    outputs: list[str],
    how: Mapping[str, Any],
    expected: int,
    level: str,
) -> None:
    path = one(tmp_path / "one.onnx", operator, given, outputs, **how)
    feed = {name: each for name, each in given.items() if isinstance(each, np.ndarray)}
    assert macs(path, feed, level) == expected


@pytest.mark.parametrize(
    ("operator", "inputs", "outputs", "expected"),
    [
        ("MultiHeadAttention", ((2, 5, 2, 3, 4),), ((2, 5, 8),), 2 * 5 * 5 * 16),
        ("MultiHeadAttention", ((2, 5, 8), (2, 7, 2, 2, 4)), ((2, 5, 8),), 2 * 5 * 7 * 16),
        (
            "MultiHeadAttention",
            ((2, 5, 8), (2, 2, 7, 4), (2, 2, 7, 4)),
            ((2, 5, 8),),
            2 * 5 * 7 * 16,
        ),
        (
            "MultiHeadAttention",
            ((2, 1, 8), (2, 1, 8), (2, 1, 8), None, None, None, (2, 2, 6, 4), (2, 2, 6, 4)),
            ((2, 1, 8),),
            2 * 1 * 7 * 16,
        ),
        ("Attention", ((2, 1, 8), (8, 24), None, None, (2, 2, 2, 6, 4)), ((2, 1, 8),), 384 + 224),
        ("QAttention", ((2, 5, 8), (8, 24), (24,), (), ()), ((2, 5, 8),), 1920 + 2 * 5 * 5 * 16),
        ("GroupQueryAttention", ((1, 5, 32), None, None), ((1, 5, 16), (1, 1, 5, 8)), 5 * 5 * 32),
    ],
)
def test_packed_and_cached_attention_costs_its_closed_form(
    operator: str, inputs: tuple[Any, ...], outputs: tuple[Any, ...], expected: int
) -> None:
    assert macs_of(Executed("n", f"com.microsoft.{operator}", inputs, outputs, {})) == expected


def test_of_an_if_only_the_branch_that_ran_counts(tmp_path: Path) -> None:
    path = graphs.early_exit(tmp_path / "exit.onnx")
    for level in LEVELS:
        assert macs(path, {"x": zeros(1, 8) + 3}, level) == 8 * 4
        assert macs(path, {"x": zeros(1, 8)}, level) == 8 * 64 + 64 * 4


def test_the_body_of_a_loop_counts_as_often_as_it_ran(tmp_path: Path) -> None:
    turn = body(
        [node("MatMul", ["h", "W"], ["o"]), node("Identity", ["c"], ["d"])],
        [value("i", type=INT64), value("c", type=BOOL), value("h", 1, 8)],
        [value("d", type=BOOL), value("o", 1, 8)],
    )
    path = save(
        tmp_path / "loop.onnx",
        [node("Loop", ["n", "", "x"], ["y"], body=turn)],
        [value("x", 1, 8), value("n", type=INT64)],
        [value("y", 1, 8)],
        [weight("W", 8, 8)],
    )
    for level in LEVELS:
        for turns in (0, 1, 3):
            feed = {"x": zeros(1, 8), "n": np.array(turns, np.int64)}
            assert macs(path, feed, level) == turns * 64


def test_the_body_of_a_scan_counts_for_every_step(tmp_path: Path) -> None:
    step = body(
        [node("MatMul", ["h", "W"], ["m"]), node("Add", ["m", "x"], ["o"])],
        [value("h", 1, 8), value("x", 1, 8)],
        [value("o", 1, 8)],
    )
    path = save(
        tmp_path / "scan.onnx",
        [node("Scan", ["first", "xs"], ["y"], body=step, num_scan_inputs=1)],
        [value("first", 1, 8), value("xs", "steps", 1, 8)],
        [value("y", 1, 8)],
        [weight("W", 8, 8)],
    )
    for level in LEVELS:
        for steps in (1, 5):
            assert macs(path, {"first": zeros(1, 8), "xs": zeros(steps, 1, 8)}, level) == steps * 64


def test_a_branch_inside_a_loop_counts_where_it_ran(tmp_path: Path) -> None:
    """Turn i multiplies if i is odd: 3 of 7 turns."""
    multiplied = body([node("MatMul", ["h", "W"], ["p"])], [], [value("p", 1, 8)])
    passed = body([node("Identity", ["h"], ["q"])], [], [value("q", 1, 8)])
    turn = body(
        [
            node("Mod", ["i", "two"], ["r"]),
            node("Cast", ["r"], ["odd"], to=BOOL),
            node("If", ["odd"], ["o"], then_branch=multiplied, else_branch=passed),
            node("Identity", ["c"], ["d"]),
        ],
        [value("i", type=INT64), value("c", type=BOOL), value("h", 1, 8)],
        [value("d", type=BOOL), value("o", 1, 8)],
    )
    path = save(
        tmp_path / "loop.onnx",
        [node("Loop", ["n", "", "x"], ["y"], body=turn)],
        [value("x", 1, 8)],
        [value("y", 1, 8)],
        [weight("W", 8, 8), stored("n", 7, np.int64), stored("two", 2, np.int64)],
    )
    assert macs(path, {"x": zeros(1, 8)}) == 3 * 64


def test_blocked_layouts_count_the_channels_that_they_pad(tmp_path: Path) -> None:
    """On x86 a convolution to 8 channels runs as one to 16; nominal shapes know 8."""
    path = save(
        tmp_path / "conv.onnx",
        [node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]), node("Relu", ["c"], ["y"])],
        [value("x", 1, 3, 8, 8)],
        [value("y", 1, 8, 8, 8)],
        [weight("w", 8, 3, 3, 3)],
    )
    nominal = 8 * 8 * 8 * 3 * 9
    assert macs(path, {"x": zeros(1, 3, 8, 8)}) == nominal
    assert macs(path, {"x": zeros(1, 3, 8, 8)}, "ENABLE_ALL") in (nominal, 2 * nominal)


@pytest.mark.parametrize("level", LEVELS)
def test_what_is_recorded_is_what_a_served_session_runs(tmp_path: Path, level: str) -> None:
    """The kept graph runs the nodes, with the shapes, of a session made from the file itself."""
    path = save(
        tmp_path / "net.onnx",
        [
            node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
            node("Relu", ["c"], ["r"]),
            node("GlobalAveragePool", ["r"], ["g"]),
            node("Flatten", ["g"], ["f"]),
            node("MatMul", ["f", "v"], ["m"]),
            node("Add", ["m", "b"], ["y"]),
        ],
        [value("x", 1, 3, 8, 8)],
        [value("y", 1, 4)],
        [weight("w", 8, 3, 3, 3), weight("v", 8, 4), weight("b", 4)],
    )
    feed = {"x": zeros(1, 3, 8, 8)}
    prefix = str(tmp_path / "served")
    served = session(path, level, enable_profiling=True, profile_file_prefix=prefix)
    served.run(None, feed)
    events = json.loads(Path(served.end_profiling()).read_text())
    told = [event["args"] for event in events if event["cat"] == "Node"]
    (recorded,) = Record(path, level).runs([feed])
    assert Counter(
        (each["op_name"], str([tuple(*s.values()) for s in each["output_type_shape"]]))
        for each in told
    ) == Counter((n.operator.rpartition(".")[2], str(list(n.outputs))) for n in recorded)


def test_nodes_of_one_name_are_told_apart(tmp_path: Path) -> None:
    """Both branches call their node "mm", and differ in the weight that is packed away."""
    branches = {
        name: body([node("Gemm", ["x", w], [name], name="mm", transB=t)], [], [value(name, 1, 4)])
        for name, w, t in [("then_branch", "W1", 1), ("else_branch", "W2", 0)]
    }
    path = save(
        tmp_path / "same.onnx",
        [node("If", ["c"], ["y"], name="mm", **branches)],
        [value("x", 1, 8), value("c", type=BOOL)],
        [value("y", 1, 4)],
        [weight("W1", 4, 8), weight("W2", 8, 4)],
    )
    record = Record(path, "ENABLE_EXTENDED")
    feeds = [{"x": zeros(1, 8), "c": np.array(c)} for c in (True, False)]
    then, other = ({n.name for n in ran} for ran in record.runs(feeds))
    assert then == {"mm/then_branch/mm", "mm"}
    assert other == {"mm/else_branch/mm", "mm"}


def test_values_of_one_name_that_the_optimiser_puts_in_are_told_apart(tmp_path: Path) -> None:
    """A product of three axes with a sum becomes a Gemm between reshapes, named by body."""
    deep = [node("MatMul", ["s", "W"], ["t"]), node("Add", ["t", "b"], ["u"])]
    branches = {
        "then_branch": body([*deep, node("Relu", ["u"], ["v"])], [], [value("v", 1, 2, 8)]),
        "else_branch": body([node("Identity", ["s"], ["w"])], [], [value("w", 1, 2, 8)]),
    }
    path = save(
        tmp_path / "fused.onnx",
        [
            *(node("MatMul", ["x", "W"], ["r"]), node("Add", ["r", "b"], ["s"])),
            node("If", ["c"], ["y"], **branches),
        ],
        [value("x", 1, 2, 8), value("c", type=BOOL)],
        [value("y", 1, 2, 8)],
        [weight("W", 8, 8), weight("b", 8)],
    )
    for open_, expected in ((True, 2), (False, 1)):
        feed = {"x": zeros(1, 2, 8), "c": np.array(open_)}
        assert macs(path, feed) == expected * 2 * 8 * 8


def test_many_inputs_are_recorded_each_for_itself_and_leave_no_files(tmp_path: Path) -> None:
    record = Record(graphs.early_exit(tmp_path / "exit.onnx"), "ENABLE_ALL")
    feeds = [{"x": zeros(1, 8) + 3 * (k % 2)} for k in range(2 * AT_ONCE + 1)]
    found = [sum(map(macs_of, ran)) for ran in record.runs(feeds)]
    assert found == [32 if k % 2 else 768 for k in range(len(feeds))]
    folder = Path(record._folder.name)
    assert {path.name for path in folder.iterdir()} <= {"optimized.onnx", "weights.bin"}
    assert sorted(tmp_path.iterdir()) == [tmp_path / "exit.onnx"]
    del record
    assert not folder.exists()


def test_a_record_travels_to_workers(tmp_path: Path) -> None:
    record = Record(graphs.early_exit(tmp_path / "exit.onnx"), "ENABLE_ALL")
    record.runs([{"x": zeros(1, 8)}])
    other = pickle.loads(pickle.dumps(record))
    assert [sum(map(macs_of, ran)) for ran in other.runs([{"x": zeros(1, 8)}])] == [768]


def test_large_weights_lie_outside_and_are_found(tmp_path: Path) -> None:
    path = save(
        tmp_path / "outside.onnx",
        [node("MatMul", ["x", "W"], ["y"])],
        [value("x", 1, 64)],
        [value("y", 1, 64)],
        [weight("W", 64, 64)],
        save_as_external_data=True,
        location="weights.data",
        size_threshold=0,
    )
    assert (tmp_path / "weights.data").is_file()
    assert macs(path, {"x": zeros(1, 64)}) == 64 * 64


def test_an_operator_of_unknown_cost_is_refused_by_name(tmp_path: Path) -> None:
    path = one(tmp_path / "det.onnx", "Det", {"x": zeros(4, 4)}, ["y"])
    with pytest.raises(UnknownOperator, match=r"ONNX operator Det: teach it with .*register\('Det"):
        macs(path, {"x": zeros(4, 4)})
    register("Det", lambda ran: ran.needed(0)[-1] ** 3 // 3)
    try:
        assert macs(path, {"x": zeros(4, 4)}) == 21
        register("Det", None)
        assert macs(path, {"x": zeros(4, 4)}) == 0
    finally:
        FREE.discard("Det")


@pytest.mark.parametrize(
    ("operator", "inputs", "outputs", "what"),
    [
        ("LSTM", ((5, 2, 8), (1, 16, 8), (1, 16, 4), None, (2,)), ((5, 1, 2, 4),), "sequence_lens"),
        (
            "com.microsoft.GroupQueryAttention",
            ((1, 1, 16), (1, 1, 8), (1, 1, 8), (1, 1, 9, 8), (1, 1, 9, 8)),
            ((1, 1, 16), (1, 1, 9, 8)),
            "a cache of fixed size",
        ),
        ("Conv", ((1, 3, 8, 8),), ((1, 8, 8, 8),), "input 1"),
    ],
)
def test_shapes_that_do_not_tell_are_refused(
    operator: str, inputs: tuple[Any, ...], outputs: tuple[Any, ...], what: str
) -> None:
    with pytest.raises(MeasurementError, match=rf"{operator} 'n' ran, and .*{what} does not tell"):
        macs_of(Executed("n", operator, inputs, outputs, {}))


def test_tables_name_operators_that_there_are() -> None:
    """Of ONNX and of ONNX Runtime, and none of them twice."""
    state = pytest.importorskip("onnxruntime.capi.onnxruntime_pybind11_state")
    listed = [*state.get_all_operator_schema(), *graphs.onnx.defs.get_all_schemas()]
    known = {
        each.name if each.domain in ("", "ai.onnx") else f"{each.domain}.{each.name}"
        for each in listed
    }
    assert not (FREE | COSTS.keys()) - known
    assert not FREE & COSTS.keys()
