"""Models of transformers as victims: their texts are those of ``generate``, and what they cost."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Generator as Draw
from torch import Tensor
from toys import import_or_skip

from effattack.domains.tokens import PAD
from effattack.errors import UsageError
from effattack.models_zoo.generation.generator import Generator
from effattack.models_zoo.generation.wrapping import wrap
from effattack.victim import Opaque, audit
from effattack.victim.checks import INVARIANTS

transformers = import_or_skip("transformers")
tokenizers = import_or_skip("tokenizers")

CAP, LONGEST, CONTEXT = 8, 6, 64
TEXT = "the cat sat on the mat and the dog sat on the log 0 1 2 3 4 5 6 7 8 9 what is that"
CHAT = "{% for m in messages %}<user>{{ m['content'] }}{% endfor %}<reply>"
TINY = {"vocab_size": 300, "initializer_range": 0.5}
LLAMA = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT,
}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {**LLAMA, "num_key_value_heads": 2}),
    "llama, tied": ("Llama", {**LLAMA, "num_key_value_heads": 4, "tie_word_embeddings": True}),
    "qwen2": ("Qwen2", {**LLAMA, "num_key_value_heads": 1}),
    "gpt2": ("GPT2", {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT}),
}

every_architecture = pytest.mark.parametrize("kind", CONFIGS)
both_attentions = pytest.mark.parametrize("attention", ["eager", "sdpa"])


@cache
def tokenizer(chat: bool = False) -> Any:
    """Byte-level, made here."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=280,
        special_tokens=["<end>", "<user>", "<reply>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator([TEXT], trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made,
        eos_token="<end>",
        extra_special_tokens=["<user>", "<reply>"],
        chat_template=CHAT if chat else None,
    )


def model(kind: str, attention: str = "sdpa", **settings: Any) -> Any:
    family, config = CONFIGS[kind]
    made = getattr(transformers, f"{family}Config")(
        **{**TINY, **config, "eos_token_id": 0, "bos_token_id": None, **settings},
        attn_implementation=attention,
    )
    torch.manual_seed(1)
    head = {"GPT2": "GPT2LMHeadModel"}.get(family, f"{family}ForCausalLM")
    found = getattr(transformers, head)(made).eval()
    with torch.no_grad():
        found.get_output_embeddings().weight[0] *= 3
    return found


def prompts(count: int, seed: int = 0) -> Tensor:
    draw = Draw().manual_seed(seed)
    ids = torch.randint(3, 280, (count, LONGEST), generator=draw)
    sizes = torch.randint(1, LONGEST + 1, (count, 1), generator=draw)
    return ids.masked_fill(torch.arange(LONGEST) >= sizes, PAD)


def wrapped(kind: str, attention: str = "sdpa", **settings: Any) -> Generator:
    made = wrap(model(kind, attention), tokenizer(), cap=CAP, longest=LONGEST, **settings)
    assert isinstance(made, Generator)
    return made


def generated(victim: Generator, prompt: Tensor) -> list[int]:
    """By the library's own loop."""
    own = prompt[prompt != PAD].tolist()
    ids = torch.tensor([[*victim.template.before, *own, *victim.template.after]])
    written = victim.network.model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=CAP,
        pad_token_id=0,
    )
    return written[0, ids.shape[1] :].tolist()


@pytest.mark.slow
@every_architecture
@both_attentions
def test_texts_are_those_of_generate(kind: str, attention: str) -> None:
    victim, asked = wrapped(kind, attention), prompts(20)
    written = victim(asked)
    texts = [row[row != PAD].tolist() for row in written]
    assert texts == [generated(victim, prompt) for prompt in asked]
    assert len(set(map(len, texts))) > 2, "some end early, some late"


@pytest.mark.slow
@every_architecture
@both_attentions
def test_declared_work_is_executed_work(kind: str, attention: str) -> None:
    victim, asked = wrapped(kind, attention), prompts(6, seed=1)
    found, trace = audit(victim, asked), victim.trace(asked)
    assert torch.equal(found.macs, trace.macs)
    assert torch.equal(found.counts["cache_bytes"], trace.also["cache_bytes"])
    assert len(found.counts["passes"].unique()) > 1


@pytest.mark.slow
@every_architecture
def test_every_invariant_holds(kind: str) -> None:
    victim = wrapped(kind, template="that is {user}?")
    for check in INVARIANTS:
        check(victim, prompts(4))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen2"])
def test_each_of_several_end_tokens_ends_a_text_as_in_generate(kind: str) -> None:
    asked = prompts(20)
    written = wrapped(kind)(asked)
    common = int(written[written > 0].mode().values)
    made = wrap(model(kind, eos_token_id=[common, 0]), tokenizer(), cap=CAP, longest=LONGEST)
    assert isinstance(made, Generator)
    assert made.choice.ends == (0, common)
    texts = [row[row != PAD].tolist() for row in made(asked)]
    assert texts == [generated(made, prompt) for prompt in asked]
    assert {0, common} <= {text[-1] for text in texts}
    found, trace = audit(made, asked[:4]), made.trace(asked[:4])
    assert torch.equal(found.macs, trace.macs)


def test_the_price_of_a_llama_is_known() -> None:
    """Grouped keys of width 8 beside queries of 16."""
    layer = 16 * (16 + 2 * 8) + 16 * 16 + 3 * 16 * 24
    price = wrapped("llama").network.price
    assert price.token == 2 * layer
    assert (price.pair, price.draw, price.cached) == (2 * 2 * 16, 16 * 300, 2 * 2 * 8)


def test_a_chat_template_is_the_default() -> None:
    made = wrap(model("llama"), tokenizer(chat=True), cap=CAP, longest=LONGEST)
    assert isinstance(made, Generator)
    assert made.template == ((1,), (2,))
    assert not made.domain.allowed()[[0, 1, 2, 280, 299]].any()


@pytest.mark.parametrize(("context", "longest"), [(64, 64 - 2 - CAP + 1), (2048, 256)])
def test_users_have_the_room_that_the_context_leaves(context: int, longest: int) -> None:
    sized = model("llama", max_position_embeddings=context)
    assert wrap(sized, tokenizer(chat=True), cap=CAP).domain.longest == longest


def test_other_architectures_stay_shut() -> None:
    shut = transformers.GPTNeoXForCausalLM(
        transformers.GPTNeoXConfig(**TINY, **LLAMA, eos_token_id=0, bos_token_id=None)
    ).eval()
    victim = wrap(shut, tokenizer(), cap=4, longest=LONGEST)
    assert isinstance(victim, Opaque)
    found = audit(victim, prompts(3))
    assert (found.macs > 0).all()
    assert found.logits.shape[1] == 4


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"template": "you are kind"}, "the template has 0 places for the user"),
        ({"template": "{user}{user}"}, "the template has 2 places for the user"),
        ({"cap": 0}, "cap = 0: give a whole number"),
        ({"cap": CONTEXT}, "need a context of 69, the network has 64"),
    ],
)
def test_what_does_not_fit_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        wrap(model("llama"), tokenizer(), **{"cap": CAP, "longest": LONGEST, **settings})


def test_a_model_that_ends_otherwise_is_refused() -> None:
    with pytest.raises(UsageError, match="ends texts with 0, the model stops at 5: set"):
        wrap(model("llama", eos_token_id=5), tokenizer(), cap=CAP)


def test_a_tokenizer_whose_end_is_none_of_several_is_refused() -> None:
    with pytest.raises(UsageError, match="ends texts with 0, the model stops at 5, 7: set"):
        wrap(model("llama", eos_token_id=[5, 7]), tokenizer(), cap=CAP)


def test_a_tokenizer_of_another_vocabulary_is_refused() -> None:
    with pytest.raises(UsageError, match="the tokenizer has 280 ids, the model embeds 20"):
        wrap(model("llama", vocab_size=20), tokenizer(), cap=CAP)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("repetition_penalty", 1.1), ("min_new_tokens", 4), ("suppress_tokens", [3])],
)
def test_settings_that_change_greedy_decoding_are_refused(setting: str, value: object) -> None:
    made = model("qwen2")
    setattr(made.generation_config, setting, value)
    with pytest.raises(UsageError, match=f"{setting} = .* changes what is written"):
        wrap(made, tokenizer(), cap=CAP)
