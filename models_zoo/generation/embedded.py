"""The generators that come trained: name -> factory. Their prompts are made by rule.

Each is registered as an entry point of the group ``effattack.victims``. With ``trained=False`` a
factory builds what its recipe starts from.
"""

from __future__ import annotations

from effattack.models_zoo.files import with_weights
from effattack.models_zoo.generation import dates, sums, thoughts
from effattack.models_zoo.generation.decoder import Decoder, Sizes
from effattack.models_zoo.generation.encoder_decoder import EncoderDecoder
from effattack.models_zoo.generation.generator import Generator, Template
from effattack.models_zoo.generation.reasoner import Reasoner
from effattack.models_zoo.generation.translator import Translator

SUMS = Sizes(sums.VOCABULARY, width=64, layers=3, heads=4, kv_heads=2, hidden=128, context=128)
DATES = Sizes(dates.VOCABULARY, width=64, layers=2, heads=4, kv_heads=2, hidden=128, context=40)
"""Of the side that reads; the one that writes has digits and signs alone."""
ISO = DATES._replace(vocabulary=dates.WRITTEN, context=32)
THOUGHTS = SUMS._replace(vocabulary=thoughts.VOCABULARY)


def sums_lm(trained: bool = True) -> Generator:
    """A decoder that adds and sorts, and writes its steps; it may write 48 tokens."""
    name = "sums_lm"
    victim = Generator(
        Decoder(SUMS),
        sums.DOMAIN,
        cap=48,
        end=sums.END,
        template=Template(after=tuple(sums.Characters().encode(sums.ASK))),
        name=name,
        data="effattack.models_zoo.generation.sums:scored_prompts",
    )
    victim.long_request = sums.longest_answered()
    with_weights(victim.network, name, trained)
    return victim


def dates_translator(trained: bool = True) -> EncoderDecoder:
    """An encoder-decoder that writes dates in words as ISO 8601; it may write 32 tokens."""
    name = "dates_translator"
    victim = EncoderDecoder(
        Translator(DATES, ISO),
        dates.DOMAIN,
        cap=32,
        end=dates.END,
        name=name,
        data="effattack.models_zoo.generation.dates:scored_prompts",
    )
    with_weights(victim.network, name, trained)
    return victim


def sums_reasoner(trained: bool = True) -> Reasoner:
    """A decoder that works out all that it reads, between marks, and answers the last of it; its
    chain may take 40 tokens, and an answer 8."""
    name = "sums_reasoner"
    victim = Reasoner(
        Decoder(THOUGHTS),
        thoughts.DOMAIN,
        budget=thoughts.BUDGET,
        answer_cap=thoughts.ANSWER,
        marks=thoughts.MARKS,
        end=sums.END,
        name=name,
        data="effattack.models_zoo.generation.thoughts:scored_prompts",
    )
    with_weights(victim.network, name, trained)
    return victim
