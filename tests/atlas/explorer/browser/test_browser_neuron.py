"""A neuron's page: its features as in the atlas, the cut that re-clusters, and charts that light up together."""

import re
from itertools import pairwise

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect
from sites import Site
from watched import Watched, new_context

from nejax.atlas.atlas import Atlas
from nejax.atlas.neuron import Neuron
from nejax.neuron.clustering.average_linkage import average_linkage, cut

CUT = """([root, cases]) => import(`${root}js/linkage.js`).then(({ cut }) =>
  cases.map(({ merges, n, heights }) => heights.map((height) => cut(merges, n, height))))"""


def address(neuron: Neuron, query: str = "") -> str:
    return f"#/neuron/{neuron.layer}/{neuron.index}{query}"


def n_features(page: Page) -> int:
    """As the page counts them."""
    return int(page.locator("#n-features").inner_text().split()[0].replace(",", ""))


def listed(page: Page) -> int:
    """Cards and single features on the page."""
    return page.locator(".feature-card, .single-feature").count()


def test_cards_are_the_features_of_the_atlas(watched: Watched, neuron: Neuron):
    page = watched.visit(address(neuron))
    expect(page.locator("h1")).to_have_text(f"Layer {neuron.layer}, neuron {neuron.index}")
    cards = page.locator(".feature-card")
    several = [feature for feature in neuron.features if feature.n_examples > 1]
    expect(cards).to_have_count(len(several))
    assert listed(page) == neuron.n_features == n_features(page)
    for card, feature in zip(cards.all(), several, strict=True):
        expect(card).to_have_attribute("data-feature", str(feature.index))
        expect(card.locator('[data-fact="examples"]')).to_have_text(f"{feature.n_examples} examples")
        share = int(feature.n_examples / neuron.n_examples * 100 + 0.5)
        expect(card.locator('[data-fact="share"]')).to_have_text(f"{share}%")
        cohesion = float(card.locator('[data-fact="cohesion"]').inner_text().split()[-1].replace("−", "-"))
        assert cohesion == pytest.approx(feature.cohesion, abs=1e-3)
        for text, count in feature.peak_tokens[:2]:
            if re.fullmatch(r"\s*[!-~]+", text):
                expect(card).to_contain_text(text.strip())
                expect(card).to_contain_text(str(count))


def test_measures_are_those_of_the_atlas(watched: Watched, neuron: Neuron):
    page = watched.visit(address(neuron))
    expect(page.locator('#measures, [aria-labelledby="measures-title"]').first).to_contain_text(
        f"{neuron.mean_distance:.3f}"
    )


def test_any_cut_gives_the_features_of_python(watched: Watched, neuron: Neuron):
    data = watched.visit("#/about") and watched.data(f"neurons/{neuron.layer}/{neuron.index}")
    heights = sorted(height for _, _, height, _ in data["merges"])
    between = [(a + b) / 2 for a, b in pairwise(heights) if b - a > 1e-3]
    chosen = [round(height, 4) for height in between[:: max(1, len(between) // 5)]]
    assert chosen
    for height in [0.0, *chosen, 1.9]:
        page = watched.go(address(neuron, f"?cut={height}"))
        labels = neuron.cut(height)
        assert n_features(page) == labels.max() + 1 == listed(page)
        sizes = sorted(np.bincount(labels).tolist(), reverse=True)
        said = page.locator('.feature-card [data-fact="examples"]').all_inner_texts()
        assert [int(text.split()[0]) for text in said] == [size for size in sizes if size > 1]


def test_the_cut_is_dragged(watched: Watched, neuron: Neuron):
    page = watched.visit(address(neuron))
    page.locator("#cut").scroll_into_view_if_needed()
    before = len(page.evaluate("Array(history.length).fill(0)"))
    grip = page.locator("#cut .cut-grip").bounding_box()
    frame = page.locator("#dendrogram svg").bounding_box()
    assert grip and frame
    x, y = grip["x"] + grip["width"] / 2, grip["y"] + grip["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    for goal in (0.45, 0.6, 0.85):
        page.mouse.move(frame["x"] + goal * frame["width"], y, steps=4)
        page.wait_for_timeout(60)
        height = float(page.locator("#cut").get_attribute("aria-valuenow") or "nan")
        assert n_features(page) == neuron.cut(height).max() + 1
    page.mouse.up()
    expect(page.locator(".cut-notice")).to_be_visible()
    assert len(page.evaluate("Array(history.length).fill(0)")) == before  # a drag is one place, not hundreds
    shown = n_features(page)
    page.reload()
    watched.settle()
    assert n_features(page) == shown
    page.locator("#reset-cut").click()
    expect(page.locator(".cut-notice")).to_have_count(0)
    expect(page).not_to_have_url(re.compile("cut="))
    assert n_features(page) == neuron.n_features


def test_the_cut_answers_to_keys_and_buttons(watched: Watched, neuron: Neuron):
    page = watched.visit(address(neuron))
    slider = page.get_by_role("slider", name="Height of the cut")
    slider.focus()
    start = float(slider.get_attribute("aria-valuenow") or "nan")
    page.keyboard.press("ArrowRight")
    watched.expect_address("cut=")
    assert float(slider.get_attribute("aria-valuenow") or "nan") == pytest.approx(start + 0.01, abs=2e-3)
    page.keyboard.press("Home")
    expect(page.locator("#n-features")).to_contain_text(str(neuron.cut(0.0).max() + 1))
    page.get_by_role("button", name="Fewer features").click()
    page.wait_for_timeout(80)
    assert n_features(page) < neuron.cut(0.0).max() + 1
    assert watched.address.startswith(address(neuron))  # arrows were the slider's, not the page's


def test_pointing_at_a_card_lights_up_its_examples(watched: Watched, neuron: Neuron):
    page = watched.visit(address(neuron))
    members = neuron.features[1].n_examples
    page.locator('.feature-card[data-feature="1"] h3').hover()
    dim = page.locator("#map circle.point.dim")
    expect(dim).to_have_count(neuron.n_examples - members)
    page.mouse.move(2, 2)
    expect(dim).to_have_count(0)
    page.get_by_role("button", name="Show only feature 1 in the charts").click()
    expect(dim).to_have_count(neuron.n_examples - members)
    assert "feature=1" in watched.address


def test_an_example_is_selected_in_the_map_and_by_its_card(watched: Watched, neuron: Neuron):
    page = watched.visit(address(neuron))
    page.locator("a.context").first.click()
    detail = page.locator("#example-detail")
    expect(detail).to_be_visible()
    number = detail.get_attribute("data-example")
    assert f"example={number}" in watched.address
    example = neuron.examples[int(number or -1)]
    expect(detail).to_contain_text(f"sequence {example.sequence}")
    expect(detail.locator(".token")).to_have_count(len(example.tokens))
    page.reload()
    watched.settle()
    expect(detail).to_have_attribute("data-example", number or "")
    page.keyboard.press("Escape")
    expect(detail).to_have_count(0)
    page.get_by_role("listbox").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(detail).to_be_visible()
    page.go_back()
    expect(detail).to_have_count(0)


def test_a_dead_neuron_says_so(watched: Watched, explored: Atlas):
    dead = np.flatnonzero(explored.neurons_table()["n_examples"] == 0)
    assert dead.size, "no neuron of this atlas is fit for the test"
    layer, index = divmod(int(dead[0]), explored.d_mlp)
    page = watched.visit(f"#/neuron/{layer}/{index}")
    expect(page.locator("main")).to_contain_text("dead")


def test_cuts_in_the_browser_are_those_of_nejax(watched: Watched):
    """Random trees, with ties and identical examples among them."""
    rng = np.random.default_rng(0)
    cases, expected = [], []
    for n in (1, 2, 3, 7, 20, 40):
        for digits in (8, 1):
            points = rng.normal(size=(n, 3))
            distances = np.round(np.abs(points[:, None] - points[None]).sum(-1) / 10, digits).astype(np.float32)
            linkage = average_linkage(distances)
            merges = np.asarray(linkage.merges, np.float64)[: int(linkage.n_merges)].tolist()
            heights = [0.0, *(float(m[2]) for m in merges[:: max(1, n // 5)]), *rng.uniform(0, 1, 4).tolist()]
            cases.append({"merges": merges, "n": n, "heights": heights})
            expected.append([np.asarray(cut(linkage, np.float32(height))).tolist() for height in heights])
    watched.visit("#/about")
    assert watched.page.evaluate(CUT, [watched.site.address, cases]) == expected


MERGED = """(root) => import(`${root}js/tokens.js`).then(({ mergedPeaks, peakName }) => {
  const peaks = [[" are", 2], ["is", 3], ["are", 1], ["\\n", 1], ["  ", 1], ["Are", 1]];
  return [mergedPeaks(peaks).map(([text, n]) => [peakName(text), n]), mergedPeaks(mergedPeaks(peaks)).length];
})"""


def test_peak_tokens_that_read_alike_are_one(watched: Watched):
    page = watched.visit("#/about")
    names, n = page.evaluate(MERGED, watched.site.address)
    assert sorted(names) == sorted([["are", 3], ["is", 3], ["⏎", 1], ["··", 1], ["Are", 1]])
    assert [count for _, count in names] == [3, 3, 1, 1, 1] and n == len(names)


def test_no_two_chips_of_a_feature_read_alike(watched: Watched, neuron: Neuron):
    page = watched.visit(f"#/neuron/{neuron.layer}/{neuron.index}")
    for chips in page.locator(".feature-card .peak-chips").all():
        texts = chips.locator(".chip-text").all_inner_texts()
        assert len({*texts}) == len(texts)


def test_the_charts_do_not_scroll_inside_themselves(browser: Browser, server: Site, neuron: Neuron):
    """On a low screen they go along until their foot is in sight; on a high one they stay."""
    context = new_context(browser, viewport={"width": 1024, "height": 768})
    watched = Watched(context, server)
    page = watched.visit(f"#/neuron/{neuron.layer}/{neuron.index}")
    charts = page.locator(".neuron-charts")
    assert charts.evaluate("(e) => e.scrollHeight <= e.clientHeight && getComputedStyle(e).overflowY") == "visible"
    histogram = page.locator("#histogram")
    histogram.scroll_into_view_if_needed()
    box = histogram.bounding_box()
    assert box is not None and box["y"] >= 0 and box["y"] + box["height"] <= 768
    context.close()
    watched.check()
