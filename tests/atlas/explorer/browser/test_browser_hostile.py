"""Text that is meant to do harm is shown as text."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser
from sites import Site, exported, served
from small_run import make_model
from watched import Watched, new_context

from nejax.atlas.atlas import Atlas, open_atlas
from nejax.atlas.build import atlas_of
from nejax.pipeline.stages.run import Run, Settings

HOSTILE = [
    "<script>alert(1)</script><img src=x onerror=alert(2)>",
    "</title></textarea><svg onload=alert(3)>${alert(4)}`{{7*7}}",
    "left \u202eright-to-left override\u202c and \u2066isolate\u2069 and \u200fmark",
    "bell \x07 escape \x1b[31m null-ish \x01 delete \x7f next line \x85",
    "👩‍👩‍👧‍👦🏳️‍🌈 emoji " + "é" * 30 + " a" + "\u0301" * 200,
    "x" * 10_000,
    "\u2028line\u2029paragraph\ufeffmark\u00a0space\u200bzero",
    "constructor __proto__ toString hasOwnProperty &lt;b&gt; &amp; javascript:alert(5)",
]
LONG_NAME = "n" * 3000
NAME = "<img src=x onerror=alert(6)>\u202e.txt"


@pytest.fixture(scope="session")
def hostile_atlas(tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    """Of a model whose tokens are single bytes and short pieces, and of a corpus that means harm."""
    folder = tmp_path_factory.mktemp("hostile")
    corpus = folder / "corpus"
    corpus.mkdir()
    for i, text in enumerate(HOSTILE):
        (corpus / f"{i}{NAME}").write_text(" ".join([text] * (1 if len(text) > 1000 else 4)), encoding="utf-8")
    (corpus / "names.jsonl").write_text(json.dumps({"id": LONG_NAME, "text": "A text of a long name. " * 20}))
    model = make_model(folder / ("m" * 200))
    settings = Settings.of(model=str(model), corpus=str(corpus), seq_len=32, keep=16, examples=12, max_sequences=80)
    run = Run(folder / "run", settings, quiet=True)
    atlas_of(run)
    return open_atlas(run.directory.path)


@pytest.fixture(scope="session", params=["server", "static"])
def hostile_site(
    request: pytest.FixtureRequest, hostile_atlas: Atlas, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    if request.param == "server":
        with served(hostile_atlas) as site:
            yield site
    else:
        with exported(hostile_atlas, Path(tmp_path_factory.mktemp("hostile-files")), "x") as site:
            yield site


STRANGERS = """() => [
  ...[...document.querySelectorAll("script")].filter((e) => !e.src.endsWith("/app.js")),
  ...document.querySelectorAll("main img, main iframe, main object, main [onerror], main [onload]"),
].map((e) => e.outerHTML.slice(0, 100))"""
UNSEEN = r"""() => document.querySelector("main").innerText
  .match(/[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g)"""


def pages(atlas: Atlas) -> list[str]:
    """Addresses of pages that show much of the corpus."""
    alive = [i for i, n in enumerate(atlas.neurons_table()["n_examples"]) if n > 4][:: atlas.n_neurons // 4][:4]
    places = [f"{i // atlas.d_mlp}/{i % atlas.d_mlp}" for i in alive]
    whole = "?window=99&after=99&spaces=1"
    words = ["script", "alert", "constructor", "__proto__", "right", "%3Cscript%3E", "xxxx*", "%E2%80%AE", "%00"]
    return [
        "#/model",
        *(f"#/neuron/{place}?example=1" for place in places),
        *(f"#/feature/{place}/0{whole}" for place in places),
        f"#/compare?a={places[0]}/0&b={places[1]}",
        *(f"#/search?q={word}" for word in words),
        *(f"#/sequence/{s}?at=3" for s in range(0, atlas.n_sequences, max(1, atlas.n_sequences // 6))),
        "#/about",
    ]


def test_hostile_text_is_text(browser: Browser, hostile_site: Site):
    context = new_context(browser, viewport={"width": 400, "height": 800})
    watched = Watched(context, hostile_site)
    watched.allowed.append("/search/")
    for address in pages(hostile_site.atlas):
        page = watched.visit(address)
        assert page.evaluate(STRANGERS) == [], address
        assert page.evaluate(UNSEEN) is None, address
        assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth"), address
    context.close()
    watched.check()


def test_a_long_name_makes_no_page_wide(browser: Browser, hostile_site: Site):
    """A document's, wherever it is shown, and the model's."""
    atlas = hostile_site.atlas
    sequence = next(i for i in range(atlas.n_sequences) if atlas.document(i) == LONG_NAME)
    context = new_context(browser, viewport={"width": 390, "height": 844})
    watched = Watched(context, hostile_site)
    watched.allowed.append("/search/")
    for width in (390, 1024):
        watched.page.set_viewport_size({"width": width, "height": 768})
        for address in (f"#/sequence/{sequence}?at=3", "#/search?q=long+name", "#/model", "#/starred", "#/about"):
            page = watched.visit(address)
            assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth"), (width, address)
    context.close()
    watched.check()


def test_hostile_text_is_there_to_read(browser: Browser, hostile_site: Site):
    context = new_context(browser)
    watched = Watched(context, hostile_site)
    sequence = next(i for i in range(hostile_site.atlas.n_sequences) if "<script>" in hostile_site.atlas.text(i))
    page = watched.visit(f"#/sequence/{sequence}")
    assert "<script>" in (page.locator(".sequence-text").text_content() or "")
    override = next(i for i in range(hostile_site.atlas.n_sequences) if "\u202e" in hostile_site.atlas.text(i))
    page = watched.visit(f"#/sequence/{override}")
    assert "⟨U+202E⟩" in (page.locator(".sequence-text").text_content() or "")
    context.close()
    watched.check()
