"""What a report calls an input: "image" only where it is one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from effattack.reporting.meta import Meta, section

if TYPE_CHECKING:
    import pandas as pd


class Noun(NamedTuple):
    """A word for one input and for several."""

    one: str
    many: str

    def fill(self, text: str) -> str:
        """A text with the words for what it calls ``{one}`` and ``{many}``, capitals kept."""
        words = {"{one}": self.one, "{many}": self.many, "{Many}": self.many.capitalize()}
        for name, word in words.items():
            text = text.replace(name, word)
        return text


IMAGE, INPUT = Noun("image", "images"), Noun("input", "inputs")


def domain_of(meta: Meta, victim: str) -> dict[str, Any]:
    """How the frames describe a victim's domain, and, as ``"answer"``, its answers.

    Earlier versions knew images alone, and told nothing of answers.
    """
    about = section(meta, "victims").get(victim)
    about = about if isinstance(about, Mapping) else {}
    shape = about.get("input_shape") or ()
    found = about.get("domain")
    found = found if isinstance(found, Mapping) else {}
    usual = {"kind": "pixels", "noun": IMAGE.one, "nouns": IMAGE.many, "shape": shape}
    return {**usual, "answer": about.get("answer") or {}, **found}


def with_domains(scores: pd.DataFrame, meta: Meta) -> pd.DataFrame:
    """The scores with the kind of each victim's inputs, which its budgets are written by."""
    kinds = {name: domain_of(meta, name)["kind"] for name in section(meta, "victims")}
    if "victim" not in scores:
        return scores.assign(domain="pixels")
    found = scores.victim.map(str).map(kinds)
    return scores.assign(domain=found.astype(object).fillna("pixels"))


def noun_of(meta: Meta, victim: str) -> Noun:
    """What to call an input of a victim."""
    domain = domain_of(meta, victim)
    return Noun(str(domain["noun"]), str(domain["nouns"]))


def shared_noun(meta: Meta, victims: Iterable[str] | None = None) -> Noun:
    """What to call an input of any of these victims, by default of all of ``meta``."""
    names = section(meta, "victims") if victims is None else victims
    found = {noun_of(meta, str(name)) for name in names} or {IMAGE}
    return found.pop() if len(found) == 1 else INPUT
