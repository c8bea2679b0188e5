"""Serve an explorer from one process on one port, until it is interrupted."""

import contextlib
import errno
import getpass
import socket

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from nejax.atlas.explorer.guard import ASK_AGAIN, HEADERS, LONGEST_ADDRESS, is_loopback
from nejax.errors import SettingError, UserError, literal


def listen(host: str, port: int) -> socket.socket:
    """A socket that others can connect to from now on.

    Args:
        host: an address or a name of this machine.
        port: 0 for any that is free.

    Raises:
        UserError: the port is in use or not allowed, or the host is none of this machine.
    """
    if not host:
        raise SettingError("host", host, "127.0.0.1, or another address of this machine")
    listener = None
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
        return listener
    except (OSError, UnicodeError) as error:
        if listener is not None:
            listener.close()
        raise _why_not(host, port, error) from error


def serve(app: ASGIApp, listener: socket.socket) -> None:
    """Serve until Ctrl-C, without a traceback."""
    config = uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        # Longer addresses than are answered still get the answer that says so.
        h11_max_incomplete_event_size=4 * LONGEST_ADDRESS,
        timeout_graceful_shutdown=1,
    )
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run([listener])


def directions(host: str, port: int) -> str:
    """The addresses of the explorer, for the user: on this machine, and from another one."""
    is_any = host in ("0.0.0.0", "::")
    machine = socket.gethostname()
    shown = f"[{host}]" if ":" in host else host
    lines = [f"The explorer is at http://{machine if is_any else shown}:{port}/  (Ctrl-C ends it)"]
    if is_loopback(host):
        lines.append(f"From another machine: ssh -L {port}:{shown}:{port} {_user()}@{machine}")
        lines.append(f"                      and then http://127.0.0.1:{port}/")
    else:
        lines.append("Whoever can reach this machine can read the atlas.")
    return "\n".join(lines)


class _Protocol(H11Protocol):
    """HTTP, with this server's headers also where a request cannot be read at all."""

    def send_400_response(self, msg: str) -> None:
        """Answer such a request."""
        body = f"{msg}\n".encode()
        lines = [
            "HTTP/1.1 400 Bad Request",
            "Content-Type: text/plain; charset=utf-8",
            f"Content-Length: {len(body)}",
            "Connection: close",
            *(f"{name}: {value}" for name, value in (HEADERS | ASK_AGAIN).items()),
        ]
        self.transport.write("\r\n".join([*lines, "", ""]).encode() + body)
        self.transport.close()


def _why_not(host: str, port: int, error: OSError | UnicodeError) -> UserError:
    number = getattr(error, "errno", None)
    if number == errno.EADDRINUSE:
        return UserError(f"port {port} is in use", "choose another {port}, or {port}=0 for any that is free")
    if number in (errno.EACCES, errno.EPERM):
        return UserError(f"port {port} is not allowed", "expected 1024 or more, or {port}=0 for any that is free")
    reason = getattr(error, "strerror", None) or str(error)
    return SettingError("host", host, f"127.0.0.1, or another address of this machine; {literal(reason)}")


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # an id without a name, in a container
        return "USER"
