"""BERT encoders from the files that their authors publish, read without ``transformers``.

A folder holds ``config.json``, ``model.safetensors`` and ``tokenizer.json``, as model hubs have it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from effattack.errors import MissingPackage, UsageError, install
from effattack.models_zoo.text.bert import EPS, Bert
from effattack.models_zoo.text.encoder import Size

CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"
EMBEDDINGS = {
    "words.weight": "word_embeddings.weight",
    "places": "position_embeddings.weight",
    "norm.weight": "LayerNorm.weight",
    "norm.bias": "LayerNorm.bias",
}
"""Part of the encoder -> its name below ``embeddings`` in the file."""
BLOCK = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "out": "attention.output.dense",
    "after_attention": "attention.output.LayerNorm",
    "mlp.0": "intermediate.dense",
    "mlp.2": "output.dense",
    "after_mlp": "output.LayerNorm",
}
"""Part of a block -> its name in the file."""


class WordPieces:
    """The tokenizer of a file, which adds nothing; text is never read as a special token.

    Args:
        path: of ``tokenizer.json``.

    Raises:
        UsageError: if there is none, or it has none of BERT's special tokens.
        MissingPackage: without tokenizers.
    """

    def __init__(self, path: Path) -> None:
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise MissingPackage(f"{path} needs tokenizers: {install('language')}") from error
        try:
            self.tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises no narrower class
            raise UsageError(f"{path} is no tokenizer ({error}): download it again") from error
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self.tokenizer.encode_special_tokens = True
        self.first, self.last, self.unknown = map(self._special, ("[CLS]", "[SEP]", "[UNK]"))
        self.special = sorted(self.tokenizer.get_added_tokens_decoder())

    def __len__(self) -> int:
        return int(self.tokenizer.get_vocab_size())

    def encode(self, text: str) -> list[int]:
        """The ids of a text.

        Raises:
            UsageError: for a word with characters that no piece spells.
        """
        found = self.tokenizer.encode(text, add_special_tokens=False)
        if self.unknown in found.ids:
            first, last = found.offsets[found.ids.index(self.unknown)]
            raise UsageError(
                f"no piece of the vocabulary spells {text[first:last]!r}: leave it out, or write "
                "it otherwise"
            )
        return list(found.ids)

    def decode(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=False))

    def digest(self) -> str:
        """Of the pieces in the order of their ids."""
        words = self.tokenizer.get_vocab()
        return hashlib.sha256("\n".join(sorted(words, key=words.__getitem__)).encode()).hexdigest()

    def _special(self, piece: str) -> int:
        index = self.tokenizer.token_to_id(piece)
        if index is None:
            raise UsageError(
                f"the tokenizer has no {piece}: give the {TOKENIZER} that lies beside the weights "
                "of a BERT"
            )
        return int(index)


def read_bert(folder: str | Path) -> tuple[Bert, WordPieces]:
    """The encoder of a folder, in eval mode, and its tokenizer.

    Raises:
        UsageError: if files are missing or broken, are of another architecture, or the tokenizer's
            vocabulary is not that of the weights.
        MissingPackage: without tokenizers.
    """
    folder = Path(folder)
    for name in (CONFIG, WEIGHTS, TOKENIZER):
        if not (folder / name).is_file():
            raise UsageError(
                f"there is no {folder / name}: give a folder with {CONFIG}, {WEIGHTS} and "
                f"{TOKENIZER}"
            )
    size, words = _size(folder / CONFIG), WordPieces(folder / TOKENIZER)
    if len(words) != size.vocabulary:
        raise UsageError(
            f"{folder / TOKENIZER} has {len(words)} pieces, the weights have {size.vocabulary}: "
            "give the tokenizer that lies beside the weights"
        )
    encoder = Bert(size, words.first, words.last)
    encoder.load_state_dict(_state(folder / WEIGHTS, encoder))
    return encoder.eval(), words


def weights_digest(folder: str | Path) -> str:
    """SHA-256 of a folder's weights, as hubs state it."""
    return hashlib.sha256((Path(folder) / WEIGHTS).read_bytes()).hexdigest()


def _size(path: Path) -> Size:
    try:
        held: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        size = Size(
            vocabulary=held["vocab_size"],
            longest=held["max_position_embeddings"],
            width=held["hidden_size"],
            heads=held["num_attention_heads"],
            hidden=held["intermediate_size"],
            depth=held["num_hidden_layers"],
        )
        kind = held["model_type"], held["hidden_act"], held["layer_norm_eps"]
    except (KeyError, ValueError) as error:
        raise UsageError(f"{path} cannot be read ({error!r}): download it again") from error
    if kind != ("bert", "gelu", EPS):
        raise UsageError(
            f"{path} describes a model of kind {kind[0]!r} with activation {kind[1]!r} and norms "
            f"of {kind[2]}: give a BERT with gelu and norms of {EPS}"
        )
    return size


def _state(path: Path, encoder: Bert) -> dict[str, Tensor]:
    """The state of an encoder, from the file's tensors."""
    try:
        held = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UsageError(f"{path} cannot be read ({error}): download it again") from error
    names = {key: f"embeddings.{name}" for key, name in EMBEDDINGS.items()}
    for block in range(encoder.size.depth):
        for part, name in BLOCK.items():
            for kind in ("weight", "bias"):
                names[f"blocks.{block}.{part}.{kind}"] = f"encoder.layer.{block}.{name}.{kind}"
    kinds = "embeddings.token_type_embeddings.weight"
    if missing := sorted({*names.values(), kinds} - held.keys()):
        raise UsageError(f"{path} has no {missing[0]}: give the weights of a BERT encoder")
    state = {key: held[name].float() for key, name in names.items()}
    state["kind"] = held[kinds][0].float()
    for key, expected in encoder.state_dict().items():
        if state[key].shape != expected.shape:
            raise UsageError(
                f"{path}: {key} has shape {tuple(state[key].shape)}, {CONFIG} says "
                f"{tuple(expected.shape)}: give files of one model"
            )
    return state
