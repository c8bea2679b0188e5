"""A page of a browser that remembers everything that should not have happened in it."""

import json
import re
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Dialog, Page, Request, Response, Route, expect
from sites import Site

from nejax.atlas.explorer.pages import SITE

SETTLED = """() => {
  const main = document.querySelector("main");
  return main?.querySelector("h1") && !main.querySelector(".loading, .stale");
}"""

TWO_FRAMES = (
    "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 20))))"
)


class Watched:
    """A page of a site.

    `page` is Playwright's. `problems` holds what went wrong: errors and warnings on the console, exceptions, failed
    requests, answers of 400 and above but for addresses that hold one of `allowed`, requests to elsewhere, dialogs
    (all accepted) unless `are_dialogs_expected`.
    """

    def __init__(self, context: BrowserContext, site: Site):
        self.site = site
        self.problems: list[str] = []
        self.allowed: list[str] = []
        self._open: set[Request] = set()
        self.page: Page = context.new_page()
        # Tests of single modules import them from where they are: the site has all of them in one file.
        self.page.route(re.compile(f"{re.escape(site.address)}(js|vendor)/"), self._module)
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.problems.append(f"exception: {error}"))
        self.page.on("request", self._request)
        self.page.on("dialog", self._dialog)
        self.are_dialogs_expected = False
        self.page.on("requestfinished", lambda request: self._open.discard(request))
        self.page.on("requestfailed", self._failed)
        self.page.on("response", self._response)

    def visit(self, address: str = "", *, settle: bool = True) -> Page:
        """Open a page anew, "#/model" for instance."""
        self.page.goto("about:blank")
        self.page.goto(self.site.address + address)
        if settle:
            self.settle()
        return self.page

    def go(self, address: str) -> Page:
        """Go on to another page of the same document."""
        self.page.evaluate("address => { location.hash = address; }", address)
        self.settle()
        return self.page

    def settle(self) -> None:
        """Wait until everything that was asked for is shown: no request is open after two frames were drawn."""
        while True:
            self.page.wait_for_function(SETTLED)
            self.page.evaluate(TWO_FRAMES)
            if not self._open and self.page.evaluate(SETTLED):
                return

    @property
    def address(self) -> str:
        """What stands behind the site's own address."""
        return self.page.evaluate("location.href").removeprefix(self.site.address)

    def expect_address(self, part: str) -> None:
        """The address holds this, or will soon: what moves continuously is written there with a pause."""
        expect(self.page).to_have_url(re.compile(re.escape(part)))

    def data(self, name: str) -> Any:
        """A shard, as the page itself reads it."""
        script = "name => import('./js/data.js').then(({ openAtlas, shard }) => openAtlas().then(() => shard(name)))"
        return self.page.evaluate(script.replace("./js", f"{self.site.address}js"), name)

    def data_of_atlas(self) -> Any:
        """The description of the atlas."""
        return self.page.evaluate("address => fetch(address).then((answer) => answer.json())", "data/v1/atlas.json")

    def check(self) -> None:
        """Nothing went wrong."""
        assert not self.problems, json.dumps(self.problems, indent=1)

    def _module(self, route: Route) -> None:
        name = route.request.url.removeprefix(self.site.address)
        route.fulfill(body=(SITE / name).read_text("utf-8"), content_type="text/javascript")

    def _is_allowed(self, address: str) -> bool:
        return any(part in address for part in self.allowed)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not self._is_allowed(message.location.get("url", "")):
            self.problems.append(f"console {message.type}: {message.text} ({message.location})")

    def _dialog(self, dialog: Dialog) -> None:
        if not self.are_dialogs_expected:
            self.problems.append(f"dialog: {dialog.message}")
        dialog.accept()

    def _request(self, request: Request) -> None:
        self._open.add(request)
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob", "about") and f"{parts.scheme}://{parts.netloc}" != self.site.origin:
            self.problems.append(f"request to elsewhere: {request.url}")

    def _failed(self, request: Request) -> None:
        self._open.discard(request)
        if request.failure != "net::ERR_ABORTED":  # left the page before the answer was there
            self.problems.append(f"failed request: {request.url} {request.failure}")

    def _response(self, response: Response) -> None:
        if response.status >= 400 and not self._is_allowed(response.url):
            self.problems.append(f"answer {response.status}: {response.url}")


def new_context(browser: Browser, **options: Any) -> BrowserContext:
    """A context like a new profile, English and not too large."""
    return browser.new_context(**{"viewport": {"width": 1280, "height": 900}, "locale": "en-US", **options})
