"""Language models of ``transformers`` as victims: ``wrap(model, tokenizer, cap=...)``.

Llama, Qwen 2 and GPT-2 are opened: their texts are those of ``generate(do_sample=False)``, token by
token, their work is stated in closed form, and gradients reach their prompts. What is of another
architecture stays shut: an :class:`~effattack.Opaque` that calls ``generate``, its MACs counted.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from effattack.domains.tokens import PAD, Tokens
from effattack.errors import UsageError
from effattack.models_zoo.generation.decoder import CausalNetwork, Memory
from effattack.models_zoo.generation.generator import Generator, Template
from effattack.models_zoo.generation.price import Price
from effattack.tasks import Text
from effattack.victim import Opaque, Victim

OPENED = ("llama", "qwen2", "gpt2")
"""Architectures, as their configuration names them."""
USER = "{user}"
"""Where a template has the user's part."""
CHANGING: dict[str, Any] = {
    **{"repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "num_beams": 1, "min_length": 0},
    **{"guidance_scale": 1.0, "min_new_tokens": 0},
    **dict.fromkeys(("suppress_tokens", "begin_suppress_tokens", "bad_words_ids", "stop_strings")),
    **dict.fromkeys(("forced_bos_token_id", "forced_eos_token_id", "sequence_bias")),
    **dict.fromkeys(("exponential_decay_length_penalty", "watermarking_config")),
}
"""Settings of ``generate`` under which greedy decoding is another, and what they are without."""

LONGEST = 256
"""Tokens of a user's part, where nothing else is said."""


def wrap(
    model: Any,
    tokenizer: Any,
    *,
    cap: int,
    template: str | None = None,
    longest: int | None = None,
    name: str | None = None,
    data: str | None = None,
) -> Victim:
    """A language model of ``transformers`` as a victim that decodes greedily.

    Args:
        model: a causal language model with its head, in memory.
        tokenizer: its own; it brings the end token, and the template of a chat if it has one.
        cap: most tokens that are written, the end token included (``max_new_tokens``).
        template: what stands around the user's part, with ``{user}`` in its place; by default the
            tokenizer's own chat template, else what it sets before every text.
        longest: most tokens of the user's part; by default 256, or what the context has room for.
        name, data: as of all victims.

    Returns:
        a :class:`~effattack.models_zoo.Generator` of the architectures in ``OPENED``, else an
        ``Opaque``.

    Raises:
        UsageError: for a tokenizer, a template or a cap that are not the model's.
    """
    name = name or type(model).__name__
    ends = _ends(model, tokenizer, name)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > vocabulary:
        raise UsageError(
            f"{name}: the tokenizer has {len(tokenizer)} ids, the model embeds {vocabulary}: give "
            "the model's own tokenizer"
        )
    _expect_plain(model, name)
    around = _template(tokenizer, template, name)
    if longest is None:
        longest = _room(model, len(around) + cap - 1)
    domain = Tokens(
        vocabulary, longest, Words(tokenizer), special=_unwritten(tokenizer, vocabulary)
    )
    model.eval()
    if model.config.model_type in OPENED:
        network = Opened(model)
        return Generator(network, domain, cap=cap, end=ends, template=around, name=name, data=data)
    shut = _Shut(model, around, cap, ends)
    return Opaque(shut, domain=domain, task=Text(cap, ends, domain.tokenizer), name=name, data=data)


def _room(model: Any, taken: int) -> int:
    """Tokens for a user beside those that are taken, where the model tells its context."""
    context = getattr(model.config, "max_position_embeddings", None)
    return LONGEST if context is None else max(1, min(LONGEST, context - taken))


class Words:
    """A tokenizer of ``transformers`` that adds nothing of its own."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def encode(self, text: str) -> list[int]:
        return [int(i) for i in self.tokenizer.encode(text, add_special_tokens=False)]

    def decode(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, clean_up_tokenization_spaces=False))


class Opened(CausalNetwork):
    """The body and the head of a model of ``transformers``.

    Args:
        model: of an architecture in ``OPENED``.

    Raises:
        UsageError: where layers look back over a window only.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, config = model, model.config
        if any(kind != "full_attention" for kind in getattr(config, "layer_types", None) or ()):
            raise UsageError(
                f"{type(model).__name__} has layers that look back over a window: their cache has "
                "no closed form here; set use_sliding_window=False if the deployment does without"
            )
        self.vocabulary = model.get_input_embeddings().weight.shape[0]
        self.context = config.max_position_embeddings
        self.price = _price(model)

    def lift(self, ids: Tensor) -> Tensor:
        return self.model.get_input_embeddings()(ids)

    def read(self, rows: Tensor, memory: Memory = None) -> tuple[Tensor, Memory]:
        from transformers import DynamicCache

        cache = DynamicCache() if memory is None else DynamicCache(ddp_cache_data=memory)
        out = self.model.base_model(inputs_embeds=rows, cache=cache, use_cache=True)
        return out.last_hidden_state, [(layer.keys, layer.values) for layer in cache.layers]

    def draw(self, state: Tensor) -> Tensor:
        return self.model.get_output_embeddings()(state)

    def rows_of(self, memory: Memory, index: Tensor) -> Memory:
        return [(keys[index], values[index]) for keys, values in memory]

    def stored(self, memory: Memory) -> int:
        return sum(kept.numel() * kept.element_size() for pair in memory for kept in pair)


class _Shut(nn.Module):
    """``generate``, prompt by prompt."""

    def __init__(self, model: Any, template: Template, cap: int, ends: tuple[int, ...]) -> None:
        super().__init__()
        self.model, self.template, self.cap, self.ends = model, template, cap, ends

    def forward(self, batch: Tensor) -> Tensor:
        before, after = (torch.tensor(part, dtype=torch.long) for part in self.template)
        found = torch.full((len(batch), self.cap), PAD)
        for row, prompt in zip(found, batch, strict=True):
            ids = torch.cat([before, prompt[prompt != PAD], after])[None].to(self.model.device)
            written = self.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=self.cap,
                eos_token_id=[*self.ends],
                pad_token_id=self.ends[0],
            )[0, ids.shape[1] :]
            row[: len(written)] = written
        return found


def _price(model: Any) -> Price:
    """Every token meets the weights of all layers; rotary angles are no product of matrices."""
    from transformers.pytorch_utils import Conv1D

    config, body = model.config, model.base_model
    layers, heads = config.num_hidden_layers, config.num_attention_heads
    head = getattr(config, "head_dim", None) or config.hidden_size // heads
    kept = (getattr(config, "num_key_value_heads", None) or heads) * head
    matrices = sum(
        part.weight.numel() for part in body.modules() if isinstance(part, nn.Linear | Conv1D)
    )
    draw = model.get_output_embeddings().weight.numel()
    return Price(
        token=matrices,
        pair=2 * layers * heads * head,
        draw=draw,
        cached=2 * layers * kept,
        weights=matrices + draw,
    )


def _ends(model: Any, tokenizer: Any, name: str) -> tuple[int, ...]:
    """The end tokens that the model stops at, the tokenizer's own first.

    Raises:
        UsageError: where the tokenizer's is none of them.
    """
    own, ends = tokenizer.eos_token_id, model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    if own is None or own not in ends:
        raise UsageError(
            f"{name}: the tokenizer ends texts with {own}, the model stops at "
            f"{', '.join(map(str, ends))}: set tokenizer.eos_token to one of the tokens that end "
            "an answer, and model.generation_config.eos_token_id to all of them"
        )
    return tuple(dict.fromkeys([int(own), *map(int, ends)]))


def _expect_plain(model: Any, name: str) -> None:
    """Refuse a model whose own settings make greedy decoding another.

    Raises:
        UsageError: naming the setting.
    """
    for setting, plain in CHANGING.items():
        if (value := getattr(model.generation_config, setting, None)) not in (None, plain):
            raise UsageError(
                f"{name}: generation_config.{setting} = {value} changes what is written: set it to "
                f"{plain}, wrap decodes greedily without it"
            )


def _template(tokenizer: Any, template: str | None, name: str) -> Template:
    """What stands before and behind the user's part.

    Raises:
        UsageError: for a template with no place for it, or two.
    """
    if template is None and getattr(tokenizer, "chat_template", None):
        turns = [{"role": "user", "content": USER}]
        template = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    if template is None:
        return Template(before=tuple(tokenizer.encode("")))
    parts = template.split(USER)
    if len(parts) != 2:
        raise UsageError(
            f"{name}: the template has {len(parts) - 1} places for the user: write {USER} once, "
            "where his part goes"
        )
    words = Words(tokenizer)
    return Template(*(tuple(words.encode(part)) for part in parts))


def _unwritten(tokenizer: Any, vocabulary: int) -> set[int]:
    """Ids that no user writes: special ones, and those that the tokenizer does not know."""
    return {*tokenizer.all_special_ids, *range(len(tokenizer), vocabulary)}
