"""A browser, and the explorer of one atlas on its server and as a static site."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sites import ROOT, Site, exported, served

from nejax.atlas.atlas import Atlas, open_atlas
from nejax.atlas.neuron import Neuron
from nejax.errors import UserError

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page
    from watched import Watched


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def browser() -> Iterator["Browser"]:
    """Debian's Chromium, or the one that CHROMIUM names."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install '.[test]'")
    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if path is None:
        pytest.skip("needs Chromium: apt-get install chromium, or its path in CHROMIUM")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def explored(request: pytest.FixtureRequest) -> Atlas:
    """The demo's atlas where there is one (or the one that NEJAX_DEMO_ATLAS names), else that of the small run."""
    demo = os.environ.get("NEJAX_DEMO_ATLAS")
    try:
        return open_atlas(demo or ROOT / "runs" / "demo")
    except UserError:
        if demo:
            raise
        return open_atlas(request.getfixturevalue("run").directory.path)


@pytest.fixture(scope="session")
def server(explored: Atlas) -> Iterator[Site]:
    """The explorer's own server."""
    with served(explored) as site:
        yield site


@pytest.fixture(scope="session")
def static(explored: Atlas, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Site]:
    """An export, under a sub-path of a file server. Of one atlas, the processes that tests are spread over share it."""
    folder = tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):
        folder = folder.parent
    name = f"explorer-of{explored.path.as_posix().replace('/', '-')}"
    with exported(explored, folder / name, "some/where") as site:
        yield site


@pytest.fixture(scope="session", params=["server", "static"])
def site(request: pytest.FixtureRequest) -> Site:
    """The explorer, each way."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def watched(browser: "Browser", site: Site) -> Iterator["Watched"]:
    """A new browser window. The test fails if anything went wrong in it."""
    from watched import Watched, new_context

    context = new_context(browser)
    watched = Watched(context, site)
    yield watched
    context.close()
    watched.check()


@pytest.fixture
def page(watched: "Watched") -> "Page":
    """Playwright's page of that window."""
    return watched.page


@pytest.fixture(scope="session")
def pages(neuron: Neuron) -> dict[str, str]:
    """An address of every page."""
    place = f"{neuron.layer}/{neuron.index}"
    return {
        "model": "#/model",
        "neurons": "#/neurons",
        "neuron": f"#/neuron/{place}",
        "cut": f"#/neuron/{place}?cut=0.3&example=1",
        "feature": f"#/feature/{place}/0",
        "compare": f"#/compare?a={place}/0&b={place}",
        "search": "#/search?q=the",
        "sequence": f"#/sequence/{neuron.features[0].central.sequence}?at={neuron.features[0].central.position}",
        "starred": "#/starred",
        "about": "#/about",
    }


@pytest.fixture(scope="session")
def neuron(explored: Atlas) -> Neuron:
    """One with several features, two of them with several examples, and a similar feature."""
    table = explored.features_table()
    candidates = table["neuron_id"][(table["feature"] == 1) & (table["n_examples"] > 1)]
    for id_ in candidates.tolist():
        neuron = explored.neuron(*divmod(id_, explored.d_mlp))
        if neuron.n_features > 2 and neuron.features[0].similar:
            return neuron
    raise AssertionError("no neuron of this atlas is fit for the tests")
