"""What token importance and a census add to the pages, in an atlas that has both."""

import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest
from playwright.sync_api import Browser, Locator, expect
from sites import Site, exported, served
from watched import Watched, new_context

from nejax.atlas.atlas import Atlas, open_atlas
from nejax.atlas.entries import Example
from nejax.atlas.neuron import Neuron


@pytest.fixture(scope="module")
def vivid(full_atlas: Atlas, tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    """The atlas with what a model of random weights lacks: features that are rare and need earlier tokens, and a band
    of fewer than two tokens."""
    copy = shutil.copytree(full_atlas.path, tmp_path_factory.mktemp("atlases") / "vivid")
    importance, bands, counts = (np.load(copy / f"{name}.npy") for name in ("importance", "bands", "band_counts"))
    drawn = np.random.default_rng(0).random(importance[:, :-1].shape)
    importance[:, :-1] = np.where(np.isnan(importance[:, :-1]), np.nan, drawn**3)
    bands[:, -1], counts[:, -1] = np.nan, 1
    for name, array in (("importance", importance), ("bands", bands), ("band_counts", counts)):
        np.save(copy / f"{name}.npy", array)
    with closing(sqlite3.connect(copy / "atlas.sqlite")) as database, database:
        database.execute("UPDATE features SET frequency = frequency / (1 + 9 * feature * feature)")
    return open_atlas(copy)


@pytest.fixture(scope="module", params=["server", "static"])
def full_site(request: pytest.FixtureRequest, vivid: Atlas, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if request.param == "server":
        with served(vivid) as site:
            yield site
    else:
        with exported(vivid, tmp_path_factory.mktemp("files"), "full") as site:
            yield site


@pytest.fixture
def full_page(browser: Browser, full_site: Site) -> Iterator[Watched]:
    """A new browser window. The test fails if anything went wrong in it."""
    context = new_context(browser)
    watched = Watched(context, full_site)
    yield watched
    context.close()
    watched.check()


def is_known(example: Example) -> bool:
    return bool(np.isfinite(example.importance).any())


@pytest.fixture(scope="module")
def full_neuron(vivid: Atlas) -> Neuron:
    """One with several features of several examples, the first of which has some without importance."""
    for id_ in range(vivid.n_neurons):
        neuron = vivid.neuron(*divmod(id_, vivid.d_mlp))
        if sum(feature.n_examples > 1 for feature in neuron.features) < 2:
            continue
        known = [is_known(example) for example in neuron.features[0].examples]
        if not all(known) and sum(known) == 2:
            return neuron
    raise AssertionError("no neuron of this atlas is fit for the tests")


def address(neuron: Neuron, query: str = "") -> str:
    return f"#/feature/{neuron.layer}/{neuron.index}/0?window=99&after=99{query}"


def shades(row: Locator, name: str) -> list[float]:
    script = f"tokens => tokens.map((token) => Number(token.style.getPropertyValue('--shade-{name}')))"
    return row.locator(".token").evaluate_all(script)


@pytest.mark.parametrize("shade", ["importance", "both"])
def test_importance_colours_the_tokens_before_the_peak(full_page: Watched, full_neuron: Neuron, shade: str):
    page = full_page.visit(address(full_neuron))
    assert set(shades(page.locator("main"), "importance")) == {0}
    page.locator(f'button[name="shade"][value="{shade}"]').click()
    assert f"shade={shade}" in full_page.address
    examples = full_neuron.features[0].examples
    for row, example in zip(page.locator("li.example").all(), examples, strict=True):
        expected = np.nan_to_num(example.importance)  # what is not known is plain
        np.testing.assert_allclose(shades(row, "importance"), expected, rtol=0, atol=6e-4)  # three decimals
        assert any(shades(row, "activation")) == (shade == "both")
        expect(row.locator(".token.important")).to_have_count(int((expected > 5e-4).sum()))
    widths = page.locator(".token.important").evaluate_all(
        "tokens => tokens.map((token) => getComputedStyle(token).borderBottomStyle)"
    )
    assert set(widths) == {"solid"}


def test_a_note_says_where_importance_is_known(full_page: Watched, full_neuron: Neuron):
    examples = full_neuron.features[0].examples
    n = sum(map(is_known, examples))
    page = full_page.visit(address(full_neuron, "&shade=importance"))
    note = page.locator('[data-note="importance"]')
    expect(note).to_contain_text(f"{n} of {len(examples)} here")
    note.get_by_role("button", name="central first").click()
    rows = page.locator("li.example")
    marked = [row.locator(".token.important").count() > 0 for row in rows.all()]
    assert marked == sorted(marked, reverse=True) and sum(marked) == n
    page.locator('button[name="shade"][value="activation"]').click()
    expect(note).to_have_count(0)


def test_a_token_tells_its_importance(full_page: Watched, full_neuron: Neuron):
    number, example = next((i, e) for i, e in enumerate(full_neuron.features[0].examples) if is_known(e))
    page = full_page.visit(address(full_neuron))
    tokens = page.locator("li.example").nth(number).locator(".token")
    for i, value in enumerate(example.importance.tolist()):
        said = re.findall(r"importance ([\d.e−]+)", tokens.nth(i).get_attribute("title") or "")
        assert len(said) == np.isfinite(value)
        if said:
            assert float(said[0].replace("−", "-")) == pytest.approx(value, rel=6e-2 if value < 1e-4 else 6e-3)
    tokens.nth(example.peak).click()
    expect(page.locator("li.example").nth(number).locator(".readout")).to_contain_text("importance 1.00")


def share_told(text: str) -> float:
    """Of "1 in 3,400 tokens" or "2.1% of tokens"."""
    one_in = re.search(r"1 in ([\d,]+) tokens", text)
    if one_in:
        return 1 / float(one_in[1].replace(",", ""))
    percent = re.search(r"([\d.]+)% of tokens", text)
    return float(percent[1]) / 100 if percent else 0.0


def test_cards_and_pages_of_features_tell_how_often_they_come(full_page: Watched, full_neuron: Neuron):
    page = full_page.visit(f"#/neuron/{full_neuron.layer}/{full_neuron.index}")
    several = [feature for feature in full_neuron.features if feature.n_examples > 1]
    for feature in several:
        card = page.locator(f'.feature-card[data-feature="{feature.index}"]')
        told = share_told(card.locator('[data-fact="frequency"]').inner_text())
        assert told == pytest.approx(feature.frequency, rel=0.06)  # two digits
        coverage = card.locator('[data-fact="coverage"]').inner_text()
        assert float(coverage.split()[1].rstrip("%")) == pytest.approx(100 * feature.coverage, rel=6e-3)
    full_page.go(address(full_neuron))
    lead = page.locator("main .lead")
    assert share_told(lead.inner_text()) == pytest.approx(full_neuron.features[0].frequency, rel=0.06)
    expect(lead).to_contain_text("of the neuron’s activation")
    # At another cut there are other features, which were not counted.
    full_page.go(f"#/neuron/{full_neuron.layer}/{full_neuron.index}?cut=0.001")
    expect(page.locator('[data-fact="frequency"]')).to_have_count(0)


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (0, "at no token"),
        (1 / 3421, "1 in 3,400 tokens"),
        (1 / 123, "1 in 123 tokens"),
        (1 / 1_234_567, "1 in 1,200,000 tokens"),
        (0.0214, "2.14% of tokens"),
        (0.5, "50.0% of tokens"),
    ],
)
def test_rare_and_common_are_told_apart(full_page: Watched, share: float, said: str):
    full_page.visit("#/about")
    script = "([root, share]) => import(`${root}js/format.js`).then(({ often }) => often(share))"
    assert full_page.page.evaluate(script, [full_page.site.address, share]) == said


def test_bands_are_drawn_and_told(full_page: Watched, full_neuron: Neuron):
    page = full_page.visit(f"#/neuron/{full_neuron.layer}/{full_neuron.index}")
    bands, chart = full_neuron.bands, page.locator("#bands")
    known = np.isfinite(bands.mean_distance)
    expect(chart).to_contain_text(f"{bands.n_tokens.sum():,} tokens")
    expect(chart.locator(".band")).to_have_count(len(known))
    bars = chart.locator(".band-bar")
    heights = [box["height"] for bar in bars.all() if (box := bar.bounding_box())]
    expected = bands.mean_distance[known]
    np.testing.assert_allclose(np.array(heights) / max(heights), expected / expected.max(), atol=0.02)  # pixels
    picture = chart.get_by_role("img")
    said = picture.get_attribute("aria-label") or ""
    assert said.count("fewer than two") == (~known).sum() and "75–100% of its maximum" in said
    chart.get_by_text("As a table").click()
    rows = chart.locator("tbody tr")
    for row, n, distance in zip(rows.all(), bands.n_tokens.tolist(), bands.mean_distance.tolist(), strict=True):
        cells = row.locator("td").all_inner_texts()
        assert cells[0] == f"{n:,}"
        assert cells[1] == "–" if np.isnan(distance) else float(cells[1]) == pytest.approx(distance, abs=6e-4)


def test_the_measures_of_a_census_are_offered(full_page: Watched, full_neuron: Neuron):
    page = full_page.visit(f"#/neuron/{full_neuron.layer}/{full_neuron.index}")
    row = page.locator('[data-measure="corpus_mean_distance"]')
    expect(row).to_contain_text("Mean distance everywhere")
    expect(row).to_contain_text(f"{full_neuron.corpus_mean_distance:.3f}")
    coverage = page.locator('[data-measure="coverage"] td').first.inner_text()
    assert float(coverage.rstrip("%")) == pytest.approx(100 * full_neuron.coverage, rel=6e-3)
    full_page.go("#/model?measure=coverage")
    expect(page.locator("main")).to_contain_text("Coverage")


def test_about_says_how_they_were_made(full_page: Watched, vivid: Atlas):
    page = full_page.visit("#/about")
    expect(page.locator("#beyond")).to_be_visible()
    made = page.locator("#made")
    expect(made).to_contain_text("of the 8 tokens before the peak, in up to 2 examples a feature")
    expect(made).to_contain_text(f"{vivid.manifest['stages']['census']['tokens']:,} tokens of")


def test_an_atlas_without_them_shows_none(watched: Watched, explored: Atlas, neuron: Neuron):
    if explored.manifest["settings"]["census"]:
        pytest.skip("needs an atlas without a census; this one has one")
    page = watched.visit(f"#/neuron/{neuron.layer}/{neuron.index}")
    expect(page.locator("#histogram")).to_be_visible()
    expect(page.locator('#bands, [data-fact="frequency"], [data-measure="coverage"]')).to_have_count(0)
