"""Contenders in processes of their own, that each has its own memory and threads; they wait while another works.

The parent starts a `Worker` for each and asks it for one round at a time. In the child, this file runs as a script: it
imports the contender's module and nothing else, so that no contender carries another's libraries.
"""

import importlib
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple


class Task(NamedTuple):
    """What every contender does: a GPT-2 with random weights or a given model, a corpus of random tokens."""

    n_sequences: int
    """Of one round; a multiple of `batch_size`."""
    seq_len: int
    keep: int
    """Best examples kept of each neuron."""
    batch_size: int
    n_layers: int
    d_model: int
    d_mlp: int
    vocab_size: int
    precision: str
    """Of the weights and products: float32 or bfloat16."""
    n_threads: int
    """CPU cores that may be used."""
    model: str = ""
    """The directory of a model with gated neurons; "": a GPT-2 of these sizes, with random weights."""
    n_of_layer: int = 0
    """Numbers in the matrices of one layer of that model."""

    @property
    def n_heads(self) -> int:
        """Of 64 dimensions each, as in GPT-2."""
        return max(1, self.d_model // 64)

    @property
    def n_positions(self) -> int:
        """As many as GPT-2 has, or more where they are needed."""
        return max(1024, self.seq_len)

    @property
    def n_tokens(self) -> int:
        """Of one round."""
        return self.n_sequences * self.seq_len


class Ready(NamedTuple):
    """A contender that is made."""

    run: Callable[[int], Any]
    """Handle so many sequences, to the very end."""
    device_mib: Callable[[], float | None]
    """The most memory taken of an accelerator; None on a CPU."""
    note: str = ""
    compile_seconds: Callable[[], float] = lambda: 0.0
    """Spent compiling so far."""


class Round(NamedTuple):
    """What one round took."""

    seconds: float
    compile_seconds: float
    """Of these; 0 is expected, as a first round was run untimed."""
    device_mib: float | None


class Worker:
    """A contender in its own process, ready when this returns: compiled, and run once over two batches.

    Args:
        contender: `module:function`; the function takes the task and returns a `Ready`.
        task: what to do.
    """

    def __init__(self, contender: str, task: Task):
        here = str(Path(__file__).parents[1])
        path = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
        # several processes share an accelerator: none may take most of its memory in advance
        environment = {**os.environ, "PYTHONPATH": path, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        command = [sys.executable, "-m", "benchmarks.workers", contender, json.dumps(task)]
        pipe = subprocess.PIPE
        self.contender = contender
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)
        try:
            self.note: str = self._answer()
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise

    def round(self) -> Round:
        """Do the task once."""
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return Round(*self._answer())

    def peak_mib(self) -> float:
        """The most memory that the process had so far; NaN where the system does not tell.

        Not `ru_maxrss`, which begins with what the parent had when it started the process.
        """
        from benchmarks.load import memory

        return memory(self.process.pid).get("VmHWM", math.nan)

    def _answer(self) -> Any:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.contender} stopped, status {self.process.wait()}; its error stands above")
        return json.loads(line)

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *error: object) -> None:
        assert self.process.stdin and self.process.stdout
        if any(error):
            self.process.kill()
        self.process.stdin.close()  # it has no more to wait for
        self.process.wait()
        self.process.stdout.close()


def _serve(contender: str, task: Task) -> None:
    """A round for every line read; answers are lines of JSON."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer
    module, name = contender.split(":")
    ready: Ready = getattr(importlib.import_module(module), name)(task)
    ready.run(2 * task.batch_size)
    print(json.dumps(ready.note), file=answers)
    for _ in sys.stdin:
        compiled, start = ready.compile_seconds(), time.perf_counter()
        ready.run(task.n_sequences)
        seconds = time.perf_counter() - start
        print(json.dumps([seconds, ready.compile_seconds() - compiled, ready.device_mib()]), file=answers)


if __name__ == "__main__":
    # as a module of its package: contenders make its `Ready`
    from benchmarks import workers

    workers._serve(sys.argv[1], workers.Task(*json.loads(sys.argv[2])))
