"""A server that speaks OpenAI's protocol, asked under a budget, one request at a time.

What it writes is counted here, with a tokenizer that is given; what it says of its usage is a claim
that stands beside. Requests that are sent again are counted, too.
"""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from effattack.domains.tokens import Tokenizer
from effattack.errors import MeasurementError, UsageError, expect_least, first_line
from effattack.victim.endpoint.address import key_of, on_loopback, parsed
from effattack.victim.endpoint.written import Choice, Writing, read_choices

UNSTARTED = (429, 503)
"""Statuses of a server that declines before it computes; other failures are charged as the cap."""
LONGEST_WAIT = 5.0
"""Seconds between one attempt and the next, at most."""
ROOM = 65536
"""Bytes of an answer beside its text."""


def slack(cap: int) -> int:
    """Tokens by which a count may be off: a model may cut its text otherwise than its tokenizer."""
    return max(2, cap // 16)


class RefusedRequest(MeasurementError):
    """The server takes no such request (a status of 400 to 499)."""


class BrokenOff(MeasurementError):
    """An answer ended before its end, at every attempt."""


class TooLong(MeasurementError):
    """An answer in one piece is so long that nobody reads it to its end."""


class BudgetSpent(MeasurementError):
    """A request would pass the budget of requests or tokens; it was not sent."""


class Answer(NamedTuple):
    """What came back for one request."""

    choices: tuple[Choice, ...]
    tokens: tuple[int, ...]
    """Counted here, per choice, reasoning included."""
    reasoning: tuple[int, ...]
    """Those of the reasoning."""
    usage: Mapping[str, Any] | None
    """What the server claims; None where it says nothing."""
    cut: bool
    """Whether the client hung up, since far more came than was asked for."""
    seconds: float

    def claimed(self, *keys: str) -> int | None:
        """A number of the usage, by its keys from the outside in; None where there is none."""
        found: Any = self.usage
        for key in keys or ("completion_tokens",):
            found = found.get(key) if isinstance(found, Mapping) else None
        return found if isinstance(found, int) and not isinstance(found, bool) else None


class Asked(NamedTuple):
    """What one request came to."""

    most: int
    """Tokens that its caps admit, all choices together."""
    attempts: int
    tokens: int
    """Received in all attempts."""
    unseen: int
    """Tokens that attempts may have cost whose work began, and was not seen."""


class Server:
    """An OpenAI-compatible server.

    Args:
        url: as ``http://127.0.0.1:8000``; ``/v1`` is the path where it has none.
        model: its name there.
        tokenizer: of the model; what is counted is the text, encoded again.
        requests: most requests that are sent, repeated ones included.
        tokens: most tokens that are sent and received, as counted here.
        authorised: who allows requests to a server that is not on the loopback.
        key_from: environment variable that holds the key; it is never written anywhere.
        timeout: seconds until an answer must be whole.
        retries: how often a request is sent again that failed.

    Raises:
        UsageError: for a URL that is none, a server elsewhere without ``authorised``, a key that is
            not set, or a budget that is none.
    """

    decides_nothing = (
        *("requests_left", "tokens_left", "asked", "authorised", "timeout", "retries"),
        *("_key", "_connection", "_socket"),
    )
    """What is no part of which server this is: the same one may be asked more, or by others."""

    def __init__(
        self,
        url: str,
        model: str,
        *,
        tokenizer: Tokenizer,
        requests: int,
        tokens: int,
        authorised: str | None = None,
        key_from: str | None = None,
        timeout: float = 60.0,
        retries: int = 1,
    ) -> None:
        for name, value, least in (
            ("requests", requests, 1),
            ("tokens", tokens, 1),
            ("timeout", timeout, 0.001),
            ("retries", retries, 0),
        ):
            expect_least(name, value, least)
        self.secure, self.host, self.port, self.path = parsed(url)
        if not authorised and not on_loopback(self.host):
            raise UsageError(
                f"{self.host} is not this machine: test only servers that you own or may test, and "
                "say who allows it (authorised, --authorised WHO)"
            )
        self.model, self.tokenizer, self.authorised = model, tokenizer, authorised
        self.requests_left, self.tokens_left = requests, tokens
        self.timeout, self.retries = timeout, retries
        self.asked: list[Asked] = []
        self._key = key_of(key_from)
        self._connection: http.client.HTTPConnection | None = None
        self._socket: socket.socket | None = None

    def count(self, text: str) -> int:
        """Tokens of a text, encoded again; characters that bytes did not make are left out."""
        return len(self.tokenizer.encode(text.replace("\ufffd", "")))

    def ask(self, prompt: str, *, most: int, stream: bool = False, **settings: Any) -> Answer:
        """One request, sent again where it fails.

        Args:
            prompt: what the user says.
            most: tokens that its settings admit, all choices together.
            stream: whether the answer comes in pieces.
            settings: of the request, such as ``max_tokens``.

        Raises:
            RefusedRequest: if the server takes no such request.
            BrokenOff: if every answer ended before its end.
            BudgetSpent: if the budget does not admit it.
            MeasurementError: if there is no answer, in time or in the protocol's form.
        """
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "stream": stream,
            **settings,
        }
        if stream:
            body["stream_options"] = {"include_usage": True}
        received = unseen = attempts = 0
        while True:
            try:
                self._reserve(self.count(prompt), most)
            except BudgetSpent:
                if attempts:
                    self.asked.append(Asked(most, attempts, received, unseen))
                raise
            attempts += 1
            wait = 0.1 * 2**attempts
            try:
                found = self._once(body, most)
            except _Failed as failed:
                self.close()
                self.tokens_left -= failed.seen + failed.unseen
                received, unseen = received + failed.seen, unseen + failed.unseen
                if attempts > self.retries or not failed.again:
                    self.asked.append(Asked(most, attempts, received, unseen))
                    what, colon, remedy = str(failed).partition(": ")
                    times = f", {attempts} times in a row" if attempts > 1 else ""
                    told = f"{what}{times}{colon}{remedy}"
                    raise failed.kind(self._without_key(told)) from None
                time.sleep(min(failed.wait or wait, LONGEST_WAIT))
                continue
            self.tokens_left -= sum(found.tokens)
            self.asked.append(Asked(most, attempts, received + sum(found.tokens), unseen))
            return found

    def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _reserve(self, sent: int, most: int) -> None:
        if self.requests_left < 1:
            raise BudgetSpent("the budget of requests is spent: give more (requests)")
        if sent + most > self.tokens_left:
            raise BudgetSpent(
                f"the budget has {self.tokens_left} tokens left, this request may take "
                f"{sent + most}: give more (tokens)"
            )
        self.requests_left -= 1
        self.tokens_left -= sent

    def _once(self, body: Mapping[str, Any], most: int) -> Answer:
        start = time.monotonic()
        writing = Writing(self.count, limit=min(self.tokens_left, 4 * most + 64))
        try:
            with self._send(body) as response:
                if response.status >= 400:
                    raise self._complaint(response, most)
                if body["stream"]:
                    self._read_stream(response, writing, start)
                    choices, usage = writing.choices(), writing.usage
                else:
                    found = self._read(response, start, most, 64 * writing.limit)
                    choices, usage = read_choices(found)
        except _Failed:
            raise
        except TimeoutError as error:
            told = (
                f"{self.where} gave no whole answer in {self.timeout:g} s: give it more (timeout)"
            )
            raise _Failed(told, writing.tokens(), most, again=False) from error
        except (OSError, http.client.HTTPException) as error:
            told = f"{self.where} breaks off ({first_line(error)}): see its log"
            raise _Failed(told, writing.tokens(), most) from error
        except (ValueError, TypeError, RecursionError) as error:
            told = (
                f"{self.where} answers in a form that is not the protocol's ({error}): give the "
                "URL of a server that speaks OpenAI's"
            )
            raise _Failed(told, writing.tokens(), most, again=False) from error
        if body["stream"] and not (writing.done or writing.ended or writing.cut):
            got = writing.tokens()
            told = f"the stream broke off after {got} tokens: see the server's log, or give retries"
            raise _Failed(told, got, most, kind=BrokenOff)
        if writing.cut:
            self.close()
        reasoning = tuple(self.count(choice.reasoning) for choice in choices)
        counted = tuple(
            self.count(choice.text) + thought
            for choice, thought in zip(choices, reasoning, strict=True)
        )
        return Answer(choices, counted, reasoning, usage, writing.cut, time.monotonic() - start)

    @property
    def where(self) -> str:
        """The server, without a key or a user."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.secure else 'http'}://{host}:{self.port}{self.path}"

    def _send(self, body: Mapping[str, Any]) -> http.client.HTTPResponse:
        self.close()
        kind = http.client.HTTPSConnection if self.secure else http.client.HTTPConnection
        self._connection = kind(self.host, self.port, timeout=self.timeout)
        try:
            self._connection.connect()
        except OSError as error:
            told = f"{self.where} is down ({first_line(error)}): start it, or correct the URL"
            raise _Failed(told) from error
        self._socket = self._connection.sock
        headers = {"Content-Type": "application/json", "Connection": "close"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        path, sent = f"{self.path}/chat/completions", json.dumps(body)
        self._connection.request("POST", path, sent, headers)
        return self._connection.getresponse()

    def _allow(self, start: float) -> None:
        """Wait no longer than what is left of the time for an answer."""
        left = self.timeout - (time.monotonic() - start)
        if left <= 0:
            raise TimeoutError
        if self._socket is not None:
            self._socket.settimeout(left)

    def _read(self, response: http.client.HTTPResponse, start: float, most: int, limit: int) -> Any:
        """The JSON of an answer in one piece."""
        found = b""
        while piece := response.read1(ROOM):
            found += piece
            self._allow(start)
            if len(found) > limit + ROOM:
                told = f"{len(found)} bytes came for at most {most} tokens, then the client hung up"
                raise _Failed(told, 0, most, again=False, kind=TooLong)
        if response.length:
            raise http.client.IncompleteRead(found, response.length)
        return json.loads(found)

    def _read_stream(
        self, response: http.client.HTTPResponse, writing: Writing, start: float
    ) -> None:
        """Until its end, wherever it ends."""
        rest = b""
        while True:
            self._allow(start)
            try:
                piece = response.read1(ROOM)
            except (http.client.IncompleteRead, ConnectionError):
                return
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                if line.startswith(b"data:"):
                    writing.add(line[5:].strip())
                if writing.done or writing.cut:
                    return
            if not piece:
                if rest.startswith(b"data:"):
                    with suppress(json.JSONDecodeError):  # it may end in the middle of a line
                        writing.add(rest[5:].strip())
                return
            if len(rest) > ROOM * 16:
                raise ValueError(f"a line of more than {ROOM * 16} bytes")

    def _without_key(self, told: str) -> str:
        return told.replace(self._key, "(the key)") if self._key else told

    def _complaint(self, response: http.client.HTTPResponse, most: int) -> _Failed:
        told = self._without_key(response.read(2000).decode(errors="replace"))
        self.close()
        told = f"{self.where} answers {response.status}: {' '.join(told.split())[:200]}"
        if response.status < 500 and response.status not in UNSTARTED:
            return _Failed(told, again=False, kind=RefusedRequest)
        after = response.headers.get("Retry-After", "")
        wait = float(after) if after.isdecimal() else None
        unseen = 0 if response.status in UNSTARTED else most
        return _Failed(told, unseen=unseen, wait=wait)


class _Failed(Exception):
    """One attempt that brought no answer; tokens that came, and that may have been written unseen
    where none did."""

    def __init__(
        self,
        told: str,
        seen: int = 0,
        unseen: int = 0,
        *,
        again: bool = True,
        kind: type[MeasurementError] = MeasurementError,
        wait: float | None = None,
    ) -> None:
        super().__init__(told)
        self.seen, self.unseen = seen, 0 if seen else unseen
        self.again, self.kind, self.wait = again, kind, wait
