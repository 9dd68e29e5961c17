"""Victims of prompts and of counted work: what the door hands them, what their checks refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from prompts import CAP, CLASSES, LONGEST, VOCABULARY, Counted, Decoder, TokenExits, some_prompts
from torch import Tensor, nn
from toys import LinearSaver, grey_images

import effattack
from effattack.counting.macs import MacsCounter
from effattack.counting.tallies import Count
from effattack.domains import Batch, Parts, PartsBatch, Pixels, Tokens
from effattack.domains.tokens import PAD, lengths
from effattack.errors import AuditError, ContractError, GradientError, UsageError
from effattack.tasks import Boxes, Classes
from effattack.victim import Opaque, Trace, Victim, audit
from effattack.victim import checks as contract
from effattack.victim.checks import INVARIANTS, beside_noise
from effattack.victim.leaf import Leaf
from effattack.victim.rounding import on_knife_edge
from effattack.victim.undisturbed import glance

Edit = Callable[[Trace], Trace]


def inputs(victim: Victim, count: int = 8) -> Batch:
    if victim.domain.kind == "tokens":
        return some_prompts(count, seed=1)
    noise = torch.rand((count, *victim.input_shape), generator=torch.Generator().manual_seed(1))
    return victim.domain.snap(noise)


VICTIMS: dict[str, Callable[[], Victim]] = {
    "token classifier": TokenExits,
    "decoder": Decoder,
    "counted": Counted,
}


@pytest.mark.parametrize("name", VICTIMS)
@pytest.mark.parametrize("check", INVARIANTS, ids=lambda check: check.__name__)
def test_victims_of_other_kinds_keep_the_contract(name: str, check: contract.Check) -> None:
    victim = VICTIMS[name]()
    batch = beside_noise(inputs(victim), 16, victim.domain)
    assert check(victim, batch) == []


def test_the_toys_decide() -> None:
    """Else their contract would hold of nothing."""
    exits = audit(TokenExits(), inputs(TokenExits(), 30))
    assert len(set(exits.macs.tolist())) > 2
    written = audit(Decoder(seed=4), inputs(Decoder(), 30)).counts["passes"]
    assert len(set(written.tolist())) > 1
    assert (written <= 6).all()


# caps


class Unstopped(Decoder):
    """Told of no end: on long prompts it writes two words more than it declares."""

    def write(self, prompt: Tensor) -> Tensor:
        written = super().write(prompt)
        long = prompt.shape[1] == self.domain.longest
        return torch.cat([written, written[:, :2]], dim=1) if long else written


class Busy(Decoder):
    """Its answers are cut at the cap; the work for them, on long prompts, is not."""

    def write(self, prompt: Tensor) -> Tensor:
        for _ in range(7 * (prompt.shape[1] == self.domain.longest)):
            effattack.tally("passes")
        return super().write(prompt)

    def trace(self, batch: Batch, leaf: Leaf | None = None) -> Trace:
        trace = super().trace(batch, leaf)
        more = 7.0 * (lengths(batch) == self.domain.longest)
        return trace._replace(also={"passes": trace.also["passes"] + more})


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Unstopped, "as long as it can be, is answered with 8 rows, .* a cap of 6"),
        (Busy, "more than its ceiling"),
    ],
)
def test_a_cap_holds_on_the_longest_prompts(kind: type[Decoder], message: str) -> None:
    """On the short ones of the batch both write what they declare."""
    short = inputs(kind(), 8)[:, :3]
    assert contract.check_macs(kind(), short) == []
    with pytest.raises(ContractError, match=message):
        contract.check_caps(kind(), short)


def test_the_cap_of_boxes_holds() -> None:
    victim = Decoder()
    victim.task = Boxes(cap=CAP - 1)
    with pytest.raises(ContractError, match=f"is answered with {CAP} rows, .* a cap of {CAP - 1}"):
        contract.check_caps(victim, inputs(victim))


def test_stretched_prompts_are_the_same_words_over_and_over() -> None:
    prompts = torch.tensor([[1, 2, 3, PAD], [4, PAD, PAD, PAD]])
    assert Tokens(9, 7).stretched(prompts).tolist() == [[1, 2, 3, 1, 2, 3, 1], [4] * 7]
    assert torch.equal(Pixels((1, 2, 2)).stretched(grey_images(2)), grey_images(2))


# the door


def test_ids_are_no_floats_at_any_door() -> None:
    seen: list[torch.dtype] = []

    class Looks(TokenExits):
        def forward(self, batch: Tensor) -> Tensor:
            seen.append(batch.dtype)
            return super().forward(batch)

    victim = Looks()
    for each, answers in ((victim, torch.float32), (victim.in_float64(), torch.float64)):
        assert each is not None
        assert each(inputs(victim)).dtype == answers
        assert each.trace(inputs(victim)).logits.dtype == answers
    assert set(seen) == {torch.int64}


def test_half_precision_answers_prompts_in_float32() -> None:
    victim = TokenExits().bfloat16()
    trace = victim.trace(inputs(victim))
    assert (trace.logits.dtype, trace.dtype) == (torch.float32, torch.bfloat16)


def test_ids_of_another_shape_are_refused() -> None:
    with pytest.raises(UsageError, match=r"token_exits got prompts of shape \(4,\): give at least"):
        TokenExits()(torch.zeros(4, dtype=torch.long))


def test_the_door_copies_every_part() -> None:
    class Both(Victim):
        def forward(self, batch: PartsBatch) -> Tensor:
            assert batch["question"].dtype == torch.int64
            batch["question"][:] = 0
            return batch["image"].flatten(1)[:, :2]

        def trace(self, batch: PartsBatch) -> Trace:
            return Trace(self.forward(batch), (), torch.ones(len(batch)).double())

    domain = Parts(image=Pixels((1, 2, 2)), question=Tokens(VOCABULARY, LONGEST))
    victim = Both(name="both", family="none", domain=domain, task=Classes(2), max_macs=1.0)
    batch = victim.example(3)
    before = batch["question"].clone()
    assert victim(batch).shape == (3, 2)
    assert glance(victim).logits.shape == (1, 2)
    assert torch.equal(batch["question"], before)
    told = contract.check_declared(victim, batch)
    assert told == ["both: trace and forward wrote into its input: copies were given"]
    with pytest.raises(UsageError, match=r"both got inputs of .*as in victim\.example\(1\)"):
        victim(batch["image"])
    with pytest.raises(UsageError, match=r"of shape image \(3, 3, 2, 2\), question \(3, 4\): give"):
        victim(batch.replaced(image=torch.zeros(3, 3, 2, 2), question=torch.ones(3, 4).long()))


def test_alone_a_prompt_has_no_padding() -> None:
    widths: list[int] = []

    class Looks(TokenExits):
        def forward(self, batch: Tensor) -> Tensor:
            widths.append(batch.shape[1])
            return super().forward(batch)

    prompts = torch.tensor([[1, 2, 3], [4, PAD, PAD]])
    audit(Looks(), prompts)
    assert set(widths) == {3, 1}


def test_an_opaque_model_of_prompts() -> None:
    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.head = nn.Embedding(VOCABULARY, 4), nn.Linear(4, CLASSES)

        def forward(self, ids: Tensor) -> Tensor:
            known = (ids != PAD)[:, :, None]
            return self.head((self.words(ids.clamp_min(0)) * known).sum(1) / known.sum(1))

    victim = Opaque(Mean(), domain=Tokens(VOCABULARY, LONGEST), name="mean")
    assert (victim.num_classes, victim.sees, victim.in_float64()) == (CLASSES, "answers", None)
    assert [check(victim, inputs(victim)) for check in INVARIANTS] == [[]] * len(INVARIANTS)


# what a victim says of itself


def bare(**settings: Any) -> Victim:
    return Victim(name="bare", family="none", **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_classes": 2}, "bare: input_shape and domain are missing: give one"),
        ({"input_shape": (1, 4, 4)}, "bare: num_classes and task are missing: give one"),
        (
            {"input_shape": (1, 4, 4), "domain": Pixels((1, 4, 4)), "num_classes": 2},
            "input_shape and domain say the same: give one of them",
        ),
        (
            {"input_shape": (1, 4, 4), "num_classes": 2, "currency": "passes"},
            r"bare: currency = 'passes' is no audited count: give 'macs' or one of \[\]",
        ),
        (
            {
                "input_shape": (1, 4, 4),
                "num_classes": 2,
                "currency": "guessed",
                "counts": {"guessed": Count("guess", len, audited=False)},
            },
            "is no audited count",
        ),
    ],
)
def test_what_is_said_twice_or_not_at_all(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        bare(**settings)


def test_an_author_of_images_says_no_domain_and_no_task() -> None:
    victim = bare(input_shape=(3, 8, 6), num_classes=5)
    assert (victim.domain.kind, victim.input_shape) == ("pixels", (3, 8, 6))
    assert (type(victim.task), victim.num_classes) == (Classes, 5)


def test_the_max_may_be_declared_later() -> None:
    victim = bare(input_shape=(1, 4, 4), num_classes=2)
    with pytest.raises(ContractError, match=r"bare: max_macs was never declared: give it"):
        victim.ceiling(grey_images(3))
    victim.max_macs = 7
    assert victim.ceiling(grey_images(3)).tolist() == [7.0, 7.0, 7.0]


def test_ceilings_by_name() -> None:
    victim = Decoder()
    assert victim.ceiling(inputs(victim, 3), "passes").tolist() == [6.0, 6.0, 6.0]
    with pytest.raises(UsageError, match=r"'pases'.*passes"):
        victim.ceiling(inputs(victim, 3), "pases")
    assert (
        victim.spent(victim.trace(inputs(victim, 3))).tolist()
        == audit(victim, inputs(victim, 3)).counts["passes"].tolist()
    )


# counts


def with_trace(kind: type[Victim], edit: Edit) -> Victim:
    class Edited(kind):  # type: ignore[misc, valid-type]
        def trace(self, batch: Batch) -> Trace:
            return edit(super().trace(batch))

    return Edited()


def test_counts_are_what_was_told() -> None:
    victim, images = Counted(), inputs(Counted())
    found = audit(victim, images)
    assert found.counts["boxes"].tolist() == (images > 0.5).flatten(1).sum(1).tolist()
    assert set(found.macs.tolist()) == {18.0}


def test_a_wrong_count_is_refused() -> None:
    victim = with_trace(Counted, lambda t: t._replace(also={"boxes": t.also["boxes"] + 1}))
    with pytest.raises(AuditError, match=r"counted: image 0: trace declares \d boxes, .* \(\+1\)"):
        audit(victim, inputs(victim))


@pytest.mark.parametrize(
    ("also", "message"),
    [
        ({}, r"trace\(\).also has \[\], the victim counts \['boxes'\]"),
        ({"boxes": 3}, r"trace\(\).also\['boxes'\] is no tensor"),
        ({"boxes": torch.zeros(8)}, r"also\['boxes'\] is \(8,\) torch.float32"),
        ({"boxes": torch.zeros(8).double(), "more": torch.zeros(8)}, r"\['boxes', 'more'\]"),
    ],
)
def test_counts_have_their_form(also: dict[str, Any], message: str) -> None:
    victim = with_trace(Counted, lambda t: t._replace(also=also))
    with pytest.raises(ContractError, match=message):
        contract.check_declared(victim, inputs(victim))


def test_a_count_that_is_left_out_is_refused() -> None:
    victim = with_trace(Counted, lambda t: t._replace(also={}))
    with pytest.raises(ContractError, match="also leaves out boxes"):
        audit(victim, inputs(victim))


def test_a_tally_that_nobody_declared_is_refused() -> None:
    class Tells(LinearSaver):
        def forward(self, images: Tensor) -> Tensor:
            effattack.tally("tokens", 3)
            return super().forward(images)

    with pytest.raises(ContractError, match="toy: forward tallies tokens, which is no audited"):
        audit(Tells(), grey_images(2))
    assert Tells()(grey_images(2)).shape == (2, 2), "free while nobody audits"


def test_what_is_not_audited_is_the_word_of_the_trace() -> None:
    victim = with_trace(Counted, lambda t: t._replace(also={**t.also, "guess": 2 * t.macs}))
    victim.counts["guess"] = Count("guess", lambda batch: torch.full((len(batch),), 99.0), False)
    assert set(audit(victim, inputs(victim)).counts["guess"].tolist()) == {36.0}


def test_a_tally_is_no_work() -> None:
    flags, product = torch.rand(3, 4) > 0.5, torch.rand(3, 4)
    with MacsCounter() as counter:
        effattack.tally("boxes", flags)
        effattack.tally("boxes")
        effattack.tally("sum", product * 2)
        assert counter.elementwise == 12, "the product alone"
    assert counter.tallies == {
        "boxes": int(flags.sum()) + 1,
        "sum": pytest.approx(2 * product.sum().item()),
    }
    assert counter.total == 0


# ceilings


def test_an_input_above_its_own_ceiling_is_refused() -> None:
    class Low(TokenExits):
        def ceiling(self, batch: Tensor, count: str = "macs") -> Tensor:
            return super().ceiling(batch, count) - 16

    with pytest.raises(ContractError, match=r"prompt \d+ took .* macs, 16 more than its ceiling"):
        contract.check_macs(Low(), inputs(Low()))


def test_counts_have_ceilings_too() -> None:
    victim = Counted()
    victim.counts["boxes"] = Count("box", lambda batch: torch.ones(len(batch)))
    with pytest.raises(ContractError, match=r"image \d took .* boxes, .* more than its ceiling"):
        contract.check_macs(victim, inputs(victim))


def test_a_ceiling_above_the_worst_case_is_refused() -> None:
    class High(TokenExits):
        def ceiling(self, batch: Tensor, count: str = "macs") -> Tensor:
            return super().ceiling(batch, count) + 1000

    with pytest.raises(ContractError, match=r"prompt 0 has a ceiling of .* above max_macs"):
        contract.check_macs(High(), inputs(High()))


# slack and leaf


def test_slack_makes_a_knife_edge() -> None:
    """A tie that no gate shows: which word, which box."""
    images = grey_images(3)
    slack = torch.tensor([1.0, 1e-6, 0.5])
    plain = LinearSaver().trace(images)
    assert not on_knife_edge(plain).any()
    assert on_knife_edge(plain._replace(slack=slack)).tolist() == [False, True, False]

    def off_by_one(tie: float) -> Victim:
        def edit(trace: Trace) -> Trace:
            slack = torch.full((len(trace.macs),), tie)
            return trace._replace(macs=trace.macs + 1, slack=slack)

        victim = with_trace(LinearSaver, edit)
        victim.in_float64 = lambda: None  # type: ignore[method-assign]
        return victim

    found = audit(off_by_one(1e-6), images)
    assert found.knife_edge.all()
    assert torch.equal(found.macs, plain.macs), "what forward did stands"
    with pytest.raises(AuditError):
        audit(off_by_one(0.1), images)


def test_the_leaf_owes_gradients() -> None:
    class Deaf(TokenExits):
        def read(self, batch: Tensor, leaf: Leaf | None) -> Tensor:
            return super().read(batch, None)

    with pytest.raises(GradientError, match="no gradient from the logits reaches the leaf"):
        contract.check_gradients(Deaf(), inputs(Deaf()))


def test_the_leaf_changes_no_decision() -> None:
    class Louder(TokenExits):
        def lift(self, batch: Tensor, places: Tensor) -> Leaf:
            leaf = super().lift(batch, places)
            return leaf._replace(rows=3 * leaf.rows)

    with pytest.raises(GradientError, match=r"prompt \d+: with lift\(\) and without"):
        contract.check_gradients(Louder(), inputs(Louder()))


def test_who_lifts_no_words_has_no_gradients() -> None:
    class Plain(TokenExits):
        lift = Victim.lift

    assert contract.check_gradients(Plain(), inputs(Plain())) == []
    with pytest.raises(ContractError, match="Plain lifts no words: implement lift"):
        Plain().lift(inputs(Plain()), torch.zeros(8, 1).long())
