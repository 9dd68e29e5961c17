"""The tokenizer of a model that runs elsewhere: from its folder, its file, or a factory."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from effattack.domains.tokens import Tokenizer
from effattack.errors import MissingPackage, UsageError, first_line, install
from effattack.registry import call, import_factory


def tokenizer_of(name: str | Path) -> Tokenizer:
    """A tokenizer from a model's folder, a ``tokenizer.json``, or a factory ``module:factory``.

    Raises:
        UsageError: for what is none.
        MissingPackage: where the package that reads files is missing.
    """
    path = Path(name)
    path = path / "tokenizer.json" if path.is_dir() else path
    if path.is_file():
        return FromFile(path)
    name = str(name)
    if ":" not in name:
        raise UsageError(f"tokenizer {name}: no folder with a tokenizer.json, and no such file")
    found = call(import_factory(name), name)
    if not all(callable(getattr(found, method, None)) for method in ("encode", "decode")):
        raise UsageError(
            f"{name} returned {type(found).__name__}, which has no encode(text) and decode(ids)"
        )
    return found


class FromFile:
    """A ``tokenizer.json`` without the special tokens that it sets around a text.

    Raises:
        MissingPackage: without ``tokenizers``.
        UsageError: for a file that is none.
    """

    def __init__(self, path: Path) -> None:
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            told = f"reading {path.name} needs tokenizers: {install('language')}"
            raise MissingPackage(told) from error
        try:
            self.words = Tokenizer.from_file(str(path))
        except Exception as error:  # whatever the package raises
            raise UsageError(f"{path} is no tokenizer ({first_line(error)})") from error

    def __len__(self) -> int:
        return int(self.words.get_vocab_size())

    @cached_property
    def special(self) -> tuple[int, ...]:
        """Ids that mark turns and ends, which are no user's to write."""
        added = self.words.get_added_tokens_decoder()
        return tuple(sorted(index for index, token in added.items() if token.special))

    def encode(self, text: str) -> list[int]:
        return list(self.words.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: list[int]) -> str:
        return str(self.words.decode(ids, skip_special_tokens=False))
