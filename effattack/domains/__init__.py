"""What inputs are: how they are checked, rounded, compared, told apart, stored and disturbed.

A victim has a domain, a threat moves in one. Whatever stands between the two (digests, cells,
checks, controls) asks the domain and knows neither pixels nor tokens.
"""

from __future__ import annotations

from effattack.domains.arrays import Arrays
from effattack.domains.base import Batch, Domain
from effattack.domains.graph import Graph
from effattack.domains.parts import Parts, PartsBatch
from effattack.domains.pixels import Pixels
from effattack.domains.properties import check_domain
from effattack.domains.series import Series
from effattack.domains.tokens import Tokenizer, Tokens

__all__ = [
    "Arrays",
    "Batch",
    "Domain",
    "Graph",
    "Parts",
    "PartsBatch",
    "Pixels",
    "Series",
    "Tokenizer",
    "Tokens",
    "check_domain",
]
