"""The losses of SlowFormer, DeSparsify and QuantAttack, against values worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from math import exp, log

import pytest
import torch
from torch import Tensor
from toys import LinearSaver

from effattack.attacks.objectives import Goal, UniformSignificance, WeightedSignificance
from effattack.attacks.published.desparsify_losses import late_halting, open_policies
from effattack.attacks.published.quantattack_losses import NearOutliers
from effattack.attacks.published.slowformer_losses import (
    PUBLISHED_WEIGHTS,
    FlatAttention,
    PaddedFlatAttention,
    full_masked_policies,
    full_policies,
    halting_prior,
    long_ponder,
    long_ponder_near_prior,
    slowformer_loss,
)
from effattack.attacks.searches.projected import cosine_restarts
from effattack.errors import UsageError
from effattack.victim import Gate, Trace


def a_trace(gates: tuple[Gate, ...] = (), **aux: Tensor) -> Trace:
    size = len(next(iter(aux.values())))
    logits, macs = torch.zeros(size, 2), torch.ones(size, dtype=torch.float64)
    return Trace(logits=logits, gates=gates, macs=macs, aux=aux)


def a_gate(active: list[bool], name: str = "g", cost: float = 1.0) -> Gate:
    """Of one image: what is active was reached."""
    on = torch.tensor(active)[None]
    return Gate(name, on.float() - 0.5, on, on, cost)


def goal(count: int = 1) -> Goal:
    return Goal(LinearSaver(), torch.zeros(count, 2), torch.zeros(count, dtype=torch.long))


# DeSparsify


def test_late_halting_counts_up_to_the_halt() -> None:
    # two tokens, three blocks; the second token halts after the second block
    sums = torch.tensor([[[0.1, 0.3], [0.4, 1.2], [1.4, 1.2]]])
    live = torch.tensor([[[True, True], [True, True], [True, False]]])
    found = late_halting(a_trace(cumulative=sums, live=live), goal())
    first, second = 0.1**2 + 0.4**2 + 1.4**2, 0.3**2 + 1.2**2
    torch.testing.assert_close(found, torch.tensor([-(first / 3 + second / 3) / 2]))


POLICIES = {
    "token_policy": torch.tensor([[[1.0, 0.5], [0.0, 0.5], [1.0, 1.0]]]),
    "head_policy": torch.tensor([[[0.5, 1.0], [0.0, 0.0]]]),
    "layer_policy": torch.tensor([[[0.9, 1.0], [0.2, 0.4]]]),
}
"""Three blocks, the first of which keeps all heads and sublayers."""


def test_open_policies_pass_over_heads_of_a_skipped_attention() -> None:
    gates = (a_gate([True], "blocks.1.attention"), a_gate([False], "blocks.2.attention"))
    found = open_policies(a_trace(gates, **POLICIES), goal())
    tokens = 0.25 / 2 + (1 + 0.25) / 2 + 0
    heads = 0.25 / 2  # those of block 2 do not count
    layers = 0.01 / 2 + (0.64 + 0.36) / 2
    torch.testing.assert_close(found, torch.tensor([-(tokens + heads + layers) / 3]))


def test_open_policies_of_tokens_alone() -> None:
    found = open_policies(a_trace(token_policy=POLICIES["token_policy"]), goal())
    torch.testing.assert_close(found, torch.tensor([-(0.125 + 0.625) / 3]))


def test_significance_weighted_by_the_cost_to_go() -> None:
    scores = torch.tensor([[[1.0, 0.0], [0.5, 0.5]], [[0.5, 0.5], [1.0, 0.0]]])
    on = torch.ones(2, 2, dtype=torch.bool)
    gates = tuple(Gate("g", on.float(), on, on, cost) for cost in (30.0, 10.0))
    trace = a_trace(gates, significance=scores)
    found = WeightedSignificance()(trace, goal(2))
    torch.testing.assert_close(found, torch.tensor([-1.5, -0.5]) * log(2) / 2)
    plain = UniformSignificance()(trace, goal(2))
    torch.testing.assert_close(plain, torch.tensor([-0.5, -0.5]) * log(2))


# SlowFormer


@pytest.mark.parametrize(("weights", "last"), [((1.0, 0.5), 0.5), (None, 0.2)])
def test_flat_attention(weights: tuple[float, ...] | None, last: float) -> None:
    # two blocks, one head; a token of four is dead in the second block
    rows = torch.tensor([[[[0.4, 0.2, 0.2, 0.1]], [[0.5, 0.25, 0.25, 0.0]]]])
    gates = (a_gate([True] * 4), a_gate([True, True, True, False]))
    found = FlatAttention(weights)(a_trace(gates, cls_attention=rows), goal())
    first = 0.15**2 + 2 * 0.05**2 + 0.15**2
    second = (0.5 - 1 / 3) ** 2 + 2 * (0.25 - 1 / 3) ** 2
    torch.testing.assert_close(found, torch.tensor([-(first + last * second)]))


def test_flat_attention_takes_the_weights_of_the_model_with_as_many_heads() -> None:
    rows = torch.zeros(1, 9, 3, 2)  # nine blocks: the last weight stands for two more
    trace = a_trace(tuple(a_gate([True, True]) for _ in range(9)), cls_attention=rows)
    per_block = 3 * 2 * 0.5**2
    tiny = sum(PUBLISHED_WEIGHTS[3]) + 2 * 0.01
    torch.testing.assert_close(
        FlatAttention(None)(trace, goal()), torch.tensor([-tiny * per_block])
    )


def test_flat_attention_of_the_code_counts_dropped_patches_too() -> None:
    rows = torch.tensor([[[[0.4, 0.2, 0.2, 0.1]], [[0.5, 0.25, 0.25, 0.0]]]])
    gates = (a_gate([True] * 4), a_gate([True, True, True, False]))
    found = PaddedFlatAttention((1.0, 0.5))(a_trace(gates, cls_attention=rows), goal())
    first = 0.15**2 + 2 * 0.05**2 + 0.15**2
    second = 0.25**2 + 0.0 + 0.25**2
    torch.testing.assert_close(found, torch.tensor([-(first + 0.5 * second)]))


@pytest.mark.parametrize(("loss", "sign"), [(long_ponder, 1), (long_ponder_near_prior, -1)])
def test_long_ponder(loss: Callable[[Trace, Goal], Tensor], sign: int) -> None:
    halting = torch.tensor([[[0.05, 0.15], [0.1, 0.3], [0.2, 0.0]]])
    trace = a_trace(halting=halting, ponder=torch.tensor([[3.5, 2.5]]))
    bell = [exp(-2), exp(-0.5), 1.0]  # around block 2 of 0, 1, 2
    prior = [0.98 * b / (bell[0] + bell[1]) for b in bell]
    scores = [0.25, 0.5, 0.25]
    divergence = sum(p * log(p / h) for p, h in zip(prior, scores, strict=True))
    expected = 5e-4 * 3.0 + sign * 1e-3 * divergence / 3
    torch.testing.assert_close(loss(trace, goal()), torch.tensor([expected]))


def test_the_prior_of_twelve_blocks_is_that_of_a_vit() -> None:
    prior = halting_prior(12)
    assert prior.argmax() == 8
    assert prior[:8].sum() == pytest.approx(0.98)


def test_full_policies() -> None:
    means = [4.0 / 6, 1.5 / 4, 2.5 / 4]
    found = full_policies(a_trace(**POLICIES), goal())
    torch.testing.assert_close(found, torch.tensor([sum(mean**2 for mean in means)]))
    alone = full_policies(a_trace(token_policy=POLICIES["token_policy"]), goal())
    torch.testing.assert_close(alone, torch.tensor([means[0] ** 2]))


@pytest.mark.parametrize(
    ("attention", "mlp", "heads"),
    [
        ([True, True], [True, True], 1.5 / 4),
        ([True, False], [True, False], 1.5 / 2),  # the heads of block 1 alone
        ([False, False], [True, False], 1.5 / 2),  # which computes its MLP
        ([True, False], [False, True], 1.5 / 4),
        ([False, False], [False, False], 0.0),
    ],
)
def test_full_policies_of_the_code(attention: list[bool], mlp: list[bool], heads: float) -> None:
    gates = tuple(
        a_gate([on], f"blocks.{block}.{kind}")
        for kind, ons in (("attention", attention), ("mlp", mlp))
        for block, on in enumerate(ons, 1)
    )
    found = full_masked_policies(a_trace(gates, **POLICIES), goal())
    expected = 2 * ((4.0 / 6) ** 2 + heads + 2.5 / 4)
    torch.testing.assert_close(found, torch.tensor([expected]), rtol=1e-5, atol=1e-5)


def test_full_policies_of_the_code_where_no_block_can_be_off() -> None:
    known = {kind: POLICIES[kind] for kind in ("token_policy", "head_policy")}
    found = full_masked_policies(a_trace(**known), goal())
    torch.testing.assert_close(found, torch.tensor([2 * ((4.0 / 6) ** 2 + 1.5 / 4)]))


def test_which_loss_is_taken() -> None:
    for source in ("paper", "code"):
        losses = slowformer_loss(source, (1.0,)).losses
        assert losses.keys() == {"cls_attention", "ponder", "token_policy"}
    assert slowformer_loss("paper", None).losses["ponder"] is long_ponder
    assert slowformer_loss("code", None).losses["ponder"] is long_ponder_near_prior
    with pytest.raises(UsageError, match="unknown loss of SlowFormer 'papr': did you mean paper"):
        slowformer_loss("papr", None)


# QuantAttack


def test_near_outliers() -> None:
    column = torch.tensor([1.0, -6.0, 3.0, 5.0, 2.5, 8.0])  # top 4: 8, 6, 5, 3; 8 is beyond
    still = torch.tensor([0.5, 0.1, 0.0, 0.0, 0.0, 0.0])
    aux = {
        "a.columns.inputs": torch.stack([column, still], 1)[None],
        "b.columns.inputs": torch.stack([still, 4 * still], 1)[None],  # nothing above 2
        "c.columns.inputs": torch.full((1, 3, 1), 4.0),  # a shape of its own
    }
    trace = a_trace(**aux)._replace(logits=torch.tensor([[0.2, 0.0]]))
    found = NearOutliers()(trace, goal())
    first = (64**2 + 65**2 + 67**2) / 3
    torch.testing.assert_close(found, torch.tensor([-(first + 66**2 + 50 * 0.2**2 / 2)]))


@pytest.mark.parametrize("band", [(3.0, 3.0), (-1.0, 7.0)])
def test_a_band_that_is_none(band: tuple[float, float]) -> None:
    with pytest.raises(UsageError, match=r"band = .*around the threshold"):
        NearOutliers(*band)


def test_warm_restarts() -> None:
    size = cosine_restarts(2.0, 1.0, cycles=3)
    assert [size(k / 6) for k in range(6)] == pytest.approx([2.0, 1.5] * 3)


# all of them


@pytest.mark.parametrize(
    "loss",
    [
        late_halting,
        open_policies,
        long_ponder,
        long_ponder_near_prior,
        full_policies,
        full_masked_policies,
    ],
)
def test_a_batch_is_as_good_as_its_images(loss: Callable[[Trace, Goal], Tensor]) -> None:
    torch.manual_seed(0)
    aux = {name: torch.rand(3, 4, 5) for name in (*POLICIES, "halting", "cumulative")}
    aux |= {"live": torch.rand(3, 4, 5) > 0.5, "ponder": torch.rand(3, 5)}
    together = loss(a_trace(**aux), goal(3))
    for index in range(3):
        part = {name: value[index : index + 1] for name, value in aux.items()}
        torch.testing.assert_close(loss(a_trace(**part), goal())[0], together[index])
