"""Neurons with two sides in the pages: both are named, each leads to the other, and both are found by typing."""

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, expect
from sites import Site, exported, served
from watched import Watched, new_context

from nejax.atlas.atlas import Atlas
from nejax.atlas.neuron import Neuron

MINUS = "\N{MINUS SIGN}"


@pytest.fixture(scope="module", params=["server", "static"])
def sided_site(
    request: pytest.FixtureRequest, two_sided_atlas: Atlas, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    if request.param == "server":
        with served(two_sided_atlas) as site:
            yield site
    else:
        with exported(two_sided_atlas, tmp_path_factory.mktemp("files"), "sides") as site:
            yield site


@pytest.fixture
def sided(browser: Browser, sided_site: Site) -> Iterator[Watched]:
    """A new browser window. The test fails if anything went wrong in it."""
    context = new_context(browser)
    watched = Watched(context, sided_site)
    yield watched
    context.close()
    watched.check()


@pytest.fixture(scope="module")
def negative(two_sided_atlas: Atlas) -> Neuron:
    """A negative side with features, of which near-duplicates were left out."""
    for number in range(two_sided_atlas.units.n_neurons):
        neuron = two_sided_atlas.neuron(2, number, "negative")
        if neuron.repeats_left_out and neuron.n_features > 1 and neuron.features[0].similar:
            return neuron
    raise AssertionError("no neuron of this atlas is fit for the tests")


def test_each_side_is_named_and_leads_to_the_other(sided: Watched, negative: Neuron):
    page = sided.visit(f"#/neuron/2/{negative.index}")
    expect(page.locator("h1")).to_have_text(f"Layer 2, neuron {negative.number} {MINUS}")
    expect(page).to_have_title(re.compile(f"^neuron 2 {negative.number} {MINUS} "))
    expect(page.locator(".neuron-notes")).to_contain_text(f"The negative side: activations are × {MINUS}1")
    expect(page.locator(".neuron-notes")).to_contain_text(f"{negative.repeats_left_out} near-duplicate")
    expect(page.locator("#histogram")).to_contain_text(f"activation × {MINUS}1")
    page.locator("#other-side").click()
    sided.settle()
    assert sided.address == f"#/neuron/2/{negative.number}"
    expect(page.locator("h1")).to_have_text(f"Layer 2, neuron {negative.number} +")
    expect(page.locator("main")).not_to_contain_text("The negative side")
    page.keyboard.press("ArrowRight")
    expect(page.locator("h1")).to_have_text(f"Layer 2, neuron {negative.number + 1} +")
    page.locator("#other-side").click()
    expect(page.locator("h1")).to_have_text(f"Layer 2, neuron {negative.number + 1} {MINUS}")


def test_the_last_positive_side_is_followed_by_the_first_negative_one(sided: Watched, two_sided_atlas: Atlas):
    half = two_sided_atlas.units.n_neurons
    page = sided.visit(f"#/neuron/0/{half - 1}")
    page.locator('a[rel="next"]').click()
    expect(page.locator("h1")).to_have_text(f"Layer 0, neuron 0 {MINUS}")
    page.locator('a[rel="prev"]').click()
    expect(page.locator("h1")).to_have_text(f"Layer 0, neuron {half - 1} +")


@pytest.mark.parametrize(
    ("typed", "unit"), [("2/17", 17), ("2/17+", 17), ("2/17-", 49), (f" 2 / 17 {MINUS}", 49), ("2/49", 49)]
)
def test_the_table_jumps_to_a_side(sided: Watched, typed: str, unit: int):
    page = sided.visit("#/neurons")
    expect(page.locator(".count")).to_contain_text("All 192 sides")
    page.locator("#jump").fill(typed)
    page.locator("#jump").press("Enter")
    row = page.locator(f'[data-neuron="2/{unit}"]')
    expect(row).to_have_class("current")
    expect(row.locator("th")).to_have_text("17 +" if unit == 17 else f"17 {MINUS}")
    page.keyboard.press("Enter")
    sided.settle()
    assert sided.address == f"#/neuron/2/{unit}"


def test_what_is_no_place_is_said(sided: Watched):
    page = sided.visit("#/neurons")
    for typed in ("2/64", "3/0", "2/17--", "x"):
        page.locator("#jump").fill(typed)
        page.locator("#jump").press("Enter")
        expect(page.locator(".jump [role=status]")).to_contain_text(
            f"0 to 2, 0 to 31; a {MINUS} behind it for the negative side"
        )
    page = sided.visit("#/neuron/0/64")
    expect(page.locator("[role=alert]")).to_contain_text("the neurons are 0 to 31, each with a side")


def test_the_table_shows_one_side_and_sorts_both_together(sided: Watched):
    page = sided.visit("#/neurons?sort=neuron")
    names = page.locator("tbody th")
    assert names.all_inner_texts()[:6] == ["0 +", f"0 {MINUS}"] * 3
    page.get_by_role("button", name="Negative sides").click()
    sided.settle()
    expect(page.locator(".count")).to_contain_text("96 of 192 sides")
    assert set(names.all_inner_texts()[:3]) == {f"0 {MINUS}"}
    expect(page.locator(".filter-chips")).to_contain_text(f"Side {MINUS}")
    page.reload()
    sided.settle()
    expect(page.get_by_role("button", name="Negative sides")).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="Both sides").click()
    expect(page.locator(".count")).to_contain_text("All 192 sides")


def test_the_csv_says_which_neuron_and_which_side(sided: Watched, two_sided_atlas: Atlas):
    page = sided.visit("#/neurons")
    with page.expect_download() as download:
        page.get_by_role("button", name="all columns").click()
    rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_bytes().decode(), newline="")))
    table = two_sided_atlas.neurons_table()
    assert [int(row["neuron"]) for row in rows] == table["neuron"].tolist()
    assert [int(row["repeats_left_out"]) for row in rows] == table["repeats_left_out"].tolist()
    for row in rows:
        neuron = two_sided_atlas.neuron(int(row["layer"]), int(row["neuron"]))
        assert (int(row["number"]), row["side"]) == (neuron.number, neuron.side)


def test_features_and_what_is_like_them_are_named_with_their_sides(sided: Watched, negative: Neuron):
    page = sided.visit(f"#/feature/2/{negative.index}/0")
    expect(page.locator("h1")).to_have_text(f"Layer 2, neuron {negative.number} {MINUS}, feature 0")
    found = negative.features[0].similar[0]
    sign = {"positive": "+", "negative": MINUS}[found.side]
    name = page.locator("a.similar-name").first
    expect(name).to_have_text(f"{found.layer}/{found.number}{sign}/{found.feature}")
    with page.expect_download() as download:
        page.locator('button[name="export-json"]').click()
    exported_feature = json.loads(Path(download.value.path()).read_text())
    assert [exported_feature[key] for key in ("neuron", "number", "side")] == [
        negative.index,
        negative.number,
        "negative",
    ]
    name.click()
    sided.settle()
    assert sided.address.startswith(f"#/feature/{found.layer}/{found.neuron}/{found.feature}")


def test_two_sides_are_compared_by_typing(sided: Watched, negative: Neuron):
    page = sided.visit("#/compare")
    for name, sign in (("a", ""), ("b", "-")):
        page.locator(f'input[name="{name}"]').fill(f"2/{negative.number}{sign}")
        page.locator(f'input[name="{name}"]').press("Enter")
        sided.settle()
    assert sided.address == f"#/compare?a=2/{negative.number}&b=2/{negative.index}"
    headings = page.locator(".compare-sides h2")
    assert headings.all_inner_texts() == [f"Layer 2, neuron {negative.number} {sign}" for sign in ("+", MINUS)]
    expect(page.locator('input[name="b"]')).to_have_value(f"2/{negative.number}{MINUS}")


def test_the_model_is_described_by_its_neurons(sided: Watched, two_sided_atlas: Atlas):
    page = sided.visit("#/model")
    expect(page.locator(".lead")).to_contain_text("96 neurons, each with a positive and a negative side, in 3 layers")
    dead = int((two_sided_atlas.neurons_table()["n_examples"] == 0).sum())
    expect(page.locator(".lead")).to_contain_text(f"{dead} sides stayed silent")
    sided.go("#/about")
    expect(page.locator("#made")).to_contain_text("3 layers of 32 gated neurons, each with a positive and a negative")
    expect(page.locator("article")).to_contain_text("On the negative side")


def test_neurons_of_one_side_are_named_as_ever(watched: Watched, explored: Atlas, neuron: Neuron):
    page = watched.visit(f"#/neuron/{neuron.layer}/{neuron.index}")
    expect(page.locator("h1")).to_have_text(f"Layer {neuron.layer}, neuron {neuron.index}")
    expect(page.locator("#other-side")).to_have_count(0)
    watched.go("#/neurons?columns=repeats_left_out&sort=-repeats_left_out")
    expect(page.get_by_role("button", name="Negative sides")).to_have_count(0)
    most = int(np.max(explored.neurons_table()["repeats_left_out"]))
    expect(page.locator("tbody tr[aria-rowindex]").first).to_contain_text(f"{most:,}")
    page.locator("#jump").fill("0/1-")
    page.locator("#jump").press("Enter")
    expect(page.locator(".jump [role=status]")).to_contain_text("Write layer/neuron")
