"""The explorer's pages as browsers get them: a few files, the large ones under names that change with their content.

`site/` holds many small modules and style sheets, which are joined here. Browsers may cache the joined ones for ever,
as their names change with their content.
"""

import functools
import hashlib
import re
from pathlib import Path, PurePosixPath

from nejax.atlas.explorer.modules import joined_modules

SITE = Path(__file__).parent / "site"
"""What the pages are made of."""

ASSETS = "assets"
"""The folder of the files that may be cached for ever."""

TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
"""What the files are, by the ends of their names."""

_SHEETS = re.compile(r'(?: *<link rel="stylesheet" href="[^"]+" />\n)+')
_SHEET = re.compile(r'href="([^"]+)"')
_SCRIPT = re.compile(r'<script type="module" src="([^"]+)"')


@functools.cache
def pages() -> dict[str, bytes]:
    """Every file of the pages, by its address below the explorer's own; index.html is the first."""
    index = (SITE / "index.html").read_text("utf-8")
    sheets, script = _SHEETS.search(index), _SCRIPT.search(index)
    assert sheets and script
    style_name, style = _asset(
        "style.css", "".join((SITE / name).read_text("utf-8") for name in _SHEET.findall(sheets[0]))
    )
    script_name, joined = _asset("app.js", joined_modules(SITE, script[1]))
    index = index.replace(sheets[0], f'    <link rel="stylesheet" href="{style_name}" />\n')
    index = index.replace(f'src="{script[1]}"', f'src="{script_name}"')
    plain = ["icon.svg", *(f"vendor/{file.name}" for file in sorted((SITE / "vendor").glob("*.LICENSE")))]
    kept = {name: (SITE / name).read_bytes() for name in plain}
    return {"index.html": index.encode(), style_name: style, script_name: joined, **kept}


def media_type(name: str) -> str:
    """What a file of the pages is."""
    return TYPES.get(PurePosixPath(name).suffix, "text/plain")


def may_be_kept(name: str) -> bool:
    """Whether a file's name changes with its content."""
    return name.startswith(f"{ASSETS}/")


def _asset(name: str, text: str) -> tuple[str, bytes]:
    content = text.encode()
    return f"{ASSETS}/{hashlib.sha256(content).hexdigest()[:16]}/{name}", content
