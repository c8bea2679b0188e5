"""The model's page and the table of neurons, clicked through."""

import csv
import io
import math
import re
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import expect
from watched import Watched

from nejax.atlas.atlas import Atlas
from nejax.atlas.neuron import Neuron


def test_model_tells_of_the_run(watched: Watched, explored: Atlas):
    page = watched.visit()
    main = page.locator("main")
    expect(page.locator("h1")).to_have_text(explored.manifest["model"]["name"])
    expect(main).to_contain_text(f"{explored.n_neurons:,} neurons in {explored.n_layers} layers")
    expect(main).to_contain_text(f"{explored.n_sequences:,} sequences")
    settings = explored.manifest["settings"]
    expect(main).to_contain_text(f"{settings['seq_len']}")


def test_model_changes_the_measure(watched: Watched, explored: Atlas):
    page = watched.visit()
    picture = page.locator("canvas").first
    before = picture.screenshot()
    page.locator("#measure").select_option("max_activation")
    watched.settle()
    assert "measure=max_activation" in watched.address
    expect(page.locator("main")).to_contain_text("The highest activation in the corpus.")
    assert picture.screenshot() != before
    page.reload()
    watched.settle()
    expect(page.locator("#measure")).to_have_value("max_activation")
    page.go_back()
    expect(page.locator("#measure")).not_to_have_value("max_activation")


def test_model_filters_by_a_range_and_leads_to_the_table(watched: Watched, explored: Atlas):
    page = watched.visit("#/model?measure=mean_distance")
    values = explored.neurons_table()["mean_distance"]
    low = round(float(np.nanquantile(values, 0.6)), 3)
    field = page.get_by_label("Lowest Mean distance")
    field.fill(str(low))
    field.press("Tab")
    watched.settle()
    rounded = np.array([float(f"{value:.5g}") for value in values])  # as the shards have them
    n = int((rounded >= low).sum())
    found = page.locator(".found")
    expect(found).to_contain_text(f"{n:,} neuron")
    found.get_by_role("link").click()
    watched.settle()
    expect(page.locator(".count")).to_contain_text(f"{n:,} of {explored.n_neurons:,} neurons")


def test_model_is_brushed(watched: Watched, explored: Atlas):
    page = watched.visit("#/model?measure=mean_distance")
    box = page.get_by_test_id("brush").bounding_box()
    assert box
    y = box["y"] + 20
    page.mouse.move(box["x"] + 0.3 * box["width"], y)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.6 * box["width"], y, steps=5)
    page.mouse.up()
    watched.expect_address("where=mean_distance")
    low, high = map(float, re.findall(r"\d+\.\d+", watched.address))
    values = np.array([float(f"{value:.5g}") for value in explored.neurons_table()["mean_distance"]])
    n = int(((values >= low) & (values <= high)).sum())
    expect(page.locator(".found")).to_contain_text(f"{n:,} neuron")


def test_model_opens_a_neuron_by_click_and_by_keys(watched: Watched):
    page = watched.visit()
    canvas = page.locator("canvas").first
    canvas.click(position={"x": 6, "y": 6})
    watched.settle()
    assert watched.address.startswith("#/neuron/0/")
    page.go_back()
    watched.settle()
    canvas.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    watched.settle()
    assert watched.address.startswith("#/neuron/0/")


def test_the_table_sorts(watched: Watched, explored: Atlas):
    page = watched.visit("#/neurons")
    header = page.locator('th[data-column="mean_distance"]')
    header.get_by_role("button").click()
    watched.settle()
    expect(header).to_have_attribute("aria-sort", "descending")
    first = page.locator("tbody tr[aria-rowindex]").first
    values = explored.neurons_table()["mean_distance"]
    best = int(np.nanargmax(values))

    def place(id_: int) -> str:
        return f"{id_ // explored.d_mlp}/{id_ % explored.d_mlp}"

    expect(first).to_have_attribute("data-neuron", place(best))
    expect(first).to_contain_text(f"{values[best]:.3f}")
    header.get_by_role("button").click()
    watched.settle()
    expect(first).to_have_attribute("data-neuron", place(int(np.nanargmin(values))))
    assert "sort=mean_distance" in watched.address
    page.go_back()
    expect(first).to_have_attribute("data-neuron", place(best))


def test_the_table_filters(watched: Watched, explored: Atlas):
    page = watched.visit("#/neurons")
    field = page.get_by_label("Features: at least")
    field.fill("3")
    field.press("Tab")
    watched.settle()
    n = int((explored.neurons_table()["n_features"] >= 3).sum())
    expect(page.locator(".count")).to_contain_text(f"{n:,}")
    page.reload()
    watched.settle()
    expect(page.locator(".count")).to_contain_text(f"{n:,}")
    page.get_by_role("button", name=re.compile("Remove the filter")).click()
    expect(page.locator(".count")).to_contain_text(f"All {explored.n_neurons:,}")
    watched.go("#/neurons?where=n_features:1000000..")
    expect(page.locator("main")).to_contain_text("No neuron passes")


def test_the_csv_holds_the_atlas(watched: Watched, explored: Atlas):
    page = watched.visit("#/neurons")
    with page.expect_download() as download:
        page.get_by_role("button", name="all columns").click()
    rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_bytes().decode(), newline="")))
    table = explored.neurons_table()
    assert len(rows) == explored.n_neurons
    assert {"layer", "neuron", "mean_distance", "silhouette", "coordinates_share"} <= set(rows[0])
    for name in rows[0]:
        read = np.array([float(row[name]) if row[name] else math.nan for row in rows])
        np.testing.assert_allclose(read, table[name], rtol=1e-4, err_msg=name)  # written with five digits: within 5e-5


def test_the_table_stays_small_and_scrolls(watched: Watched, explored: Atlas):
    page = watched.visit("#/neurons")
    rows = page.locator("tbody tr[aria-rowindex]")
    assert 0 < rows.count() < 100
    scroller = page.locator(".neuron-table")
    scroller.evaluate("e => { e.scrollTop = e.scrollHeight; }")
    expect(page.locator(f'[data-neuron="{explored.n_layers - 1}/{explored.d_mlp - 1}"]')).to_be_visible()
    assert rows.count() < 100
    watched.expect_address("top=")
    address = watched.address
    page.reload()
    watched.settle()
    assert watched.address == address
    expect(page.locator(f'[data-neuron="{explored.n_layers - 1}/{explored.d_mlp - 1}"]')).to_be_visible()


def test_the_table_jumps_and_opens(watched: Watched, explored: Atlas, neuron: Neuron):
    page = watched.visit("#/neurons")
    page.locator("#jump").fill(f"{neuron.layer}/{neuron.index}")
    page.locator("#jump").press("Enter")
    row = page.locator(f'[data-neuron="{neuron.layer}/{neuron.index}"]')
    expect(row).to_have_class("current")
    expect(page.locator("table[role=grid]")).to_be_focused()
    page.keyboard.press("Enter")
    watched.settle()
    assert watched.address == f"#/neuron/{neuron.layer}/{neuron.index}"
    page.go_back()
    watched.settle()
    page.locator("#jump").fill("99/99999")
    page.locator("#jump").press("Enter")
    expect(page.locator(".jump [role=status]")).to_contain_text("0 to")


@pytest.mark.parametrize(
    "query", ["measure=nonsense", "where=x:..;;::", "where=mean_distance:5..1", "order=%00&measure="]
)
def test_bad_values_in_the_address_do_no_harm(watched: Watched, query: str):
    for page in ("model", "neurons"):
        watched.visit(f"#/{page}?{query}")
        expect(watched.page.locator("h1")).to_have_count(1)
