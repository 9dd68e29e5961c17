"""Inputs that are no images: how they are called, and how examples of them are shown."""

from __future__ import annotations

import json
import re
import struct
from typing import Any

import frames
import numpy as np
import other_inputs as others
import pytest
from drawn import Drawn, batches
from hypothesis import given
from markupsafe import escape
from test_html import Page

from effattack.domains import Domain, Parts, Pixels, Series
from effattack.domains.tokens import PAD
from effattack.reporting import card, exporting, lines, markdown, stored
from effattack.reporting.html import render
from effattack.reporting.nouns import INPUT, noun_of, shared_noun
from effattack.reporting.shown import KINDS, kind_of
from effattack.reporting.strips import Pair

HOSTILE = "<b>x</b>"
WORDS_OF_IMAGES = re.compile(r"\bimages?\b|\bpixels?\b", re.IGNORECASE)


@pytest.mark.parametrize("domain", [others.SERIES, others.TOKENS], ids=lambda d: d["kind"])
def test_no_word_of_images_where_there_are_none(domain: dict) -> None:
    evaluated = others.evaluated(domain)
    told = [
        Page(render(*evaluated)).text,
        " ".join(tag.get("aria-label") or "" for tag in Page(render(*evaluated)).all("svg")),
        markdown.summary(*evaluated[1:]),
        card.card(*evaluated),
        "".join(exporting.standalone(figure) for _, figure in exporting.named(*evaluated)),
    ]
    for text in told:
        assert not WORDS_OF_IMAGES.findall(text)
    assert f"MACs per {domain['noun']}" in told[0]


def test_frames_that_name_no_domain_hold_images() -> None:
    assert noun_of({}, "any") == noun_of(frames.meta(), "digits_vit_ats") == ("image", "images")
    assert kind_of({"kind": "pixels", "shape": (3, 8, 8)}) is KINDS["pixels"]


def test_victims_of_several_domains_share_the_word_input() -> None:
    both = others.joined(
        others.evaluated(others.SERIES, "reader"), others.evaluated(others.TOKENS, "writer")
    )
    assert shared_noun(both[2]) == INPUT
    text = Page(render(*both)).text
    assert "MACs per input, mean" in text
    assert "max 3.42 M MACs per series" in text.replace("\u00a0", " ")
    assert "max 3.42 M MACs per prompt" in text.replace("\u00a0", " ")


def test_a_series_is_drawn_from_its_stored_values() -> None:
    levels = others.series(2, attacked=True)
    values = stored.series(levels.tobytes(), others.SERIES)
    assert values is not None
    np.testing.assert_array_equal(values, levels / 128 - 16)
    free = {**others.SERIES, "shape": [1, None], "step": None}
    raw = np.arange(6, dtype="<f4")
    found = stored.series(struct.pack("<i", 6) + raw.tobytes(), free)
    np.testing.assert_array_equal(found, raw[None])


@given(batches())
def test_a_report_reads_what_any_domain_packed(drawn: Drawn) -> None:
    domain, inputs = drawn
    described = json.loads(json.dumps(domain.describe()))
    kind = kind_of(described)
    if kind is None:
        assert domain.shape[0] not in (1, 3), "only images that are neither grey nor RGB"
        return
    for index, raw in enumerate(domain.pack(inputs)):
        expect_same(kind.read(raw, described), domain, inputs[index : index + 1])


def expect_same(read: Any, domain: Domain, one: Any) -> None:
    """What a report reads is the input: levels of images, values of series, ids of prompts."""
    if isinstance(domain, Parts):
        assert list(read) == list(domain.parts)
        for name, part in domain.parts.items():
            expect_same(read[name], part, one[name])
    elif isinstance(domain, Pixels):
        np.testing.assert_array_equal(read, (one[0] * 255).round().numpy())
    elif isinstance(domain, Series):
        np.testing.assert_allclose(read, one[0].numpy(), rtol=1e-6, atol=1e-6)
    else:
        assert read.tolist() == [token for token in one[0].tolist() if token != PAD]


@pytest.mark.parametrize("raw", [b"", b"123", bytes(4 * 127)])
def test_bytes_of_another_size_are_no_series(raw: bytes) -> None:
    assert stored.series(raw, others.SERIES) is None


def test_clean_and_attacked_lines_and_where_reading_stopped() -> None:
    page = Page(render(*others.evaluated(others.SERIES)))
    paths = [tag["d"] for tag in page.all("path") if tag.get("class") == "curve attacked"]
    assert len(paths) == 8, "every stored series, each once"
    assert all(str(path).count("L") == others.LENGTH - 1 for path in paths)
    label = (
        "series 0, clean and attacked; clean: stopped at 32 of 128; attacked: stopped at 80 of 128"
    )
    assert any(tag.get("aria-label") == label for tag in page.all("svg"))
    assert "share read 25 % → 62 %" in page.text.replace("\u00a0", " ")
    rules = [tag for tag in page.all("line") if tag.get("class") == "stop clean"]
    drawn = {tag["x1"] for tag in rules}
    assert drawn == {f"{lines.LEFT + (lines.WIDTH - lines.LEFT - 4) / 4:g}"}


@pytest.mark.parametrize(
    ("decisions", "share"),
    [('{"steps": "1100000"}', 3 / 8), ('{"steps": "1111111"}', 1.0), ('{"exits.0": "1"}', None)],
)
def test_share_read(decisions: str, share: float | None) -> None:
    assert lines.share_read(decisions) == share


def test_a_long_series_keeps_its_spikes() -> None:
    line = np.zeros(50_000)
    line[31_337], line[12_345] = 9.0, -9.0
    pair = Pair(line[None], line[None], {}, {"sample": 0})
    ((shown,),) = lines.show([pair], others.SERIES).examples
    assert len(str(shown.body.__html__())) < 40_000
    ys = [float(y) for y in re.findall(r",([\d.]+)L", shown.body.__html__())]
    assert min(ys) == lines.TOP
    assert max(ys) == lines.TOP + lines.PANEL


def test_changed_tokens_are_marked() -> None:
    source = render(*others.evaluated(others.TOKENS))
    assert '<p class="ids">10 <mark>11</mark> 12 13</p>' in source
    assert '<p class="ids">10 <mark>999</mark> 12 13 <mark>77</mark></p>' in source


def test_tokens_are_text_where_a_tokenizer_tells_it() -> None:
    words = [f"w{word}" for word in range(1000)]
    words[11] = HOSTILE
    source = render(*others.evaluated({**others.TOKENS, "pieces": words}))
    marked = f"<mark>{escape(HOSTILE)}</mark>"
    assert f'<p class="ids">w10 {marked} w12 w13</p>' in source
    assert '<p class="ids">w10 <mark>w999</mark> w12 w13 <mark>w77</mark></p>' in source
    assert HOSTILE not in source
    assert stored.tokens(struct.pack("<i", 1000), {"pieces": words}) is None


def test_where_each_token_left_stands_below_it() -> None:
    rows, scores, meta = others.evaluated(others.TOKENS)
    for at in rows.index:
        attacked = rows.attack[at] != "clean"
        gates = {"exits.0.tokens": "11001000", "exits.1.tokens": "01001000", "exits.2": "1"}
        rows.at[at, "decisions"] = json.dumps(gates) if attacked else None
    source = render(rows, scores, meta)
    expected = (
        "10<sub>1</sub>",
        "<mark>999</mark><sub>2</sub>",
        "12<sub>0</sub>",
        "13<sub>0</sub>",
    )
    assert " ".join(expected) + " <mark>77</mark><sub>2</sub></p>" in source
    assert '<p class="ids">10 <mark>11</mark> 12 13</p>' in source
    assert "decisions that each token went past" in source


def test_parts_are_shown_one_by_one() -> None:
    page = Page(render(*others.evaluated(others.PARTS)))
    assert len(page.all("img")) >= 3
    for caption in ("picture: clean", "picture: difference", "question: attacked, 5 tokens"):
        assert caption in page.text


def test_lines_of_a_part_take_a_row_above_its_pictures() -> None:
    parts = {"sensor": others.SERIES, "camera": others.IMAGE}
    kind = kind_of({**others.PARTS, "parts": parts})
    clean, attacked = (
        {"sensor": others.series(0, changed), "camera": np.full((3, 32, 32), level, np.uint8)}
        for changed, level in ((False, 9), (True, 8))
    )
    (example,) = kind.show([Pair(clean, attacked, {}, {"sample": 0})], {}).examples
    assert kind.css == "overlaid"
    assert [one.css for one in example] == ["whole", "", "", ""]
    assert kind_of({**others.PARTS, "parts": {"sensor": others.SERIES}}).css == "wide"


def test_pictures_stay_small_beside_words_over_the_whole_row() -> None:
    source = render(*others.evaluated(others.PARTS))
    assert '<div class="strip overlaid">' in source
    words = '<figure class="whole"><p class="ids">'
    assert source.count(words) == source.count('<p class="ids">') > 0
    assert '<figure class="whole"><img' not in source


def test_kept_tokens_of_an_image_stand_below_it_and_mark_no_words() -> None:
    rows, scores, meta = others.evaluated(others.PARTS)
    for at in rows.index[rows["decisions"].notna()]:
        kept = "1" * 3 if rows.attack[at] == "clean" else "1" * 9
        gates = {"picture.tokens": kept.ljust(16, "0"), "exits.0": "1"}
        rows.at[at, "decisions"] = json.dumps(gates)
    source = render(rows, scores, meta)
    text = Page(source).text
    for caption in ("picture: kept, clean", "picture: kept, attacked"):
        assert caption in text
    alts = [str(tag["alt"]) for tag in Page(source).all("img")]
    for name, count in (("clean", 3), ("attacked", 9)):
        about = f"kept, {name}, image 0: tokens kept: picture.tokens {count} of 16"
        assert alts.count(about) == 1
    assert "<sub>" not in source
    assert "decisions that each token went past" not in source


def test_words_of_a_question_show_their_own_decisions() -> None:
    rows, scores, meta = others.evaluated(others.PARTS)
    for at in rows.index[rows["decisions"].notna()]:
        rows.at[at, "decisions"] = json.dumps({"question.tokens": "1101"})
    source = render(rows, scores, meta)
    assert "12<sub>0</sub> 13<sub>1</sub>" in source
    assert "picture: kept" not in Page(source).text


def test_classes_are_called_by_their_names() -> None:
    rows, scores, meta = others.evaluated(others.PARTS)
    rows["label"], rows["clean_prediction"], rows["prediction"] = 2, 0, 1
    meta["victims"]["reader"]["answer"] = {"noun": "class", "names": ["no", HOSTILE]}
    source = render(rows, scores, meta)
    assert f"label 2, predicted no → {HOSTILE}" in Page(source).text, "2 has no name"
    assert HOSTILE not in source


def test_a_kind_that_nobody_can_draw_is_said() -> None:
    domain = {"kind": "graphs", "noun": "graph", "nouns": "graphs", "shape": []}
    assert "Its inputs (graphs) cannot be shown." in Page(render(*others.evaluated(domain))).text


def test_names_are_text_never_markup() -> None:
    rows, scores, meta = others.evaluated(others.SERIES, HOSTILE)
    for frame in (rows, scores):
        frame["attack"] = frame["attack"].replace("Slowdown", HOSTILE)
        frame["family"] = HOSTILE
    rows["label"] = HOSTILE
    rows["prediction"] = HOSTILE
    meta["victims"][HOSTILE]["domain"] = {**others.SERIES, "noun": HOSTILE, "nouns": HOSTILE}
    page = Page(render(rows, scores, meta))
    assert page.text.count(HOSTILE) > 20
    assert "<b>x" not in render(rows, scores, meta)
    assert f"label {HOSTILE}, predicted" in page.text
