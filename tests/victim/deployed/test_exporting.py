"""Exported files do what their victims do, and leave out what those leave out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toys import SHAPE, LinearSaver, embedded, import_or_skip, noise_images

from effattack.errors import MeasurementError, NotApplicable
from effattack.inputs.source import load_data
from effattack.models_zoo import Cascade, EarlyExit
from effattack.models_zoo.criteria import Confidence, Criterion, Entropy, Margin, Patience
from effattack.models_zoo.defences.hysteresis import Hysteresis
from effattack.victim import Victim
from effattack.victim.deployed.branching import Branching
from effattack.victim.digests import victim_digest

ort = import_or_skip("onnxruntime")
onnx = import_or_skip("onnx")
import_or_skip("onnxscript")

from effattack.victim.deployed.comparing import compare  # noqa: E402
from effattack.victim.deployed.exporting import OPSET, export  # noqa: E402

IMAGES = noise_images(48, 0, SHAPE)


class Pair(nn.Module):
    """Features in two parts, one of which it writes into."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 16)

    def forward(self, features: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        one, other = features
        return self.linear(other.relu_()), one


class Start(nn.Module):
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return images.flatten(1), -images.flatten(1)


class First(nn.Linear):
    def forward(self, features: tuple[Tensor, Tensor]) -> Tensor:
        return super().forward(features[0])


def exits(criterion: float | Criterion, depth: int = 3) -> EarlyExit:
    """Linear stages on noise, some of whose classifiers are sure."""
    torch.manual_seed(1)
    stages = [nn.Flatten(), *(nn.Linear(16, 16) for _ in range(depth - 1))]
    heads = [nn.Linear(16, 3) for _ in stages]
    settings = {"mean": [0.4], "std": [0.1]}
    return EarlyExit(stages, heads, criterion, SHAPE, name="toy exits", **settings)


def cascade(criterion: float | Criterion) -> Cascade:
    torch.manual_seed(1)
    linears = [nn.Linear(16, 3) for _ in range(3)]
    with torch.no_grad():
        for linear in linears:
            linear.weight.mul_(4)
    return Cascade([nn.Sequential(nn.Flatten(), linear) for linear in linears], criterion, SHAPE)


def run(path: Path, single: Tensor) -> tuple[dict[str, Tensor], int]:
    """Outputs by name, and how many nodes multiplied, by ONNX Runtime's own profile."""
    options = ort.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(path.with_suffix(""))
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    values = session.run(None, {session.get_inputs()[0].name: single.numpy()})
    events = json.loads(Path(session.end_profiling()).read_text())
    ran = [event for event in events if event["name"].endswith("_kernel_time")]
    products = sum(event["args"]["op_name"] in ("Gemm", "MatMul", "FusedGemm") for event in ran)
    return dict(zip(names, map(torch.from_numpy, values), strict=True)), products


def expect_the_same(victim: Victim, path: Path, batch: Tensor, per_stage: int) -> None:
    """Answers, decisions, and one product per stage or classifier that a decision led to."""
    with torch.no_grad():
        for single in batch.split(1):
            found, products = run(path, single)
            trace = victim.trace(single)
            assert list(found) == ["logits", *(gate.name for gate in trace.gates)]
            torch.testing.assert_close(found["logits"], trace.logits, rtol=1e-4, atol=1e-5)
            for gate in trace.gates:
                assert found[gate.name].dtype is torch.bool
                assert torch.equal(found[gate.name], gate.active)
            passed = sum(int(gate.active.sum()) for gate in trace.gates)
            first = victim.criterion.earliest
            flattened = isinstance(victim, EarlyExit)  # the first stage multiplies nothing
            assert products == (1 + first + passed) * per_stage - flattened


@pytest.mark.slow
def test_every_decision_is_a_branch(tmp_path: Path) -> None:
    victim, path = exits(0.55), tmp_path / "exit.onnx"
    written = export(victim, path, IMAGES)
    assert written.path == path
    assert written.gates == ("exits.0", "exits.1")
    assert (written.inputs, 0 < written.early < len(IMAGES)) == (len(IMAGES), True)
    expect_the_same(victim, path, IMAGES[:16], per_stage=2)
    model = onnx.load(path)
    assert [opset.version for opset in model.opset_import if not opset.domain] == [OPSET]
    told = {entry.key: entry.value for entry in model.metadata_props}
    assert told["victim"] == "toy exits"
    assert told["digest"] == victim_digest(victim)
    assert told["gates"] == "exits.0, exits.1"
    assert [file.name for file in tmp_path.glob("*.onnx*")] == ["exit.onnx"]
    assert not list(tmp_path.glob(".exporting*"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "criterion",
    [Entropy(0.9), Margin(0.3), Confidence([0.5, 0.7]), Hysteresis(0.7, 0.5), Patience(1)],
    ids=repr,
)
@pytest.mark.parametrize("kind", [exits, cascade])
def test_every_criterion_is_in_the_file(kind: Any, criterion: Criterion, tmp_path: Path) -> None:
    victim, path = kind(criterion), tmp_path / "model.onnx"
    written = export(victim, path, IMAGES)
    assert 0 < written.early < len(IMAGES)
    expect_the_same(victim, path, IMAGES[:16], per_stage=2 if kind is exits else 1)


@pytest.mark.slow
def test_features_may_be_several_and_written_into(tmp_path: Path) -> None:
    torch.manual_seed(1)
    stages, heads = [Start(), Pair(), Pair()], [First(16, 3) for _ in range(3)]
    victim, path = EarlyExit(stages, heads, 0.5, SHAPE), tmp_path / "model.onnx"
    assert 0 < export(victim, path, IMAGES).early < len(IMAGES)
    expect_the_same(victim, path, IMAGES[:16], per_stage=2)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "digits_cnn_early_exit", "digits_cnn_sdn", "digits_msdnet", "digits_vit_exit",
        "digits_tinysaver_cascade", "digits_three_stage_cascade", "cbf_cnn_exit",
    ],
)  # fmt: skip
def test_embedded_victims_export(name: str, tmp_path: Path) -> None:
    victim = embedded(name)
    batch = load_data(None, victim)[0][:64]
    written = export(victim, tmp_path / "model.onnx", batch)
    assert 0 < written.early <= len(batch)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "exit.onnx"
    export(exits(0.55), path, IMAGES)
    return path


GATES = ("exits.0", "exits.1")


def test_a_file_of_other_weights_is_told(exported: Path) -> None:
    other = exits(0.55)
    assert compare(other, exported, GATES, IMAGES) > 0
    with torch.no_grad():
        other.heads[2].bias += 0.01
        with pytest.raises(
            MeasurementError, match=r"is not toy exits: image \d+ has another answer"
        ):
            compare(other, exported, GATES, IMAGES)


def test_a_file_of_another_threshold_is_told(exported: Path) -> None:
    sooner = exits(0.5)
    with (
        torch.no_grad(),
        pytest.raises(MeasurementError, match="computes what toy exits leaves out"),
    ):
        compare(sooner, exported, GATES, IMAGES)
    later = exits(0.6)
    with torch.no_grad(), pytest.raises(MeasurementError, match=r"other decisions at exits\.0"):
        compare(later, exported, GATES, IMAGES)


class BothSides(Branching):
    """Both sides of every decision, and a choice at the end: what an export without branches is."""

    def forward(self, single: Tensor) -> tuple[Tensor, ...]:
        features, logits = (single - self.exits.mean) / self.exits.std, []
        for stage, head in zip(self.exits.stages, self.exits.heads, strict=True):
            features = stage(features)
            logits.append(head(features))
        seen = torch.stack(logits, 1)
        first, second = (self.exits.criterion.go_on(seen[:, : k + 1])[:, None] for k in range(2))
        last = torch.where(second, logits[2], logits[1])
        return torch.where(first, last, logits[0]), first, first & second


@pytest.mark.slow
def test_both_sides_computed_are_refused_with_the_nodes(tmp_path: Path) -> None:
    victim, path = exits(0.55), tmp_path / "folded.onnx"
    structure = victim.structure()
    assert structure is not None
    program = torch.onnx.export(
        BothSides(structure, torch.float32).eval(), (IMAGES[:1],), dynamo=True, verbose=False,
        output_names=["logits", *GATES],
    )  # fmt: skip
    program.save(path)
    with torch.no_grad():
        stopped = int((~victim.trace(IMAGES).gates[0].active).nonzero()[0, 0])
        message = rf"leaves out: on image {stopped} also \S+, \S+, \S+, \S+ ran"
        with pytest.raises(MeasurementError, match=message):
            compare(victim, path, GATES, IMAGES)


def test_what_is_no_chain_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotApplicable, match="toy does not say what it is made of"):
        export(LinearSaver(), tmp_path / "model.onnx", IMAGES)


@pytest.mark.slow
def test_what_torch_cannot_export_leaves_the_older_file(tmp_path: Path) -> None:
    class Turning(nn.Module):
        def forward(self, features: Tensor) -> Tensor:
            return features if bool(features.mean() > 0.5) else -features

    path = tmp_path / "model.onnx"
    path.write_text("older")
    stages, heads = [nn.Flatten(), Turning()], [nn.Linear(16, 2) for _ in range(2)]
    victim = EarlyExit(stages, heads, 0.55, SHAPE, name="turning")
    with pytest.raises(NotApplicable, match="does not export turning"):
        export(victim, path, IMAGES)
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    assert path.read_text() == "older"
