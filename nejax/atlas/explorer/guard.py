"""Checks of every request (host, size) and headers of every response."""

import ipaddress
import json

from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nejax.atlas.search import LONGEST_QUERY

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'"
)
"""What the pages may load (Content-Security-Policy)."""

HEADERS = {
    "Content-Security-Policy": f"{POLICY}; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Of every answer."""

ASK_AGAIN = {"Cache-Control": "no-cache"}
"""Of a response without caching headers of its own: browsers revalidate it each time."""

LONGEST_ADDRESS = 12 * LONGEST_QUERY + 200
"""Bytes of a path, and of what follows its question mark: a character takes up to 12."""

LOOPBACK = {"127.0.0.1", "localhost", "[::1]"}
"""Names of this machine in an address."""


class Guard:
    """Refuses invalid requests before any route, and adds the headers to every response.

    Args:
        app: what answers.
        host: the address that the server is bound to. On a loopback address, only requests for this machine are
            answered: so that no page of another site can read the atlas (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, host: str):
        self._app = app
        self._hosts = LOOPBACK | {host.lower()} if is_loopback(host) else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                for name, value in ASK_AGAIN.items():
                    headers.setdefault(name, value)
            await send(message)

        answer = self._refusal(scope) or self._app
        await answer(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        path = scope["path"]
        host = b"".join(value for name, value in scope["headers"] if name == b"host").decode("latin-1").lower()
        if self._hosts is not None and host_name(host) not in self._hosts:
            return refusal(
                path, 400, f"asked for the host {host[:100]!r}; this answers only for the machine it runs on"
            )
        if max(len(scope.get("raw_path") or b""), len(path), len(scope["query_string"])) > LONGEST_ADDRESS:
            return refusal(path, 414, f"the address is too long; expected at most {LONGEST_ADDRESS:,} characters")
        return None


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from its own machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def host_name(host: str) -> str:
    """A Host header without its port."""
    name, colon, port = host.rpartition(":")
    return name if colon and port.isascii() and port.isdigit() else host


def is_data(path: str) -> bool:
    """Whether what is under an address is JSON, and so are its errors."""
    return path.startswith("/data/") or path == "/openapi.json"


def refusal(path: str, status: int, line: str) -> Response:
    """An answer that says in one line what was wrong: JSON where the address is one of JSON."""
    line = "".join(character if character.isprintable() else " " for character in line)
    headers = {"Allow": "GET, HEAD"} if status == 405 else None
    if is_data(path):
        return Response(json.dumps({"error": line}), status, headers, "application/json")
    return Response(f"{line}\n".encode(errors="replace"), status, headers, "text/plain")
