"""A real micro-batching server on the loopback, and a client that loads it at random.

The server is a process of its own with the policy of :class:`effattack.measure.serving.Server`: it
takes the first request of its queue, then more until the batch is full or ``max_wait`` has passed,
and runs the batch on the deployed path. A request is its number (4 bytes) and the 8-bit levels of
an image. The answer is the number, the class, when the batch started (s, the clock of this
machine), how long the batch before kept the server (s, from its start to its last answer: all that
the server does for a batch, beside the model too), and the number of the batch.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from effattack.budgets import LEVELS
from effattack.measure.clocks import deployed
from effattack.measure.serving import Server
from effattack.victim import load_victim

HOST = "127.0.0.1"
NUMBER = struct.Struct("<I")
ANSWER = struct.Struct("<IIddI")
"""Number of the request, class, start of its batch, seconds of the batch before, number of its
batch."""


@contextmanager
def running(victim: str, server: Server) -> Iterator[int]:
    """Start the server process; yields its port, and ends it on the way out."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(victim, server, theirs), daemon=True)
    process.start()
    try:
        if not ours.poll(120):
            raise TimeoutError("the server did not start within two minutes")
        yield ours.recv()
    finally:
        process.terminate()
        process.join(10)


def load(
    port: int, clean: Tensor, attacked: Tensor, malicious: np.ndarray, gaps: np.ndarray
) -> pd.DataFrame:
    """Send one request after each gap (s), whatever is still unanswered; wait for all answers.

    Args:
        port: of the server.
        clean, attacked: (N, *input_shape) in [0, 1]; each request takes one of them at random.
        malicious: (n,) bool: which requests are attacked.
        gaps: (n,) seconds before each.

    Returns:
        The frame of :func:`effattack.measure.serving.simulate`, as it really was, and ``before``:
        seconds for which the batch before kept the server.
    """
    which = np.random.default_rng(1).integers(len(clean), size=len(gaps))
    levels = [(arm * LEVELS).round().to(torch.uint8).numpy() for arm in (clean, attacked)]
    images = [levels[int(m)][i].tobytes() for m, i in zip(malicious, which, strict=True)]
    served = asyncio.run(_send(port, images, gaps))
    return served.assign(attacked=malicious)


async def _send(port: int, images: list[bytes], gaps: np.ndarray) -> pd.DataFrame:
    reader, writer = await asyncio.open_connection(HOST, port)
    n = len(images)
    arrived, started, answered, before = np.zeros((4, n))
    batch = np.zeros(n, dtype=int)

    async def receive() -> None:
        for _ in range(n):
            number, _label, start, took, batch_number = ANSWER.unpack(
                await reader.readexactly(ANSWER.size)
            )
            answered[number], started[number], batch[number] = time.time(), start, batch_number
            before[number] = took

    receiving = asyncio.create_task(receive())
    due = time.time()
    for number, (image, gap) in enumerate(zip(images, gaps, strict=True)):
        due += gap
        await asyncio.sleep(max(0.0, due - time.time()))
        arrived[number] = due
        writer.write(NUMBER.pack(number) + image)
    await receiving
    writer.close()
    columns = {"arrived": arrived, "started": started, "answered": answered, "batch": batch}
    return pd.DataFrame({**columns, "before": before})


def _serve(name: str, server: Server, port: Connection) -> None:
    torch.set_num_threads(1)
    victim = load_victim(name)
    size = int(np.prod(victim.input_shape))
    example = torch.full((server.max_batch, *victim.input_shape), 0.5)

    def run(batch: list[bytes]) -> list[int]:
        levels = np.frombuffer(b"".join(batch), dtype=np.uint8).reshape(-1, *victim.input_shape)
        images = torch.from_numpy(levels.astype(np.float32) / LEVELS)
        with torch.inference_mode():
            return victim(images).argmax(1).tolist()

    async def main() -> None:
        queue: asyncio.Queue[tuple[int, bytes, Any]] = asyncio.Queue()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while True:
                    head = await reader.readexactly(NUMBER.size)
                    image = await reader.readexactly(size)
                    queue.put_nowait((NUMBER.unpack(head)[0], image, writer))
            except asyncio.IncompleteReadError:
                writer.close()

        listening = await asyncio.start_server(accept, HOST, 0)
        port.send(listening.sockets[0].getsockname()[1])
        loop, took = asyncio.get_running_loop(), 0.0
        for number in count():
            batch = await _gather(queue, server)
            start = time.time()
            labels = await loop.run_in_executor(None, run, [image for _, image, _ in batch])
            for (request, _, writer), label in zip(batch, labels, strict=True):
                writer.write(ANSWER.pack(request, label, start, took, number))
            took = time.time() - start

    with deployed(victim, example):
        asyncio.run(main())


async def _gather(queue: asyncio.Queue, server: Server) -> list[tuple[int, bytes, Any]]:
    batch = [await queue.get()]
    last = time.monotonic() + server.max_wait
    while len(batch) < server.max_batch:
        try:
            left = max(0.0, last - time.monotonic())
            batch.append(
                queue.get_nowait()
                if not queue.empty()
                else await asyncio.wait_for(queue.get(), left)
            )
        except TimeoutError:
            break
    return batch
