"""A small server of OpenAI's protocol on the loopback, which breaks the promises it is told to."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LETTERS = "abcdefghijklmnopqrstuvwxyz"
WRITTEN = 400
"""Tokens that it writes where nothing stops it."""
THOUGHT = 60
"""Tokens of reasoning where no budget stops it."""


class Letters:
    """A token is a character."""

    def encode(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]

    def decode(self, ids: list[int]) -> str:
        return "".join(map(chr, ids))


class Handler(BaseHTTPRequestHandler):
    server: Any
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        asked = json.loads(self.rfile.read(length))
        seen, faults = self.server.seen, self.server.faults
        seen.append((self.path, asked, self.headers.get("Authorization")))
        if len(seen) > faults.get("after", 0):
            if "status" in faults:
                self._send(faults["status"], {"error": f"no, {self.headers['Authorization']}"})
                return
            if "slow" in faults:
                time.sleep(faults["slow"])
            if "text" in faults:
                self._write(faults["text"])
                return
        if asked.get("n", 1) > 1 and "n_refused" in faults:
            self._send(400, {"error": "n"})
            return
        if asked["stream"]:
            self._stream(asked)
        else:
            self._send(200, self._whole(asked))

    def _texts(self, asked: dict[str, Any]) -> list[tuple[str, str, str]]:
        """(reasoning, text, finish reason) of every choice."""
        faults = self.server.faults
        caps = [asked[k] for k in ("max_tokens", "max_completion_tokens") if k in asked]
        caps = [k for k in caps if "max_tokens" not in faults]
        written = faults.get("written", WRITTEN)
        if "kinds" in faults:
            written = 4 * len(set(asked["messages"][0]["content"]))
        most = min([written, *caps])
        thought = THOUGHT if "reasons" in faults else 0
        if "budget" not in faults:
            thought = min(thought, asked.get("thinking_token_budget", thought))
        thought = min(thought, most)
        if "moves" in faults and "thinking_token_budget" in asked:
            most = written
        text = (LETTERS * 40)[: most - thought]
        if "reopens" in faults:
            text = f"<think>{'t' * faults['reopens']}</think>{text}"[: len(text)]
        reason = "length" if most < written else "stop"
        for mark in asked.get("stop", ()) if "stop" not in faults else ():
            if mark in text:
                text, reason = text[: text.index(mark)], "stop"
        reason = faults.get("reason", reason)
        for letter in faults.get("odd", ""):
            text = text.replace(letter, "\ufffd")
        count = asked.get("n", 1) if "n" not in faults else 1
        return [("t" * thought, text, reason)] * count

    def _usage(self, texts: list[tuple[str, str, str]]) -> dict[str, Any]:
        faults = self.server.faults
        if "no_usage" in faults:
            return {}
        written = sum(len(thought + text) for thought, text, _ in texts)
        usage: dict[str, Any] = {"completion_tokens": written - faults.get("lies", 0)}
        if "rejected" in faults:
            usage["completion_tokens_details"] = {"rejected_prediction_tokens": faults["rejected"]}
        return {"usage": usage}

    def _whole(self, asked: dict[str, Any]) -> dict[str, Any]:
        texts = self._texts(asked)
        choices = [
            {"message": {"content": text, "reasoning_content": thought}, "finish_reason": reason}
            for thought, text, reason in texts
        ]
        return {"choices": choices, **self._usage(texts)}

    def _stream(self, asked: dict[str, Any]) -> None:
        texts, lines, faults = self._texts(asked), [], self.server.faults
        for index, (thought, text, reason) in enumerate(texts):
            deltas = [{"reasoning_content": letter} for letter in thought]
            deltas += [{"content": letter} for letter in text]
            lines += [{"choices": [{"index": index, "delta": delta}]} for delta in deltas]
            ends = {"index": index, "delta": {}, "finish_reason": reason}
            lines.append({"choices": [ends]})
        lines.append({"choices": [], **self._usage(texts)})
        told = [f"data: {json.dumps(line)}\n\n" for line in lines] + ["data: [DONE]\n\n"]
        breaks = faults.get("breaks", 0)
        late = len(self.server.seen) > faults.get("after", 0)
        if breaks and late and (faults.get("always") or not self.server.broke):
            self.server.broke = True
            told = told[:breaks]
        if "chunked" in faults:
            self._write("".join(f"{len(line):x}\r\n{line}\r\n" for line in told), chunked=True)
        else:
            self._write("".join(told))

    def _send(self, status: int, found: dict[str, Any]) -> None:
        self._write(json.dumps(found), status)

    def _write(self, text: str, status: int = 200, chunked: bool = False) -> None:
        self.send_response(status)
        self.send_header("Connection", "close")
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.close_connection = True
        try:
            if "drips" in self.server.faults:
                for letter in text:
                    self.wfile.write(letter.encode())
                    time.sleep(self.server.faults["drips"])
            self.wfile.write(text.encode())
        except OSError:  # the client hung up
            return


@contextmanager
def served(**faults: Any) -> Iterator[tuple[str, list[Any]]]:
    """The URL of a server with such faults, and what it was asked (path, body, key)."""
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.faults, server.seen, server.broke = faults, [], False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", server.seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
