"""Whether the caps of a server hold: one request per promise, in one piece and in a stream."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from effattack.errors import MeasurementError, expect_least
from effattack.victim.endpoint import (
    Answer,
    BrokenOff,
    RefusedRequest,
    Server,
    TooLong,
    slack,
)

PROMPT = "Count from 1 to 10000, one number per line. Do not stop, and leave none out."
"""A plain request for a long answer."""
LONGER = 4
"""Caps that the answer may take before which no promise can be told from chance."""
HOLDS, BROKEN, REFUSED, UNSEEN, FAILED = "holds", "BROKEN", "refused", "not shown", "failed"


class Row(NamedTuple):
    """One promise, kept or not."""

    promise: str
    way: str
    """``plain`` or ``stream``."""
    verdict: str
    """``holds``; ``BROKEN``; ``refused``: the server takes no such request, and promises nothing;
    ``not shown``: it could not have been seen broken; ``failed``: there was no answer."""
    found: str
    """What was seen, or why nothing was."""
    tokens: int | None = None
    """Counted here."""
    claimed: int | None = None
    """By the server."""
    seconds: float | None = None


class Verdict(NamedTuple):
    verdict: str
    found: str


def caps(
    server: Server,
    *,
    prompt: str = PROMPT,
    cap: int = 24,
    reasoning: str = "thinking_token_budget",
) -> Iterator[Row]:
    """Ask a server for more than its caps admit, and see.

    Args:
        server: whom to ask; its budget bounds what is asked.
        prompt: that makes the model write at least four times ``cap`` tokens.
        cap: tokens that are asked for at most.
        reasoning: the server's field for a budget of reasoning tokens.

    Yields:
        a row per promise as soon as it is judged, so that a server which fails takes none back.

    Raises:
        UsageError: for a cap below 8.
        MeasurementError: if the server does not answer the first request.
    """
    expect_least("cap", cap, 8)
    for stream in (False, True):
        probe = _Probe(server, prompt, cap, stream)
        if (row := probe.begin()) is not None:
            yield row
        if probe.free is None:
            continue
        yield from probe.rows(reasoning)
    yield Row("retries", "both", *_retries(server))


class _Probe:
    """The promises in one way of answering; ``free`` is an answer of four caps, where there is."""

    def __init__(self, server: Server, prompt: str, cap: int, stream: bool) -> None:
        self.server, self.prompt, self.cap, self.stream = server, prompt, cap, stream
        self.way = "stream" if stream else "plain"
        self.longest = LONGER * cap
        self.free: Answer | None = None

    def begin(self) -> Row | None:
        """The long answer that others are compared with.

        Raises:
            MeasurementError: if the first one of all fails.
        """
        try:
            self.free = self.ask(self.longest, max_tokens=self.longest)
        except MeasurementError as error:
            if not self.stream:
                raise
            return Row("an answer", self.way, *_failure(error))
        return None

    def rows(self, reasoning: str) -> Iterator[Row]:
        cap, shorter = self.cap, self.cap // 2
        capped = yield from self.row("max_tokens", self.within, cap, max_tokens=cap)
        if capped is not None:
            for promise, judge in JUDGED.items():
                yield _row(promise, self.way, Verdict(*judge(self, capped)), capped)
        yield from self.row("max_completion_tokens", self.within, cap, max_completion_tokens=cap)
        yield from self.row("n", self.two, 2 * cap, n=2, max_tokens=cap)
        if mark := self.mark():
            told = {"stop": [mark], "max_tokens": self.longest}
            yield from self.row("stop", lambda a: self.stopped(a, mark), self.longest, **told)
        else:
            yield Row("stop", self.way, UNSEEN, "its text has no piece to stop at")
        assert self.free is not None
        thought = sum(self.free.reasoning)
        if thought <= shorter + slack(shorter):
            found = f"it writes {thought} tokens of reasoning without a budget"
            yield Row("reasoning budget", self.way, UNSEEN, found)
        else:
            told = {reasoning: shorter, "max_tokens": self.longest}
            yield from self.row("reasoning budget", self.reasoned, self.longest, **told)

    def ask(self, most: int, **settings: Any) -> Answer:
        answer = self.server.ask(
            self.prompt, most=most, stream=self.stream, temperature=0, **settings
        )
        if not answer.choices:
            raise MeasurementError("there is no choice in the answer")
        return answer

    def row(self, promise: str, judge: Any, most: int, **settings: Any) -> Any:
        """Ask once, yield the row; returns the answer, None where there is none."""
        try:
            answer = self.ask(most, **settings)
        except MeasurementError as error:
            yield Row(promise, self.way, *_failure(error))
            return None
        yield _row(promise, self.way, judge(answer), answer)
        return answer

    def within(self, answer: Answer) -> Verdict:
        """No more tokens than the cap, by either count."""
        assert self.free is not None
        found, claimed = sum(answer.tokens), answer.claimed() or 0
        if found > self.cap + slack(self.cap) or claimed > self.cap:
            hung = ", then the client hung up" * answer.cut
            return Verdict(BROKEN, f"{max(found, claimed)} tokens under a cap of {self.cap}{hung}")
        without = max(sum(self.free.tokens), self.free.claimed() or 0)
        if without <= self.cap + slack(self.cap):
            return Verdict(UNSEEN, f"{without} tokens without it: ask for a longer text")
        return Verdict(HOLDS, f"{found} of {self.cap} tokens, {without} without it")

    def two(self, answer: Answer) -> Verdict:
        if len(answer.choices) != 2:
            return Verdict(BROKEN, f"asked for 2 texts, got {len(answer.choices)}")
        worst, claimed = max(answer.tokens), answer.claimed() or 0
        if worst > self.cap + slack(self.cap) or claimed > 2 * self.cap:
            return Verdict(BROKEN, f"2 texts of up to {worst} tokens under a cap of {self.cap}")
        return Verdict(HOLDS, f"2 texts of up to {worst} tokens")

    def mark(self) -> str:
        """A piece of the free text that does not stand at its start; empty if there is none."""
        assert self.free is not None
        text = self.free.choices[0].text
        for at in range(len(text) // 2, len(text) - 2):
            piece = text[at : at + 3]
            if "\ufffd" not in piece and piece.strip() == piece and text.find(piece) > 0:
                return piece
        return ""

    def stopped(self, answer: Answer, mark: str) -> Verdict:
        assert self.free is not None
        found, free = answer.choices[0].text, self.free.choices[0].text
        if mark in found:
            before = found[: found.index(mark) + len(mark)]
            behind = self.server.count(found) - self.server.count(before)
            if behind > 1:  # the mark may end inside a token
                return Verdict(BROKEN, f"it writes {behind} tokens behind {mark!r}")
            return Verdict(HOLDS, f"it stops at {mark!r}, which stays in the text")
        if free.startswith(found.rstrip()) and len(found) < len(free):
            return Verdict(HOLDS, f"it stops before {mark!r}")
        return Verdict(UNSEEN, "at temperature 0, two requests gave two texts")

    def reasoned(self, answer: Answer) -> Verdict:
        assert self.free is not None
        budget = self.cap // 2
        found, without = sum(answer.reasoning), sum(self.free.reasoning)
        if found > budget + slack(budget):
            return Verdict(BROKEN, f"{found} tokens of reasoning under a budget of {budget}")
        total = max(sum(answer.tokens), answer.claimed() or 0)
        if total > self.longest + slack(self.longest):
            told = f"{total} tokens under a cap of {self.longest} with a budget of reasoning"
            return Verdict(BROKEN, told)
        return Verdict(HOLDS, f"{found} of {budget} tokens of reasoning, {without} without it")

    def usage(self, answer: Answer) -> Verdict:
        claimed, found = answer.claimed(), sum(answer.tokens)
        if answer.cut:
            return Verdict(UNSEEN, "the client hung up before it")
        if claimed is None:
            return Verdict(BROKEN, "no usage, although it was asked for")
        if abs(claimed - found) > slack(self.cap) and not _unclear(answer):
            return Verdict(BROKEN, f"claims {claimed} tokens, {found} were counted")
        if abs(claimed - found) > slack(self.cap):
            return Verdict(UNSEEN, "its text is no whole characters, and cannot be counted again")
        return Verdict(HOLDS, f"claims {claimed} tokens, {found} were counted")

    def ending(self, answer: Answer) -> Verdict:
        reason, found = answer.choices[0].reason, max(sum(answer.tokens), answer.claimed() or 0)
        if found < self.cap:
            return Verdict(UNSEEN, f"{found} tokens: the cap was not reached")
        if answer.cut or found > self.cap + slack(self.cap):
            return Verdict(UNSEEN, f"{found} tokens: the cap did not end the text")
        if reason != "length":
            return Verdict(BROKEN, f"says {reason!r} where the cap ended the text")
        return Verdict(HOLDS, "says 'length' where the cap ended the text")

    def drafted(self, answer: Answer) -> Verdict:
        rejected = answer.claimed("completion_tokens_details", "rejected_prediction_tokens")
        if rejected is None:
            return Verdict(UNSEEN, "the server says nothing of drafted tokens")
        found = max(answer.claimed() or 0, sum(answer.tokens) + rejected)
        if found > self.cap + slack(self.cap):
            return Verdict(BROKEN, f"{found} tokens with {rejected} rejected ones, cap {self.cap}")
        return Verdict(HOLDS, f"{rejected} rejected tokens, all within the cap")


JUDGED = {
    "usage": _Probe.usage,
    "finish_reason": _Probe.ending,
    "speculation": _Probe.drafted,
}
"""Promises that the answer under ``max_tokens`` shows, too."""


def _row(promise: str, way: str, verdict: Verdict, answer: Answer) -> Row:
    return Row(promise, way, *verdict, sum(answer.tokens), answer.claimed(), answer.seconds)


def _failure(error: MeasurementError) -> Verdict:
    if isinstance(error, RefusedRequest):
        return Verdict(REFUSED, str(error))
    return Verdict(BROKEN if isinstance(error, BrokenOff | TooLong) else FAILED, str(error))


def _unclear(answer: Answer) -> bool:
    return any("\ufffd" in choice.text + choice.reasoning for choice in answer.choices)


def _retries(server: Server) -> Verdict:
    again = [one for one in server.asked if one.attempts > 1]
    if not again:
        return Verdict(UNSEEN, f"none of {len(server.asked)} requests had to be sent again")
    worst = max(again, key=lambda one: (one.tokens + one.unseen) / max(one.most, 1))
    told = f"in {worst.attempts} attempts, under a cap of {worst.most}"
    if worst.tokens > worst.most + slack(worst.most):
        return Verdict(BROKEN, f"{worst.tokens} tokens {told}")
    if worst.tokens + worst.unseen > worst.most + slack(worst.most):
        return Verdict(UNSEEN, f"up to {worst.tokens + worst.unseen} tokens, unseen, {told}")
    return Verdict(HOLDS, f"{worst.tokens} tokens {told}")
