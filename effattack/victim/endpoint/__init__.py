"""A server that speaks OpenAI's protocol: its client, and the victim that it is."""

from effattack.victim.endpoint.client import (
    Answer,
    Asked,
    BrokenOff,
    BudgetSpent,
    RefusedRequest,
    Server,
    TooLong,
    slack,
)
from effattack.victim.endpoint.tokenizers import tokenizer_of
from effattack.victim.endpoint.victim import Endpoint

__all__ = [
    "Answer",
    "Asked",
    "BrokenOff",
    "BudgetSpent",
    "Endpoint",
    "RefusedRequest",
    "Server",
    "TooLong",
    "slack",
    "tokenizer_of",
]
