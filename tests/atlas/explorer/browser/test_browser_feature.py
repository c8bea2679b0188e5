"""A feature's page, the comparison of two, and what a person stars and keeps."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect
from watched import Watched

from nejax.atlas.atlas import Atlas
from nejax.atlas.neuron import Neuron


def address(neuron: Neuron, feature: int = 0, query: str = "") -> str:
    return f"#/feature/{neuron.layer}/{neuron.index}/{feature}{query}"


def downloaded(page: Page, button: Locator) -> bytes:
    with page.expect_download() as download:
        button.click()
    return Path(download.value.path()).read_bytes()


def test_examples_are_those_of_the_atlas(watched: Watched, neuron: Neuron):
    feature = neuron.features[0]
    page = watched.visit(address(neuron, query="?window=99&after=99"))
    rows = page.locator("li.example")
    expect(rows).to_have_count(feature.n_examples)
    for row, example in zip(rows.all()[:8], feature.examples, strict=False):
        expect(row.locator(".token")).to_have_count(len(example.tokens))
        value = float(row.locator(".example-value").inner_text().replace("−", "-"))
        assert value == pytest.approx(example.activation, rel=6e-3)
        peak = row.locator(".token.peak")
        expect(peak).to_have_count(1)
        assert peak.get_attribute("data-position") == str(example.position)


def test_the_view_is_in_the_address(watched: Watched, explored: Atlas, neuron: Neuron):
    page = watched.visit(address(neuron))
    shades = page.get_by_role("group", name="Shade")
    shades.get_by_role("button", name=re.compile("none|off", re.I)).click()
    assert "shade=none" in watched.address
    assert (
        page.locator("li.example .token").first.evaluate("e => e.style.getPropertyValue('--shade-activation')") == "0"
    )
    page.go_back()
    assert "shade" not in watched.address
    window = page.locator('input[type="number"][name="window"]')
    window.fill("3")
    window.press("Tab")
    watched.expect_address("window=3")
    peak = page.locator("li.example").first.locator(".token.peak")
    before = page.locator("li.example").first.locator(".line-before .token")
    example = neuron.features[0].examples[0]
    expect(before).to_have_count(min(3, example.peak))
    page.get_by_label("Show spaces").check()
    assert "spaces=1" in watched.address
    spaced = any(" " in piece for piece in example.pieces[max(example.peak - 3, 0) : example.peak + 4])
    if spaced:
        expect(page.locator("li.example").first).to_contain_text("·")
    page.reload()
    watched.settle()
    expect(window).to_have_value("3")
    expect(page.get_by_label("Show spaces")).to_be_checked()
    assert peak.count() == 1


def test_refused_shades_are_refused(watched: Watched, explored: Atlas, neuron: Neuron):
    """An atlas without importance offers none, and an address that asks for it is not believed."""
    if explored.manifest["settings"]["importance"]:
        pytest.skip("needs an atlas without token importance; this one has it")
    page = watched.visit(address(neuron, query="?shade=importance&window=-5&after=zz&order=1"))
    expect(page.locator('button[name="shade"][value="importance"]')).to_be_disabled()
    expect(page.locator('button[name="shade"][value="activation"]')).to_have_attribute("aria-pressed", "true")


def test_the_whole_sequence_on_demand(watched: Watched, explored: Atlas, neuron: Neuron):
    example = neuron.features[0].examples[0]
    page = watched.visit(address(neuron))
    row = page.locator("li.example").first
    row.get_by_role("button", name=re.compile("Whole sequence")).click()
    expect(row.locator(".token")).to_have_count(len(explored.tokens(example.sequence)))
    page.reload()
    watched.settle()
    expect(row.locator(".token")).to_have_count(len(explored.tokens(example.sequence)))


def test_a_token_tells_its_id_and_value(watched: Watched, neuron: Neuron):
    example = neuron.features[0].examples[0]
    page = watched.visit(address(neuron))
    peak = page.locator("li.example").first.locator(".token.peak")
    title = peak.get_attribute("title") or ""
    assert f"token {example.tokens[example.peak]}" in title and f"position {example.position}" in title
    assert float(re.findall(r"activation ([\d.]+)", title)[0]) == pytest.approx(example.activation, rel=6e-3)
    peak.click()
    expect(page.locator("li.example").first.locator(".readout")).to_contain_text(f"position {example.position}")


def test_a_similar_feature_opens_that_feature(watched: Watched, neuron: Neuron):
    found = neuron.features[0].similar[0]
    page = watched.visit(address(neuron))
    first = page.locator("[data-similar]").first
    expect(first).to_have_attribute("data-similar", f"{found.layer}/{found.neuron}/{found.feature}")
    expect(first.locator(".similar-value")).to_have_text(f"{found.similarity:.2f}")
    first.locator("a.similar-name").click()
    watched.settle()
    assert watched.address == f"#/feature/{found.layer}/{found.neuron}/{found.feature}"
    expect(page.locator("h1")).to_have_text(f"Layer {found.layer}, neuron {found.neuron}, feature {found.feature}")


def test_exports(watched: Watched, explored: Atlas, neuron: Neuron):
    feature = neuron.features[0]
    page = watched.visit(address(neuron))
    kept = json.loads(downloaded(page, page.locator('button[name="export-json"]')))
    examples = kept["examples"]
    assert len(examples) == feature.n_examples
    assert json.dumps(kept).count('"position"') >= feature.n_examples
    assert [example["position"] for example in examples] == [example.position for example in feature.examples]
    text = downloaded(page, page.locator('button[name="export-text"]')).decode()
    assert len(text.splitlines()) >= feature.n_examples
    picture = downloaded(page, page.locator('button[name="export-png"]'))
    assert picture.startswith(b"\x89PNG") and len(picture) > 5000
    page.locator('button[name="cite"]').click()
    entry = page.get_by_label("BibTeX")
    said = entry.input_value() if entry.evaluate("e => 'value' in e") else entry.inner_text()
    assert said.startswith("@") and f"feature/{neuron.layer}/{neuron.index}/0" in said


def test_stars_and_notes_stay(watched: Watched, neuron: Neuron, tmp_path: Path):
    page = watched.visit(address(neuron))
    star = page.locator("button.star")
    expect(star).to_have_attribute("aria-pressed", "false")
    page.keyboard.press("s")
    expect(star).to_have_attribute("aria-pressed", "true")
    page.locator(".note textarea").fill("<b>words</b> of order")
    page.locator(".note textarea").blur()
    page.reload()
    watched.settle()
    expect(star).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".note textarea")).to_have_value("<b>words</b> of order")
    watched.go("#/starred")
    id_ = f"{neuron.layer}/{neuron.index}/0"
    entry = page.locator(f'[data-star="{id_}"]')
    expect(entry.locator("textarea")).to_have_value("<b>words</b> of order")
    kept = downloaded(page, page.locator('button[name="export-json"]'))
    assert b"<b>words</b> of order" in kept
    watched.are_dialogs_expected = True  # a note would be lost
    entry.get_by_role("button", name=re.compile("Remove")).click()
    expect(page.locator("[data-star]")).to_have_count(0)
    file = tmp_path / "stars.json"
    file.write_bytes(kept)
    page.get_by_label("Import stars from a JSON file").set_input_files(file)
    expect(entry).to_have_count(1)
    file.write_text("no stars")
    page.get_by_label("Import stars from a JSON file").set_input_files(file)
    expect(page.get_by_role("alert")).to_be_visible()


def test_two_are_compared(watched: Watched, neuron: Neuron):
    a, b = (f"{neuron.layer}/{neuron.index}/{feature}" for feature in (0, 1))
    page = watched.visit("#/compare")
    for name, place in (("a", a), ("b", b)):
        page.locator(f'[data-side="{name}"] input[name="{name}"]').fill(place)
        page.locator(f'[data-side="{name}"]').get_by_role("button", name="Show").click()
        watched.settle()
    for name, feature in (("a", 0), ("b", 1)):
        side = page.locator(f'[data-side="{name}"]')
        expect(side.locator("h2").first).to_contain_text(f"feature {feature}")
        expect(side.locator("li.example")).to_have_count(min(neuron.features[feature].n_examples, 20))
    page.reload()
    watched.settle()
    page.locator('button[name="swap"]').click()
    watched.settle()
    expect(page.locator('[data-side="a"] h2').first).to_contain_text("feature 1")
    page.go_back()
    expect(page.locator('[data-side="a"] h2').first).to_contain_text("feature 0")
    page.locator('[data-side="a"] input[name="a"]').fill("no/such")
    page.locator('[data-side="a"]').get_by_role("button", name="Show").click()
    expect(page.get_by_role("alert")).to_be_visible()


def test_a_similar_feature_that_shares_its_example_says_so(watched: Watched, explored: Atlas):
    """At a similarity of 1, the very same token of the same text is no more than that."""
    shared = next(
        (place, feature)
        for place in np.ndindex(explored.n_layers, explored.d_mlp)
        for feature in explored.neuron(*place).features
        if any(found.shares_example for found in feature.similar[:8])
    )
    (layer, neuron), feature = shared
    page = watched.visit(f"#/feature/{layer}/{neuron}/{feature.index}")
    rows = page.locator(".similar li")
    for row, found in zip(rows.all(), feature.similar[:8], strict=True):
        expect(row.get_by_text("shares its example")).to_have_count(int(found.shares_example))
