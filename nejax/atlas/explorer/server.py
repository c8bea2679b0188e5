"""The explorer's server: its pages and the atlas's shards, read-only, from one process."""

import hashlib
import re
import sys
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from nejax.atlas.explorer.guard import Guard, refusal
from nejax.atlas.explorer.openapi import MOST_OFFSET, describe
from nejax.atlas.explorer.pages import may_be_kept, media_type, pages
from nejax.atlas.explorer.shards import VERSION, NoShard, Shards, to_json
from nejax.atlas.search import LONGEST_QUERY
from nejax.errors import UserError

FOR_EVER = {"Cache-Control": "public, max-age=31536000, immutable"}
"""The caching header of files whose address changes with their content."""

_KEPT = 16 << 20  # bytes of answers
_LEVEL = 4  # of gzip: 9 takes longer than it saves
_NUMBER = re.compile("0|[1-9][0-9]{0,8}")


def explorer_app(shards: Shards, host: str = "127.0.0.1") -> ASGIApp:
    """The explorer of an atlas as an ASGI application.

    It answers GET and HEAD. Wrong requests get a 4xx and one plain line, or `{"error": LINE}` where JSON was requested.

    Args:
        shards: of the atlas.
        host: the address that the server is bound to, see `nejax.atlas.explorer.guard.Guard`.
    """
    data, root = _Data(shards), f"/data/v{VERSION}"
    routes = [
        Route(f"{root}/atlas.json", data.atlas),
        Route(f"{root}/columns/{{name}}.json", data.column),
        Route(f"{root}/neurons/{{layer}}/{{neuron}}.json", data.neuron),
        Route(f"{root}/sequences/{{block}}.json", data.sequences),
        Route(f"{root}/search", data.search),
        Route("/openapi.json", data.description),
        Route("/data/{rest:path}", _no_data),
        Route("/{name:path}", _page),
    ]
    handlers = {HTTPException: _refused, NoShard: _no_shard, UserError: _damaged, Exception: _failed}
    packed = Middleware(GZipMiddleware, minimum_size=1000, compresslevel=_LEVEL)
    app = Starlette(routes=routes, exception_handlers=handlers, middleware=[packed])
    app.router.redirect_slashes = False
    return Guard(app, host)


class _Data:
    """The handlers of the JSON routes.

    They make a shard within the event loop: one takes a millisecond or two, and threads would only take turns.
    """

    def __init__(self, shards: Shards):
        self._shards = shards
        # Of this atlas as this process serves it: another version of the code may shape it otherwise.
        self._etag = f'"{shards.fingerprint[:16]}-{time.time_ns():x}"'
        self._cache = _Cache(_KEPT)

    async def atlas(self, request: Request) -> Response:
        return self._answer(request, self._shards.atlas)

    async def description(self, request: Request) -> Response:
        return self._answer(request, lambda: describe(self._shards))

    async def column(self, request: Request) -> Response:
        return self._answer(request, lambda: self._shards.column(request.path_params["name"]))

    async def neuron(self, request: Request) -> Response:
        layer, neuron = _number(request, "layer"), _number(request, "neuron")
        return self._answer(request, lambda: self._shards.neuron(layer, neuron))

    async def sequences(self, request: Request) -> Response:
        block = _number(request, "block")
        return self._answer(request, lambda: self._shards.sequences(block))

    async def search(self, request: Request) -> Response:
        query = request.query_params.get("q", "")
        if not query:
            raise HTTPException(400, "the text to search for is missing; expected search?q=TEXT")
        if len(query) > LONGEST_QUERY:
            expected = f"expected at most {LONGEST_QUERY:,}"
            raise HTTPException(400, f"the text to search for has {len(query):,} characters; {expected}")
        offsets = _offset(request, "offset"), _offset(request, "peaks_offset")
        return Response(to_json(self._shards.search(query, *offsets)), media_type="application/json")

    def _answer(self, request: Request, make: Callable[[], Any]) -> Response:
        """A shard, made unless it is cached here, and sent unless the browser has it."""
        address = request.scope["path"]
        body = self._cache.get(address)
        if body is None:
            body = to_json(make())
            self._cache.put(address, body)
        return _unless_known(request, body, {"ETag": self._etag}, "application/json")


class _Cache:
    """A cache of the latest responses, up to so many bytes in all."""

    def __init__(self, limit: int):
        self._limit, self._size = limit, 0
        self._kept: OrderedDict[Any, bytes] = OrderedDict()

    def get(self, key: Any) -> bytes | None:
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def put(self, key: Any, body: bytes) -> None:
        self._kept[key] = body
        self._size += len(body)
        while self._size > self._limit:
            self._size -= len(self._kept.popitem(last=False)[1])


def _number(request: Request, name: str) -> int:
    value = request.path_params[name]
    if not _NUMBER.fullmatch(value):
        raise HTTPException(404, f"{name} is {value[:40]!r}; expected a whole number")
    return int(value)


def _unless_known(request: Request, body: bytes, headers: dict[str, str], media_type: str) -> Response:
    """An answer, without its body where the browser has it."""
    known = request.headers.get("if-none-match", "").split(",")
    if headers["ETag"] in [tag.strip().removeprefix("W/") for tag in known]:
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type=media_type)


async def _page(request: Request) -> Response:
    name = request.path_params["name"] or "index.html"
    content = pages().get(name)
    if content is None:
        raise HTTPException(404)
    headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()[:16]}"', **(FOR_EVER if may_be_kept(name) else {})}
    return _unless_known(request, content, headers, media_type(name))


def _offset(request: Request, name: str) -> int:
    value = request.query_params.get(name, "0")
    if not _NUMBER.fullmatch(value):
        raise HTTPException(400, f"{name} is {value[:40]!r}; expected a number from 0 to {MOST_OFFSET:,}")
    return int(value)


async def _no_data(request: Request) -> Response:
    raise HTTPException(404, "there is no such data; openapi.json describes what there is")


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path, line = request.scope["path"], error.detail
    if error.status_code == 405:
        line = f"{request.method[:40]} is not answered, as everything is only read; expected GET or HEAD"
    elif line == HTTPStatus(error.status_code).phrase:
        line = f"{path[:200]}: {line.lower()}"
    return refusal(path, error.status_code, line)


async def _no_shard(request: Request, error: Exception) -> Response:
    return refusal(request.scope["path"], 404, str(error))


async def _damaged(request: Request, error: Exception) -> Response:
    traceback.print_exception(error, file=sys.stderr)
    return refusal(request.scope["path"], 500, str(error))


async def _failed(request: Request, error: Exception) -> Response:
    """An unexpected error. The traceback goes to standard error, through the server's log."""
    return refusal(request.scope["path"], 500, "something went wrong; what it was stands in the server's own output")
