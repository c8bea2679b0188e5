"""How the pages arrive: in few answers, most of which are kept, and without things that jump."""

import pytest
from playwright.sync_api import Browser, CDPSession, Page
from sites import Site
from watched import SETTLED, new_context

DELAY = 100  # ms until an answer begins
SHIFTS = """() => new Promise((done) => new PerformanceObserver((list, observer) => {
  observer.disconnect();
  done(list.getEntries().filter((entry) => !entry.hadRecentInput).map(({ value, sources }) =>
    [value, sources.map(({ node }) => (node?.outerHTML ?? "").slice(0, 100))]));
}).observe({ type: "layout-shift", buffered: true }) || setTimeout(() => done([]), 200))"""
FETCHED = """() => performance.getEntries().map((entry) => entry.toJSON())
  .filter(({ entryType }) => ["navigation", "resource"].includes(entryType))"""


@pytest.mark.parametrize(("width", "height"), [(1440, 900), (1024, 768), (390, 844)])
def test_nothing_jumps_when_the_overview_arrives(browser: Browser, server: Site, width: int, height: int):
    context = new_context(browser, viewport={"width": width, "height": height})
    page = context.new_page()
    slowed(page)
    page.goto(f"{server.address}#/model")
    page.wait_for_function(SETTLED)
    page.locator(".overview canvas").wait_for()
    page.wait_for_timeout(150)
    shifts = page.evaluate(SHIFTS)
    assert sum(value for value, _ in shifts) < 0.02, shifts
    context.close()


def slowed(page: Page) -> CDPSession:
    """Each answer comes so much later."""
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    conditions = {"offline": False, "latency": DELAY, "downloadThroughput": -1, "uploadThroughput": -1}
    session.send("Network.emulateNetworkConditions", conditions)
    return session


def waits(page: Page) -> int:
    """How many answers were waited for one after the other, until the page was there."""
    files = [file for file in page.evaluate(FETCHED) if not file["name"].endswith("icon.svg")]
    depth: dict[str, int] = {}
    for file in sorted(files, key=lambda file: file["startTime"]):
        if file["transferSize"] == 0:  # the browser had it
            continue
        before = (other["name"] for other in files if other["responseEnd"] <= file["startTime"])
        depth[file["name"]] = 1 + max((depth.get(name, 0) for name in before), default=0)
    return max(depth.values(), default=0)


def test_few_answers_are_waited_for(browser: Browser, site: Site):
    """Three at a tenth of a second each leave half of half a second for all else; what is kept is not asked for."""
    context = new_context(browser)
    page = context.new_page()
    slowed(page)
    for visit in range(2):
        page.goto("about:blank")
        page.goto(f"{site.address}#/model")
        page.locator(".overview canvas").wait_for()
        page.wait_for_function(SETTLED)
        files = page.evaluate(FETCHED)
        assets = [file for file in files if "/assets/" in file["name"]]
        assert len(files) <= 8 and len(assets) == 2, files
        assert waits(page) <= 3, files
        if not site.is_static:  # Python's file server neither compresses nor says how long files may be kept
            assert all(file["encodedBodySize"] < 0.5 * file["decodedBodySize"] for file in assets), assets
            assert all((file["transferSize"] == 0) == (visit == 1) for file in assets), assets
    context.close()
