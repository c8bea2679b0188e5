"""What holds on every page: keys, colours, narrow screens, names of what can be pressed, words for bad addresses."""

import re

import pytest
from playwright.sync_api import Browser, expect
from sites import Site
from watched import Watched, new_context

from nejax.atlas.atlas import Atlas
from nejax.atlas.neuron import Neuron

UNNAMED = """() => [...document.querySelectorAll("a, button, input, select, textarea, [tabindex='0'], [role=slider]")]
  .filter((e) => e.checkVisibility() && !e.closest("[aria-hidden=true]"))
  .filter((e) => !(e.ariaLabel || e.getAttribute("aria-labelledby") || e.labels?.length || e.title))
  .filter((e) => !e.textContent.trim())
  .map((e) => e.outerHTML.slice(0, 120))"""
OUTLINE = """() => {
  const { outlineStyle, outlineWidth } = getComputedStyle(document.activeElement);
  return [outlineStyle, outlineWidth];
}"""
WIDER = """() => [document.documentElement.scrollWidth, innerWidth, [...document.querySelectorAll("main *")]
  .filter((e) => e.getBoundingClientRect().right > innerWidth + 1)
  .filter((e) => !e.closest(".table-scroll, pre, math, svg, .visually-hidden"))
  .slice(0, 3).map((e) => e.outerHTML.slice(0, 120))]"""


def test_pages_are_sound(watched: Watched, pages: dict[str, str]):
    """One title, a name for every control, no two elements of one id, an exact address that survives a reload."""
    watched.allowed.append("/search/")
    for address in pages.values():
        page = watched.visit(address)
        expect(page.locator("h1")).to_have_count(1)
        assert page.evaluate(UNNAMED) == [], address
        ids = page.evaluate("() => [...document.querySelectorAll('[id]')].map((e) => e.id)")
        assert len(set(ids)) == len(ids), address
        assert watched.address == address
        assert page.evaluate("document.title")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_a_narrow_screen(browser: Browser, site: Site, pages: dict[str, str], scheme: str):
    context = new_context(browser, viewport={"width": 400, "height": 800}, color_scheme=scheme)
    watched = Watched(context, site)
    watched.allowed.append("/search/")
    for address in pages.values():
        page = watched.visit(address)
        wide, screen, culprits = page.evaluate(WIDER)
        assert wide <= screen, (address, culprits)
    context.close()
    watched.check()


def test_focus_is_visible(watched: Watched, pages: dict[str, str]):
    watched.allowed.append("/search/")
    for name in ("model", "neuron", "feature", "search", "sequence"):
        page = watched.visit(pages[name])
        for _ in range(14):
            page.keyboard.press("Tab")
            style, width = page.evaluate(OUTLINE)
            tag = page.evaluate("document.activeElement.outerHTML.slice(0, 100)")
            assert (style != "none" and width != "0px") or "<g" in tag or tag.startswith("<body"), (name, tag)


def test_keys(watched: Watched, explored: Atlas, neuron: Neuron):
    page = watched.visit(f"#/neuron/{neuron.layer}/{neuron.index}")
    number = neuron.layer * explored.d_mlp + neuron.index
    for key, step in (("ArrowRight", 1), ("ArrowLeft", -1)):
        page.keyboard.press(key)
        number = (number + step) % explored.n_neurons
        expect(page.locator("h1")).to_have_text(f"Layer {number // explored.d_mlp}, neuron {number % explored.d_mlp}")
    watched.settle()
    page.keyboard.press("s")
    expect(page.locator("button.star")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#help")).not_to_be_visible()
    page.keyboard.press("/")
    page.keyboard.type("rs?")
    expect(page.locator("#search")).to_have_value("rs?")  # letters in a field are no keys
    page.keyboard.press("Escape")
    address = watched.address
    page.keyboard.press("r")
    page.wait_for_function("address => location.hash !== address", arg=address)
    watched.settle()
    assert re.fullmatch(r"#/neuron/\d+/\d+", watched.address)
    watched.go(f"#/feature/{neuron.layer}/{neuron.index}/0")
    page.keyboard.press("ArrowRight")
    expect(page.locator("h1")).to_contain_text("feature 1")


@pytest.mark.parametrize("way", ["r", "back"])
def test_an_open_menu_does_not_survive_the_page(watched: Watched, way: str):
    watched.visit("#/model")
    page = watched.go("#/neurons")
    page.locator(".column-choice summary").click()
    page.locator(".column-list input").nth(1).focus()
    if way == "r":
        page.locator(".column-choice summary").focus()
        page.keyboard.press("r")
        page.wait_for_function("() => location.hash.startsWith('#/neuron/')")
    else:
        page.go_back()
    watched.settle()
    expect(page.locator(".column-choice")).to_have_count(0)
    expect(page.locator("h1")).to_have_count(1)
    watched.go("#/neurons")
    expect(page.locator(".column-list")).not_to_be_visible()


def test_an_open_dialog_does_not_survive_the_page(watched: Watched, neuron: Neuron):
    watched.visit("#/about")
    page = watched.go(f"#/feature/{neuron.layer}/{neuron.index}/1")
    watched.go(f"#/feature/{neuron.layer}/{neuron.index}/0")
    page.get_by_role("button", name="Cite").click()
    page.go_back()
    watched.settle()
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.go_back()
    watched.settle()
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_the_bar_does_not_stand_over_the_text_of_a_phone(browser: Browser, server: Site, pages: dict[str, str]):
    context = new_context(browser, viewport={"width": 390, "height": 844})
    watched = Watched(context, server)
    page = watched.visit(pages["about"])
    page.evaluate("scrollTo(0, 500)")
    assert page.evaluate("document.querySelector('.bar').getBoundingClientRect().bottom") <= 0
    page.set_viewport_size({"width": 1280, "height": 900})
    page.evaluate("scrollTo(0, 500)")
    top, height = page.evaluate(
        "(({ top, height }) => [top, height])(document.querySelector('.bar').getBoundingClientRect())"
    )
    assert top == 0 and height < 60
    context.close()
    watched.check()


def test_colours_are_kept(watched: Watched):
    page = watched.visit("#/about")
    button = page.get_by_role("button", name=re.compile("^Colours"))
    seen = set()
    for _ in range(3):
        button.click()
        page.wait_for_timeout(30)
        seen.add(page.evaluate("getComputedStyle(document.documentElement).backgroundColor"))
    assert len(seen) == 2
    while page.evaluate("document.documentElement.dataset.theme ?? ''") != "dark":
        button.click()
        page.wait_for_timeout(30)
    page.reload()
    watched.settle()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_the_bar_leads_to_every_page(watched: Watched):
    page = watched.visit()
    for name in ("Neurons", "Compare", "Starred", "About", "Model"):
        page.get_by_role("navigation", name="Pages").get_by_role("link", name=name).click()
        watched.settle()
        assert watched.address == f"#/{name.lower()}"
        expect(page.locator("h1")).to_be_focused()  # where a screen reader goes on
    page.get_by_role("button", name="Random").click()
    page.wait_for_function("() => location.hash.startsWith('#/neuron/')")


BAD = [
    "#/nonsense",
    "#/neuron/9999/0",
    "#/neuron/x/y",
    "#/neuron",
    "#/feature/0/0/99999",
    "#/feature/0",
    "#/sequence/99999999",
    "#/sequence/-1",
]


@pytest.mark.parametrize("address", [*BAD, "#/neuron/0/%F0%9F", "#/sequence/%3Cscript%3E", "#/compare?a=%00&b=1/2/3/4"])
def test_bad_addresses_are_answered_in_plain_words(watched: Watched, address: str):
    watched.allowed.append("/data/")
    page = watched.visit(address)
    expect(page.get_by_role("alert").first).to_be_visible()
    expect(page.locator("main")).not_to_contain_text("undefined")
    expect(page.locator("main")).not_to_contain_text("NaN")


def test_what_the_policy_forbids(watched: Watched):
    """A script in the page's text would not run either."""
    page = watched.visit("#/about")
    page.evaluate("""() => {
      const script = document.createElement("script");
      script.textContent = "window.ran = 1";
      document.body.append(script);
    }""")
    assert page.evaluate("window.ran") is None
    assert any("Content Security Policy" in problem for problem in watched.problems)
    watched.problems.clear()
