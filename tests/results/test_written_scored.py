"""Scores of what is written: tokens, texts that a cap ended, work gained per token sent."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest
import torch
from hand_made import samples
from prompts import CAP, END, Decoder, TokenExits, some_prompts

from effattack import Evaluation, evaluate
from effattack.domains.tokens import PAD, lengths
from effattack.errors import MeasurementError, UsageError
from effattack.models_zoo import Generator
from effattack.models_zoo.generation import sums
from effattack.models_zoo.generation.decoder import Decoder as Network
from effattack.models_zoo.generation.decoder import Sizes
from effattack.results.baselines import Baseline
from effattack.results.cap_sweep import cap_sweep
from effattack.results.caveats import caveats
from effattack.results.changes import compare
from effattack.results.frame import completed
from effattack.results.limits import judge, parse_limit
from effattack.results.scores import score_table

PROMPTS = some_prompts(10)
CLEAN, LONGER = [2.0, 4.0, 6.0, 8.0] * 2, [10.0, 4.0, 6.0, 16.0] * 2
SENT = [3.0, 4.0, 5.0, 6.0] * 2


def rows(attack: str, passes: list[float], **columns: object) -> pd.DataFrame:
    """Eight prompts written after under a cap of 16; each pass costs 100 MACs."""
    macs, clean = [100 * p for p in passes], [100 * p for p in CLEAN]
    frame = samples(attack, clean, macs, 1600.0, threat="suffix", eps=10.0, edits=10)
    counts = {}
    for count, each in (("passes", 1), ("output_tokens", 1), ("moved_bytes", 50)):
        counts[count] = [each * p for p in passes]
        counts[f"clean_{count}"] = [each * p for p in CLEAN]
        counts[f"max_{count}"] = [each * 16.0] * 8
    told = {
        "victim": "decoder",
        "currency": "passes",
        "capped": [p == 16 for p in passes],
        "clean_capped": False,
        "tokens_sent": SENT,
        **counts,
    }
    return frame.assign(**{**told, **columns})


def clean() -> pd.DataFrame:
    return rows("clean", CLEAN).assign(threat="none", eps=0.0, edits=0, tokens_sent=2.0)


def table(*more: pd.DataFrame) -> pd.DataFrame:
    return score_table(pd.concat([clean(), rows("Slowdown", LONGER), *more])).set_index("attack")


def test_a_model_that_never_ends_is_told_as_one() -> None:
    never = {"clean_passes": 16.0, "clean_macs": 1600.0, "clean_capped": True}
    frame = pd.concat([rows(name, [16.0] * 8, **never) for name in ("clean", "Slowdown")])
    frame.loc[frame.attack == "clean", ["threat", "eps", "edits"]] = ["none", 0.0, 0]
    with pytest.raises(MeasurementError, match=r"each of the 8 clean texts \(100 % cap hits\)"):
        judge(score_table(frame), [])


def test_what_a_token_sent_buys() -> None:
    row = table().loc["Slowdown"]
    gained, sent = sum(LONGER) - sum(CLEAN), sum(SENT)
    assert row.amplification_passes == pytest.approx(gained / sent)
    assert row.amplification_macs == pytest.approx(100 * gained / sent)
    assert row.amplification_bytes == pytest.approx(50 * gained / sent)
    assert (row.output_tokens, row.clean_output_tokens) == (9, 5)
    assert table().loc["clean"].amplification_passes == 0


def test_two_of_eight_texts_are_ended_by_the_cap() -> None:
    row = table().loc["Slowdown"]
    assert (row.cap_hit_rate, row.clean_cap_hit_rate) == (0.25, 0)
    assert 0 < row.cap_hit_rate_low < 0.25 < row.cap_hit_rate_high < 1


def test_the_union_counts_a_text_that_any_row_drove_to_the_cap() -> None:
    """Under MACs the dearest row of an input need not be the one that the cap ended."""
    other = rows("DeepSloth", [2.0, 16.0, 2.0, 2.0] * 2, macs=1.0)
    by_macs = pd.concat([clean(), rows("Slowdown", LONGER), other]).assign(currency="macs")
    union = score_table(by_macs).set_index("attack").loc["union"]
    assert union.cap_hit_rate == 0.5
    assert union.macs == pytest.approx(900), "of the second input, the row of four passes"


def test_a_limit_on_the_cap_judges_the_union() -> None:
    scores = table().reset_index()
    (verdict,) = judge(scores, [parse_limit("cap_hit_rate=0.05", fail_below=False)])
    assert not verdict.passed
    assert "cap hit rate is 0.250, above the limit 0.05" in verdict.message
    assert "95 % interval 0.0" in verdict.message
    assert judge(scores, [parse_limit("cap_hit_rate=0.3", fail_below=False)])[0].passed


def test_a_victim_that_does_not_tell_cannot_be_judged_by_its_cap() -> None:
    image = score_table(samples("Slowdown", [20.0] * 8, [60.0] * 8, linf=8 / 255))
    told = ["output_tokens", "cap_hit_rate", "amplification_passes", "amplification_macs"]
    assert image[told].isna().all().all()
    with pytest.raises(MeasurementError, match="does not tell which of its texts a cap ended"):
        judge(image, [parse_limit("cap_hit_rate=0.05", fail_below=False)])


def test_runs_at_the_cap_are_said_to_be_censored() -> None:
    (told,) = [one for one in caveats(table().reset_index(), {}) if "censored" in one]
    assert told.startswith("the cap ended 25% of the texts (0% of the clean ones)")
    short = rows("Slowdown", [9.0] * 8)
    found = caveats(score_table(pd.concat([clean(), short])), {})
    assert not [one for one in found if "censored" in one]


def test_frames_of_earlier_versions_lack_the_columns() -> None:
    frame = completed(samples("Slowdown", [20.0] * 8, [60.0] * 8))
    assert frame[["capped", "clean_capped", "tokens_sent"]].isna().all().all()


def test_a_baseline_keeps_what_the_cap_ended(tmp_path: Path) -> None:
    def evaluation(passes: list[float]) -> Evaluation:
        eight = pd.concat([clean(), rows("Slowdown", passes)], ignore_index=True)
        copies = [eight.assign(sample=eight["sample"] + 8 * copy) for copy in range(5)]
        frame = pd.concat(copies, ignore_index=True)
        about = {"input_shape": [None], "max_macs": 1600.0, "digest": "0", "data": ["0"]}
        return Evaluation(frame, {"schema": 2, "victims": {"decoder": about}})

    path = Baseline.of(evaluation(LONGER)).save(tmp_path / "v1.json")
    before = Baseline.load(path)
    found = compare(evaluation([16.0] * 8), before, "v1").changes
    (change,) = (one for one in found if (one.score, one.attack) == ("cap_hit_rate", "Slowdown"))
    assert (change.before, change.after, change.by.value) == pytest.approx((0.25, 1, 0.75))
    assert change.worse
    path.write_text(path.read_text().replace('"cap_hit_rate"', '"of_another_package"'))
    assert Baseline.load(path).victims["decoder"].series[0].capped == [0] * 40


@pytest.fixture(scope="module")
def written() -> Evaluation:
    victim = Decoder()
    labels = victim.task.answer(victim(PROMPTS))
    return evaluate(victim, PROMPTS, labels, ["noise(threat='suffix:2')"], timed=0)


def test_rows_tell_which_texts_the_cap_ended(written: Evaluation) -> None:
    """Those of as many tokens as the cap whose last is not the end token."""
    rows = written.samples.query("attack == 'noise' and threat == 'suffix' and eps == 2")
    prompts = Decoder().domain.unpack([*rows.image.dropna()], PROMPTS)
    texts = Decoder()(prompts)
    ended = (texts[:, -1] != PAD) & (texts[:, -1] != END)
    assert rows.capped[: len(ended)].tolist() == ended.tolist()
    assert rows.tokens_sent[: len(ended)].tolist() == lengths(prompts).tolist()
    clean = written.samples.query("attack == 'clean'").sort_values("sample")
    assert rows.sort_values("sample").clean_capped.tolist() == clean.capped.tolist()
    assert {True, False} <= {*rows.capped, *clean.capped}


def test_a_classifier_of_prompts_tells_what_a_token_buys_in_macs() -> None:
    victim = TokenExits()
    labels = victim.task.answer(victim(PROMPTS))
    found = evaluate(victim, PROMPTS, labels, ["noise(threat='suffix:2')"], timed=0)
    this = "threat == 'suffix' and eps == 2 and attack == 'noise'"
    row, own = found.scores().query(this).iloc[0], found.samples.query(this)
    sent = (lengths(PROMPTS) + row.eps).sum()
    assert row.amplification_macs == pytest.approx((own.macs - own.clean_macs).sum() / float(sent))
    assert math.isnan(row.amplification_passes)
    assert math.isnan(row.cap_hit_rate)


@pytest.mark.parametrize("cap", range(1, CAP + 1))
def test_a_smaller_cap_needs_no_new_run(cap: int) -> None:
    """The same prompts on a decoder of our own that is built with that cap."""

    torch.manual_seed(0)
    sizes = Sizes(sums.VOCABULARY, width=8, layers=1, heads=2, kv_heads=1, hidden=8, context=64)
    network = Network(sizes).eval()
    data = sums.DOMAIN.draw((12, 4), torch.Generator().manual_seed(0))

    def under(most: int, temperature: float | None) -> tuple[torch.Tensor, torch.Tensor]:
        victim = Generator(
            network, sums.DOMAIN, cap=most, end=sums.END, temperature=temperature, name="small"
        )
        trace = victim.trace(data)
        return trace.also["passes"], trace.aux["capped"]

    for temperature in (None, 2.0):
        passes, capped = under(CAP, temperature)
        assert temperature is None or 0 < capped.sum() < len(data), "else nothing is shown"
        frame = (
            rows("Slowdown", CLEAN)
            .iloc[[0] * len(data)]
            .assign(
                sample=range(len(data)),
                passes=passes.tolist(),
                clean_passes=1.0,
                max_passes=float(CAP),
                capped=capped.tolist(),
            )
        )
        found = cap_sweep(frame, [cap]).query("attack == 'Slowdown'").iloc[0]
        really, ended = under(cap, temperature)
        assert found.passes == pytest.approx(really.mean().item())
        assert found.cap_hit_rate == pytest.approx(ended.double().mean().item())


def test_the_sweep_ends_at_the_cap_of_the_victim(written: Evaluation) -> None:
    sweep = cap_sweep(written.samples)
    assert sorted(sweep.cap.unique()) == [1, 2, 4, CAP]
    scores = written.scores().set_index(["attack", "threat", "eps"])
    for row in sweep[sweep.cap == CAP].itertuples():
        score = scores.loc[(row.attack, row.threat, row.eps)]
        assert (row.passes, row.cap_hit_rate) == (score.work, score.cap_hit_rate)
    for _, one in sweep.groupby(["attack", "threat", "eps"]):
        assert one.sort_values("cap").passes.is_monotonic_increasing
        assert one.sort_values("cap").cap_hit_rate.is_monotonic_decreasing
    with pytest.raises(UsageError, match=f"wrote under a cap of {CAP}.*built with cap=99"):
        cap_sweep(written.samples, [99])
    with pytest.raises(UsageError, match="a cap of 0: give a whole number of at least 1"):
        cap_sweep(written.samples, [0])
    assert cap_sweep(samples("Slowdown", [20.0] * 8, [60.0] * 8)).empty
