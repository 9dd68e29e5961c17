"""The victims of text that come trained: name -> factory. A recipe makes their sentences.

Each is registered as an entry point of the group ``effattack.victims``. With ``trained=False`` a
factory builds what its recipe starts from.
"""

from __future__ import annotations

from effattack.models_zoo.files import stored_threshold, with_weights
from effattack.models_zoo.text import sentences
from effattack.models_zoo.text.encoder import Encoder, Size
from effattack.models_zoo.text.sentence_exits import SentenceExits
from effattack.models_zoo.text.token_exits import TokenExits

DATA = "effattack.models_zoo.text.sentences"


def text_exit(trained: bool = True) -> SentenceExits:
    """Four blocks on requests to an assistant, each with a classifier of what is asked for."""
    name = "text_exit"
    victim = SentenceExits(
        _encoder(),
        sentences.domain(),
        classes=len(sentences.CLASSES),
        criterion=stored_threshold(name, trained),
        name=name,
        data=f"{DATA}:scored_requests",
    )
    return with_weights(victim, name, trained)


def ner_exit(trained: bool = True) -> TokenExits:
    """Four blocks on the same requests, whose tokens leave once their tag is sure."""
    name = "ner_exit"
    victim = TokenExits(
        _encoder(),
        sentences.domain(),
        tags=len(sentences.TAGS),
        criterion=stored_threshold(name, trained),
        name=name,
        data=f"{DATA}:scored_entities",
    )
    return with_weights(victim, name, trained)


def _encoder() -> Encoder:
    return Encoder(Size(len(sentences.pieces()), sentences.LONGEST))
