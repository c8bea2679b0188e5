"""The explorer for those who read it by other means than a mouse and a wide bright screen."""

import re
from collections.abc import Iterator

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Browser, Page, ViewportSize, expect
from sites import Site
from watched import Watched, new_context

from nejax.atlas.neuron import Neuron

DESKTOP: ViewportSize = {"width": 1280, "height": 900}
PHONE: ViewportSize = {"width": 390, "height": 844}
OPTIONAL = ("target-size", "label-content-name-mismatch")
"""Rules that axe has but does not apply unless asked to."""

AXE = """([options]) => axe.run(document, options).then(({ violations, passes }) => [
  violations.flatMap(({ id, nodes }) => nodes.map(({ target, any, all, none }) =>
    `${id} ${target}: ${[...any, ...all, ...none].map(({ message }) => message).join("; ")}`)),
  passes.map(({ id }) => id),
])"""

CONTRASTS = """(selector) => [...document.querySelectorAll(selector)].map((element) => {
  const context = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const luminance = (colour) => {
    context.fillStyle = "white";
    context.fillRect(0, 0, 1, 1);
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
    const linear = [...context.getImageData(0, 0, 1, 1).data].map((part) =>
      part / 255 <= 0.04045 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4);
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const { color, backgroundColor } = getComputedStyle(element);
  const [low, high] = [luminance(color), luminance(backgroundColor)].sort((a, b) => a - b);
  return { shade: Number(element.style.getPropertyValue("--shade-activation")), backgroundColor,
    contrast: (high + 0.05) / (low + 0.05) };
})"""


@pytest.fixture(scope="module")
def reader(browser: Browser, server: Site) -> Iterator[Watched]:
    """One window for all pages, in which nothing moves."""
    context = new_context(browser, viewport=DESKTOP, reduced_motion="reduce")
    watched = Watched(context, server)
    yield watched
    context.close()
    watched.check()


def assert_clean(page: Page) -> None:
    """axe-core finds nothing wrong with a page, and has looked."""
    options = {"resultTypes": ["violations"], "rules": {rule: {"enabled": True} for rule in OPTIONAL}}
    found, held = page.evaluate(AXE, [options])
    assert found == [] and {"color-contrast", "button-name", "target-size"} <= {*held}


PAGES = ["model", "neurons", "neuron", "feature", "compare", "search", "sequence", "starred", "about"]


@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing(reader: Watched, pages: dict[str, str], name: str):
    """On a wide screen and a phone, in the light and in the dark."""
    reader.page.set_viewport_size(DESKTOP)
    page = reader.visit(pages[name] + ("?example=1" if name == "neuron" else ""))
    if name == "feature":
        page.keyboard.press("s")  # so that the page of stars has one
    page.evaluate(AXE_SCRIPT)
    for size in (DESKTOP, PHONE):
        page.set_viewport_size(size)
        for scheme in ("dark", "light"):
            page.emulate_media(color_scheme=scheme)
            reader.settle()
            assert_clean(page)
    page.set_viewport_size(DESKTOP)
    if name == "feature":
        page.keyboard.press("s")


def test_forced_colours_keep_the_shades(reader: Watched, pages: dict[str, str]):
    reader.page.set_viewport_size(DESKTOP)
    reader.page.emulate_media(forced_colors="active")
    page = reader.visit(pages["feature"])
    tokens = page.evaluate(CONTRASTS, ".example .token")
    shaded = {token["shade"]: token["backgroundColor"] for token in tokens}
    assert len({*shaded.values()}) > 0.8 * len(shaded) > 4  # as many colours as shades, or nearly so
    assert min(token["contrast"] for token in tokens) > 4.5
    page = reader.visit(pages["neuron"])
    swatches = "[...document.querySelectorAll('.feature-card .swatch')].map((e) => getComputedStyle(e).backgroundColor)"
    assert len(set(page.evaluate(swatches))) == min(page.locator(".feature-card .swatch").count(), 7)
    assert page.evaluate("getComputedStyle(document.querySelector('.legend-bar')).backgroundImage") != "none"
    reader.page.emulate_media(forced_colors="none")


def test_a_token_of_the_example_at_the_foot_is_read_out(reader: Watched, neuron: Neuron):
    """By a tap and by keys: what else only the mouse would find in its tooltip."""
    reader.page.set_viewport_size(PHONE)
    page = reader.visit(f"#/neuron/{neuron.layer}/{neuron.index}?example=0")
    example, foot = neuron.examples[0], page.locator("#example-detail")
    foot.locator(".token.peak").click()
    readout = foot.locator(".readout")
    expect(readout).to_contain_text(f"position {example.position} (the peak)")
    expect(readout).to_contain_text(f"token {example.tokens[example.peak]}")
    expect(readout).to_contain_text("activation")
    foot.locator(".example-text").press("ArrowLeft" if example.peak > 0 else "ArrowRight")
    expect(readout).to_contain_text("(1 ")
    page.keyboard.press("Escape")
    reader.page.set_viewport_size(DESKTOP)


def test_what_stood_in_tooltips_alone_is_read_out(reader: Watched, pages: dict[str, str], neuron: Neuron):
    page = reader.visit(pages["feature"])
    row = page.locator(".example").first
    row.locator(".example-text").press("ArrowRight")
    expect(row.locator(".readout")).to_contain_text("cohesion")
    page = reader.visit(pages["sequence"])
    example = neuron.features[0].central
    token = example.tokens[example.peak]
    expect(page.locator("#at-title")).to_contain_text(f"token {token}, position {example.position}")


def test_importance_that_was_not_measured_says_what_measures_it(reader: Watched, pages: dict[str, str]):
    page = reader.visit(pages["feature"])
    button = page.get_by_role("group", name="Shade").get_by_role("button", name="Importance")
    if reader.data_of_atlas()["has_importance"]:
        expect(button).to_be_enabled()
        expect(page.locator("#no-importance")).to_have_count(0)
    else:
        expect(button).to_be_disabled()
        expect(button).to_have_accessible_description(re.compile("build_atlas.py … --importance"))
        expect(page.locator("#no-importance")).to_be_visible()
