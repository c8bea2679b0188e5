"""Pictures of every page for the documentation: light and dark at a width of 1280, light at 400.

python tests/atlas/explorer/browser/screenshots.py runs/demo docs/explorer
"""

import os
import shutil
import sys
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright
from sites import Site, served
from watched import Watched, new_context

from nejax.atlas.atlas import Atlas, open_atlas

VARIANTS = {
    "light": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    "narrow": {"viewport": {"width": 400, "height": 1000}, "color_scheme": "light"},
}
MOST_BYTES = 4_000_000


def addresses(atlas: Atlas) -> dict[str, str]:
    """A good state of every page, of the demo's neuron 185 of layer 3 if it is there."""
    layer, index = (3, 185) if atlas.n_layers > 3 and atlas.d_mlp > 185 else (0, 1)
    neuron = atlas.neuron(layer, index)
    similar = neuron.features[0].similar
    other = f"{similar[0].layer}/{similar[0].neuron}/{similar[0].feature}" if similar else f"{layer}/{index}/1"
    example = neuron.features[0].central
    return {
        "model": "#/model?measure=mean_distance",
        "neurons": "#/neurons?sort=-silhouette&where=n_features:4..12",
        "neuron": f"#/neuron/{layer}/{index}",
        "feature": f"#/feature/{layer}/{index}/0",
        "compare": f"#/compare?a={layer}/{index}/0&b={other}",
        "search": "#/search?q=before",
        "sequence": f"#/sequence/{example.sequence}?at={example.position}",
        "starred": "#/starred",
        "about": "#/about",
    }


def star(watched: Watched, atlas: Atlas) -> None:
    """Two stars with notes, so that the page of stars shows what it is for."""
    feature = addresses(atlas)["feature"]
    for number, note in (
        ("0", "Words of order in time and place: before, after, when."),
        ("1", "Rules under headings."),
    ):
        page = watched.visit(f"{feature[:-1]}{number}")
        page.locator(".note textarea").fill(note)
        page.locator(".note textarea").blur()


def take(browser: Browser, site: Site, folder: Path) -> int:
    """All of them; their size in bytes."""
    size = 0
    for variant, options in VARIANTS.items():
        context = new_context(browser, **options)
        watched = Watched(context, site)
        star(watched, site.atlas)
        for name, address in addresses(site.atlas).items():
            page = watched.visit(address)
            page.mouse.move(1, options["viewport"]["height"] - 1)
            page.wait_for_timeout(300)
            size += len(page.screenshot(path=folder / f"{name}-{variant}.png"))
        context.close()
        watched.check()
    return size


def main() -> None:
    """Take them of an atlas, into a folder."""
    atlas, folder = open_atlas(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright, served(atlas) as site:
        browser = playwright.chromium.launch(
            executable_path=os.environ.get("CHROMIUM") or shutil.which("chromium"), args=["--no-sandbox"]
        )
        size = take(browser, site, folder)
        browser.close()
    print(f"{folder}: {size / 1e6:.1f} MB")
    if size > MOST_BYTES:
        sys.exit(f"more than {MOST_BYTES / 1e6:g} MB")


if __name__ == "__main__":
    main()
