"""Several processes, on several machines, that run as one: each has its devices, all have the same run directory."""

import contextlib
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.errors import JaxRuntimeError
from jax.experimental import multihost_utils

from nejax.errors import SettingError, UserError, literal

_LONGEST_MESSAGE = 4096
_DAY = 86400  # seconds


def is_first() -> bool:
    """Whether this process is the one that writes files and shows progress."""
    return jax.process_index() == 0


def join_processes(coordinator: str, n_processes: int, process: int, *, patience: int = 60) -> None:
    """Make this process one of several. Call it before JAX is first used.

    Args:
        coordinator: HOST:PORT of process 0, which all others can reach.
        n_processes: how many there are.
        process: which one this is, from 0.
        patience: seconds to wait for the others at the start, and after which one that says nothing counts as lost.

    Raises:
        UserError: the numbers do not fit, or the others were not reached in time.
    """
    if not 0 <= process < n_processes:
        raise SettingError("process", process, f"0 to {n_processes - 1}, as {{n_processes}}={n_processes}")
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise SettingError("coordinator", coordinator, "HOST:PORT of process 0")
    try:
        jax.distributed.initialize(
            coordinator,
            n_processes,
            process,
            initialization_timeout=patience,
            heartbeat_timeout_seconds=patience,
            shutdown_timeout_seconds=_DAY,  # the first writes the atlas while the others wait
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0][:200]
        raise UserError(
            f"the other processes were not reached within {patience} s ({reason})",
            f"start all {n_processes} with {{coordinator}}={literal(coordinator)}, and each with its own {{process}}",
        ) from error


_working_alone = False
"""Whether the others are waiting for this process, so that it must not wait for them."""


def first_then_all(work: Callable[[], None]) -> None:
    """Let the first process do something, and the others after it; where it fails, all of them do.

    Args:
        work: what each does. What the first writes is there when the others begin. It may call this function again.

    Raises:
        UserError: what the first process, or this one, raised.
    """
    global _working_alone
    if jax.process_count() == 1 or _working_alone:
        return work()
    failure = None
    if is_first():
        _working_alone = True
        try:
            work()
        except UserError as error:
            failure = error
        finally:
            _working_alone = False
    told = (failure.template if failure else "").encode()[:_LONGEST_MESSAGE].ljust(_LONGEST_MESSAGE, b"\0")
    heard = _from_first(np.frombuffer(told, np.uint8))
    if failure:
        raise failure
    message = np.asarray(heard).tobytes().rstrip(b"\0").decode(errors="replace")
    if message:
        raise UserError("", message)
    if not is_first():
        work()


def as_first_says(value: bool) -> bool:
    """The first process's value, in all of them."""
    return bool(_from_first(np.bool_(value))) if jax.process_count() > 1 else value


def _from_first(value: Any) -> Any:
    with jax.transfer_guard("allow"):  # these few bytes may go to the device and back wherever nothing else may
        return multihost_utils.broadcast_one_to_all(value)


_SIGNS_OF_LOSS = re.compile("gloo|nccl|coordination|peer|heartbeat|unavailable", re.IGNORECASE)


@contextlib.contextmanager
def ending_with_the_others(said: Callable[[UserError], str] = str) -> Iterator[None]:
    """End this process at once when something fails here or another process is lost, so that none waits for it
    forever."""
    try:
        yield
    except BaseException as error:
        if jax.process_count() == 1:
            raise
        reason = " ".join(str(error).split())
        if isinstance(error, UserError):
            print(f"error: {' '.join(said(error).split())}", file=sys.stderr)
        elif isinstance(error, JaxRuntimeError) and _SIGNS_OF_LOSS.search(reason):
            print(
                f"error: another process of this run is lost ({reason[:200]}); start all processes again, as many as "
                "you like: the run resumes where it stopped",
                file=sys.stderr,
            )
        else:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(2)  # an orderly end would wait for the others, which may wait for this one
