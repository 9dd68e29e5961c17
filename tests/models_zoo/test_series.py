"""Victims on time series: what they read, merge and declare."""

from __future__ import annotations

import hashlib
from functools import partial
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from toys import embedded

from effattack.counting.macs import count_macs
from effattack.domains import Series
from effattack.errors import UsageError
from effattack.models_zoo.series import cbf
from effattack.models_zoo.series.early_reading import EarlyReading
from effattack.models_zoo.series.merging import NeighbourMerging, PatchTransformer
from effattack.models_zoo.series.readers import ConvReader, GRUReader, Reader
from effattack.victim import Victim, audit

LENGTH = 30
RANGE = partial(Series, low=-64, high=64)
READERS = {
    "gru": lambda: GRUReader(2, 5, frame=2),
    "convolutions": lambda: ConvReader(2, (4, 6, 3)),
}
STEP_MACS = {"gru": 3 * 5 * (2 * 2 + 5) / 2, "convolutions": 3 * (2 * 4 + 4 * 6 + 6 * 3)}
WIDTH = {"gru": 5, "convolutions": 3}

every_reader = pytest.mark.parametrize("kind", READERS)


def made(kind: str, every: int = 8, criterion: float = 0.5) -> EarlyReading:
    torch.manual_seed(0)
    reader: Reader = READERS[kind]()
    victim = EarlyReading(reader, RANGE(2, LENGTH), every=every, classes=3, criterion=criterion)
    with torch.no_grad():
        victim.classifier.weight.mul_(8)
    return victim


def merging(threshold: float, length: int = 64, patch: int = 4) -> NeighbourMerging:
    torch.manual_seed(0)
    network = PatchTransformer(1, length, patch=patch, classes=3, width=16, depth=3, heads=2)
    blocks = (0, 1, 2)
    return NeighbourMerging(network, RANGE(1, length), merging_blocks=blocks, threshold=threshold)


def noise(count: int, *shape: int) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(1)).cumsum(2)


def test_the_test_series_are_the_same_everywhere() -> None:
    series, labels = cbf.scored_series()
    cbf.DOMAIN.check(series)
    assert torch.equal(cbf.DOMAIN.snap(series), series)
    content = b"".join(cbf.DOMAIN.pack(series)) + labels.numpy().astype("<i8").tobytes()
    assert hashlib.sha256(content).hexdigest()[:16] == "d6010af0ab435bbd"


def test_the_formula_shows_in_the_means() -> None:
    """E[c] = 6 P(a ≤ t ≤ b), of bell and funnel in proportion to the elapsed share."""
    series, labels = cbf.cylinder_bell_funnel(30_000, seed=7)
    means = torch.stack([series[labels == k, 0].mean(0) for k in range(3)])
    onset = torch.arange(16.0, 33)[:, None, None]
    width = torch.arange(32.0, 97)[None, :, None]
    elapsed = torch.arange(1.0, 129) - onset
    inside = ((elapsed >= 0) & (elapsed <= width)).float()
    share = elapsed / width
    expected = [6 * (inside * shape).mean((0, 1)) for shape in (1, share, 1 - share)]
    assert (means - torch.stack(expected)).abs().max() < 0.15


def test_splits_differ_and_their_deviation_is_declared() -> None:
    train, heldout, test = (cbf.cbf(split)[0] for split in ("train", "heldout", "test"))
    assert train.std().item() == pytest.approx(cbf.DOMAIN.deviation, abs=5e-4)
    prints = [set(cbf.DOMAIN.fingerprints(split)) for split in (train, heldout, test)]
    assert sum(map(len, prints)) == len(set.union(*prints)) == 6900
    assert cbf.cbf("test")[1].bincount().tolist() == [100, 100, 100]


@every_reader
@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(1, LENGTH // 2 - 1), max_size=6, unique=True))
def test_reading_in_pieces_is_reading_at_once(kind: str, cuts: list[int]) -> None:
    reader, series = READERS[kind](), noise(3, 2, LENGTH)
    whole = reader.read(series, reader.start(3, series))
    memory = reader.start(3, series)
    for piece in series.tensor_split([2 * cut for cut in sorted(cuts)], dim=2):
        memory = reader.read(piece, memory)
    for once, piecewise in zip(whole, memory, strict=True):
        assert torch.allclose(once, piecewise, atol=1e-5)


@every_reader
def test_what_was_not_read_does_not_matter(kind: str) -> None:
    """The later steps of a series that stopped may be anything, even no numbers."""
    victim, series = made(kind), noise(40, 2, LENGTH)
    trace = victim.trace(series)
    read = trace.also["samples"].long()
    assert len(read.unique()) > 1
    for one, end, logits in zip(series.split(1), read, trace.logits, strict=True):
        cut = one.clone()
        cut[:, :, end:] = torch.nan
        assert torch.allclose(victim(cut)[0], logits, atol=1e-5)


@every_reader
def test_macs_follow_the_steps_read(kind: str) -> None:
    victim, series = made(kind), noise(20, 2, LENGTH)
    trace = victim.trace(series)
    (gate,) = trace.gates
    assert (gate.name, gate.margin.shape) == ("steps", (20, 3))
    looks = 1 + gate.active.sum(1)
    read = (8 * looks).clamp(max=LENGTH)
    expected = read * STEP_MACS[kind] + looks * WIDTH[kind] * 3
    assert trace.macs.tolist() == expected.tolist()
    assert trace.also["samples"].tolist() == read.tolist()
    assert victim.ceiling(series, "samples").tolist() == [LENGTH] * 20
    assert victim.max_macs == LENGTH * STEP_MACS[kind] + 4 * WIDTH[kind] * 3
    to_go = [22 * STEP_MACS[kind], 14 * STEP_MACS[kind], 6 * STEP_MACS[kind]]
    looks_to_go = [3 * WIDTH[kind] * k for k in (3, 2, 1)]
    assert gate.cost.tolist() == [a + b for a, b in zip(to_go, looks_to_go, strict=True)]


def test_no_look_before_the_end_is_refused() -> None:
    with pytest.raises(UsageError, match="every = 30 of 30 steps"):
        made("gru", every=LENGTH)
    with pytest.raises(UsageError, match="every = 7 of 30 steps: the reader takes 2 at a time"):
        made("gru", every=7)


@pytest.mark.parametrize("domain", [RANGE(1, LENGTH), RANGE(2, None)])
def test_series_that_do_not_fit_are_refused(domain: Series) -> None:
    with pytest.raises(UsageError, match="give both the same channels, and the series a length"):
        EarlyReading(GRUReader(2, 5), domain, every=8, classes=3, criterion=0.5)


@pytest.mark.parametrize(
    ("threshold", "tokens"), [(1.0, [16, 16, 16, 16]), (-0.9999, [16, 8, 4, 2])]
)
def test_a_threshold_may_merge_none_or_every_pair(threshold: float, tokens: list[int]) -> None:
    victim, series = merging(threshold), noise(4, 1, 64)
    trace = victim.trace(series)
    assert trace.aux["tokens"].tolist() == [tokens] * 4
    width, mlp, head_dim = 16, 2 * 16 * 32, 8
    macs = 4 * 16 * 16 + 16 * 3
    for before, after in pairwise(tokens):
        macs += before * (4 * width * width) + 2 * before * before * width + after * mlp
        macs += before // 2 * head_dim
    assert trace.macs.tolist() == [macs] * 4
    assert count_macs(victim, series[:1]) == macs
    assert (macs == victim.max_macs) == (threshold == 1)


def test_merged_tokens_are_the_mean_of_their_patches() -> None:
    """A series of equal patches, places aside, answers alike however much is merged."""
    answers = []
    for threshold in (1.0, -0.9999):
        victim = merging(threshold)
        with torch.no_grad():
            victim.transformer.place.zero_()
        answers.append(victim(torch.full((1, 1, 64), 0.7)))
    assert torch.allclose(*answers, atol=1e-5)


@pytest.mark.parametrize("settings", [{"merging_blocks": (3,)}, {"merging_blocks": ()}])
def test_blocks_that_are_not_there_are_refused(settings: dict[str, tuple[int, ...]]) -> None:
    network = PatchTransformer(1, 64, patch=4, classes=3, depth=3)
    with pytest.raises(UsageError, match="must name some of 0 to 2"):
        NeighbourMerging(network, RANGE(1, 64), threshold=0.5, **settings)
    with pytest.raises(UsageError, match="is no cosine"):
        NeighbourMerging(network, RANGE(1, 64), merging_blocks=(0,), threshold=1.5)
    with pytest.raises(UsageError, match="give both the same channels and length"):
        NeighbourMerging(network, RANGE(1, 60), merging_blocks=(0,), threshold=0.5)


@pytest.mark.parametrize(
    "victim",
    [
        pytest.param(lambda: made("gru"), id="gru"),
        pytest.param(lambda: made("convolutions"), id="convolutions"),
        pytest.param(lambda: merging(0.6), id="merging"),
        pytest.param(lambda: merging(0.6, length=63, patch=9), id="an odd number of tokens"),
        *("cbf_early_gru", "cbf_cnn_exit", "cbf_transformer_merge"),
    ],
)
def test_the_declared_macs_are_executed(victim) -> None:
    tested: Victim = embedded(victim) if isinstance(victim, str) else victim()
    shape = tested.input_shape
    series = cbf.scored_series()[0][:24] if isinstance(victim, str) else noise(24, *shape)
    found = audit(tested, series)
    with torch.no_grad():
        together, trace = tested(series), tested.trace(series)
    assert len(found.macs.unique()) > 1
    assert torch.equal(found.macs, trace.macs)
    assert torch.allclose(found.logits, together, atol=1e-4)
    assert torch.allclose(found.logits, trace.logits, atol=1e-4)
