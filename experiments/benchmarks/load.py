"""The explorer's server as a process, and many clients at once that ask it."""

import asyncio
import contextlib
import http.client
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

EXPLORE = Path(__file__).parents[1] / "explore.py"
LONGEST_START, LONGEST_LOAD = 60, 600
"""Seconds."""


def memory(pid: int) -> dict[str, float]:
    """Resident memory of a process in MiB, as the system names its kinds; empty where the system does not tell.

    `RssAnon` is its own, `RssFile` are pages of files that it maps, which the system takes back when it needs them, and
    `VmHWM` is the most that both together were so far.
    """
    with contextlib.suppress(OSError):
        lines = re.findall(r"^(\w+):\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
        return {name: int(kib) / 1024 for name, kib in lines}
    return {}


class Server:
    """`experiments/explore.py` on a port of its own."""

    def __init__(self, atlas: Path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        start = time.perf_counter()
        command = [sys.executable, str(EXPLORE), f"--atlas={atlas}", f"--port={self.port}"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            self._wait_for("/")
            self._wait_for("/data/v1/atlas.json")
        except BaseException:
            self.process.kill()
            raise
        self.seconds_to_open = time.perf_counter() - start

    def _wait_for(self, path: str) -> None:
        give_up = time.perf_counter() + LONGEST_START
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LONGEST_START)
            with contextlib.closing(connection), contextlib.suppress(ConnectionError):
                connection.request("GET", path)
                answer = connection.getresponse()
                if answer.status == 200 and answer.read():
                    return
                raise RuntimeError(f"{path}: status {answer.status}")
            if self.process.poll() is not None or time.perf_counter() > give_up:
                raise RuntimeError("the explorer did not start")
            time.sleep(0.005)

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *error: object) -> None:
        self.process.terminate()
        self.process.wait(LONGEST_START)


class Answers(NamedTuple):
    """How fast some requests were answered."""

    ms: np.ndarray
    """[n_requests] from the first byte sent to the last received."""
    seconds: float
    """All together."""
    n_bytes: int


def ask(port: int, paths: Sequence[str], n_clients: int) -> Answers:
    """Ask for every path once. Each client keeps its connection and sends a request when it has the last answer."""
    return asyncio.run(_ask(port, paths, n_clients))


async def _ask(port: int, paths: Sequence[str], n_clients: int) -> Answers:
    waiting, ms, sizes = iter(paths), [], []
    async with asyncio.timeout(LONGEST_LOAD):
        start = time.perf_counter()
        await asyncio.gather(*(_client(port, waiting, ms, sizes) for _ in range(n_clients)))
        return Answers(np.array(ms), time.perf_counter() - start, sum(sizes))


async def _client(port: int, waiting: Iterator[str], ms: list[float], sizes: list[int]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    for path in waiting:
        start = time.perf_counter()
        writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept-Encoding: gzip\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        if not head.startswith(b"HTTP/1.1 200 ") or not length:
            raise RuntimeError(f"{path}: {head[:200]!r}")
        sizes.append(len(await reader.readexactly(int(length[1]))))
        ms.append((time.perf_counter() - start) * 1e3)
    writer.close()
