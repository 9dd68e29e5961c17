"""ExecuTorch programs: the branch that ran, from the runtime's own trace."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from toys import import_or_skip

from effattack.counting.macs import MacsCounter
from effattack.errors import UsageError

exir = import_or_skip("executorch.exir")

from effattack.victim.deployed.executorch import Program  # noqa: E402


class Exit(nn.Module):
    """Bright images leave after the stem."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.head, self.deep = nn.Linear(8, 10), nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 10))

    def forward(self, x: Tensor) -> Tensor:
        features = self.stem(x).mean((2, 3))
        logits = self.head(features)

        def done(features: Tensor, logits: Tensor) -> Tensor:
            return logits.clone()

        def go(features: Tensor, logits: Tensor) -> Tensor:
            return self.deep(features)

        return torch.cond(x.mean() > 0.5, done, go, (features, logits))


def lowered(path: Path, model: nn.Module, example: Tensor) -> Path:
    program = torch.export.export(model.eval(), (example,))
    config = exir.EdgeCompileConfig(_check_ir_validity=False)
    path.write_bytes(exir.to_edge(program, compile_config=config).to_executorch().buffer)
    return path


@pytest.mark.slow
def test_the_branch_that_ran_counts(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Exit()
    images = torch.cat([torch.full((1, 3, 8, 8), level) for level in (0.2, 0.8, 0.4)])
    program = Program(lowered(tmp_path / "exit.pte", model, images[:1]))
    with torch.no_grad():
        expected = torch.cat([*map(model, images.split(1))])
    counts = []
    for each in images.split(1):
        with torch.no_grad(), MacsCounter() as counter:
            model(each)
        counts.append(float(counter.total))
    assert torch.allclose(program(images), expected, atol=1e-5)
    assert program.work(images).tolist() == counts == [14192, 13904, 14192]
    assert pickle.loads(pickle.dumps(program)).work(images[:1]).tolist() == [14192]


@pytest.mark.slow
def test_a_delegate_is_refused_by_name(tmp_path: Path) -> None:
    partitioner = import_or_skip("executorch.backends.xnnpack.partition.xnnpack_partitioner")
    program = torch.export.export(nn.Sequential(nn.Linear(8, 8)).eval(), (torch.rand(1, 8),))
    lowered_to = exir.to_edge_transform_and_lower(
        program, partitioner=[partitioner.XnnpackPartitioner()]
    )
    (tmp_path / "fast.pte").write_bytes(lowered_to.to_executorch().buffer)
    with pytest.raises(UsageError, match="calls XnnpackBackend, whose trace shows no shapes"):
        Program(tmp_path / "fast.pte")
