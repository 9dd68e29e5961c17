"""A server as a victim: nothing of it is seen but its answers, and how long they are."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from math import nan
from typing import Any, NamedTuple

import torch
from torch import Tensor

from effattack.counting.tallies import Count
from effattack.domains.tokens import Tokenizer, Tokens, padded, unpadded
from effattack.errors import MeasurementError, UsageError, expect_least
from effattack.tasks import Text
from effattack.victim.contract import Victim
from effattack.victim.endpoint.client import Server, slack
from effattack.victim.trace import Ran, Trace


class Endpoint(Victim):
    """An OpenAI-compatible server, judged by the tokens that it writes.

    Every prompt is a request of its own, in a stream; nothing is remembered, so that a prompt which
    is asked twice may have two answers. Tokens are counted here: the text, reasoning included, is
    encoded again. Beside them stands what the server claims, which nobody can count again; MACs are
    unknown (NaN).

    Args:
        url: as ``http://127.0.0.1:8000``.
        model: its name there.
        tokenizer: of the model: prompts are its ids, and answers are counted with it.
        cap: most tokens of an answer, sent as ``max_tokens``: the ceiling.
        requests: most requests that are sent, repeated ones included.
        tokens: most tokens that are sent and received, as counted here.
        authorised: who allows requests to a server that is not on the loopback; in every report.
        key_from: environment variable that holds the key; it is never written anywhere.
        timeout: seconds until an answer must be whole.
        retries: how often a request is sent again that failed.
        settings: of every request, beside ``max_tokens``; by default ``{"temperature": 0}``.
        vocabulary: ids that the tokenizer has; by default its length.
        special: ids that are no user's to write; by default those that the tokenizer tells.
        longest: most tokens of a prompt.
        name, data: as of all victims.

    Raises:
        UsageError: as :class:`Server` does; for a cap below 1, or a tokenizer without a length.
    """

    sees = "answers"
    remote = True

    def __init__(
        self,
        url: str,
        model: str,
        *,
        tokenizer: Tokenizer,
        cap: int,
        requests: int,
        tokens: int,
        authorised: str | None = None,
        key_from: str | None = None,
        timeout: float = 60.0,
        retries: int = 1,
        settings: Mapping[str, Any] | None = None,
        vocabulary: int | None = None,
        special: Collection[int] | None = None,
        longest: int = 256,
        name: str | None = None,
        data: str | None = None,
    ) -> None:
        expect_least("cap", cap, 1)
        if special is None:
            special = getattr(tokenizer, "special", ())
        domain = Tokens(vocabulary or _size(tokenizer), longest, tokenizer, special=special)
        super().__init__(
            name=name or model,
            family="generation",
            max_macs=nan,
            batch_coupled=True,  # by whatever else the server is doing
            data=data,
            domain=domain,
            task=Text(cap, None, tokenizer),
            counts={
                "output_tokens": Count("output token", partial(_each, cap)),
                "claimed_tokens": Count("claimed token", partial(_each, nan), audited=False),
                "requests": Count("request", partial(_each, nan)),
                "answer_seconds": Count("second", partial(_each, nan), audited=False),
            },
            currency="output_tokens",
        )
        self.server = Server(
            url,
            model,
            tokenizer=tokenizer,
            requests=requests,
            tokens=tokens,
            authorised=authorised,
            key_from=key_from,
            timeout=timeout,
            retries=retries,
        )
        self.cap = cap
        self.settings = {"temperature": 0, **(settings or {})}

    @property
    def checked(self) -> None:
        """None: there is one path, and nobody sees into it."""
        return

    def in_float64(self) -> None:
        """There is none: a server is judged as it answers."""

    @property
    def provenance(self) -> dict[str, str]:
        """Which server it is, and who allows it to be asked."""
        server = self.server
        told = {"server": server.where, "model": server.model}
        return {**told, "authorised": server.authorised} if server.authorised else told

    def forward(self, batch: Tensor) -> Tensor:
        """Prompts (B, L) -> the ids of the texts, (B, cap), -1 behind the last."""
        return torch.stack([answer.ids for answer in self._answers(batch)])

    def trace(self, batch: Tensor) -> Trace:
        """What one request each shows: no gates; ``aux["capped"]`` says whom the cap ended."""
        found = self._answers(batch)
        also = {name: [answer.counts[name] for answer in found] for name in self.counts}
        return Trace(
            torch.stack([answer.ids for answer in found]),
            gates=(),
            macs=_each(nan, batch),
            also={name: torch.tensor(work, dtype=torch.float64) for name, work in also.items()},
            aux={"capped": torch.tensor([answer.capped for answer in found])},
        )

    def ran(self, single: Tensor) -> Ran:
        """One request; the work of its row is what was counted of its answer."""
        (found,) = self._answers(single)
        return Ran(found.ids[None], nan, found.counts, capped=found.capped)

    def _answers(self, batch: Tensor) -> list[_Answered]:
        return [self._ask(ids.tolist()) for ids in unpadded(batch)]

    def _ask(self, ids: list[int]) -> _Answered:
        """One prompt.

        Raises:
            MeasurementError: where nothing can be counted, or the cap does not hold.
        """
        server = self.server
        prompt = server.tokenizer.decode(ids)
        found = server.ask(prompt, most=self.cap, stream=True, max_tokens=self.cap, **self.settings)
        if len(found.choices) != 1:
            raise MeasurementError(
                f"{server.where} gave {len(found.choices)} texts for one prompt: see its log"
            )
        (choice,), (counted,) = found.choices, found.tokens
        if found.cut or counted > self.cap + slack(self.cap):
            raise MeasurementError(
                f"{server.where} wrote {counted} tokens under max_tokens = {self.cap}: its cap "
                "does not hold, so that there is no most to judge by; effattack caps shows which "
                "caps do"
            )
        counted = max(1, min(counted, self.cap))
        claimed = found.claimed()
        text = server.tokenizer.encode(choice.text.replace("\ufffd", ""))[: self.cap]
        return _Answered(
            padded(torch.tensor(text, dtype=torch.long)[None], self.cap)[0],
            choice.reason == "length" or counted == self.cap,
            {
                "output_tokens": float(counted),
                "claimed_tokens": nan if claimed is None else float(claimed),
                "requests": float(server.asked[-1].attempts),
                "answer_seconds": found.seconds,
            },
        )


class _Answered(NamedTuple):
    """What one prompt came to."""

    ids: Tensor
    """(cap,), -1 behind the last."""
    capped: bool
    counts: Mapping[str, float]


def _size(tokenizer: Tokenizer) -> int:
    try:
        return len(tokenizer)  # type: ignore[arg-type]
    except TypeError:
        raise UsageError(
            f"{type(tokenizer).__name__} does not say how many ids it has: give vocabulary="
        ) from None


def _each(most: float, batch: Tensor) -> Tensor:
    return torch.full((len(batch),), float(most), dtype=torch.float64, device=batch.device)
