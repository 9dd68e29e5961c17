"""Domains by name: ours, from a package outside, and what is said of all other texts."""

from __future__ import annotations

from pathlib import Path

import pytest

from effattack.domains import Series, Tokens
from effattack.domains.by_name import domain_of
from effattack.errors import UsageError

OUTSIDE = """
from effattack.domains import Tokens

class Letters(Tokens):
    kind = "letters"

    def __init__(self, longest: int) -> None:
        super().__init__(26, longest)
"""


def test_domains_of_ours() -> None:
    domain = domain_of("series(channels=1, length=None, low=-3.0, high=3.0, deviation=1.0)")
    assert isinstance(domain, Series)
    assert (domain.shape, domain.deviation) == ((1, None), 1.0)
    assert isinstance(domain_of("tokens(vocabulary=9, longest=4)"), Tokens)


def test_a_domain_of_a_package_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "letters_of_mine.py").write_text(OUTSIDE)
    folder = tmp_path / "letters_of_mine-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Name: letters_of_mine\nVersion: 1.0\n")
    entry = "[effattack.domains]\nletters = letters_of_mine:Letters\n"
    (folder / "entry_points.txt").write_text(entry)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("letters", "letters_of_mine:Letters"):
        domain = domain_of(f"{name}(longest=5)")
        assert (domain.kind, domain.longest) == ("letters", 5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("serie(channels=1)", "unknown domain 'serie': did you mean series"),
        ("series(channels=1)", "cannot be made .*missing 3 required positional arguments"),
        ("series(chanels=1)", "unexpected keyword argument 'chanels'"),
        ("tokens(vocabulary=0, longest=3)", "vocabulary = 0: give a whole number"),
        ("builtins:dict", "builtins:dict is <class .dict.>, no class of"),
        ("nowhere:Class", "cannot import 'nowhere'"),
    ],
)
def test_texts_that_are_no_domain(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        domain_of(text)
