"""The static site against the server of the same atlas; its bound on size; what it replaces and what it refuses."""

import errno
import gzip
import json
import random
import re
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from nejax.atlas.explorer import export
from nejax.atlas.explorer.columns import COLUMNS
from nejax.atlas.explorer.export import Exported, export_site
from nejax.atlas.explorer.pages import pages
from nejax.atlas.explorer.search_index import bucket
from nejax.atlas.explorer.server import explorer_app
from nejax.atlas.explorer.shards import Shards
from nejax.atlas.files import AtlasFiles
from nejax.atlas.terms import readings, terms, words
from nejax.atlas.word_index import FRAGMENT
from nejax.errors import UserError
from nejax.pipeline.stages.run import Run

EVERYTHING = 10**9
EARLIER = '{"compressed": true, "fingerprint": "a"}'
"""An earlier export is known by it, `data/v1/atlas.json`."""


@pytest.fixture(scope="module")
def files(run: Run) -> AtlasFiles:
    return AtlasFiles(run.directory.path / "atlas")


@pytest.fixture(scope="module")
def exported(files: AtlasFiles, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Exported]:
    """The site without a bound that matters."""
    folder = tmp_path_factory.mktemp("sites") / "below" / "site"
    return folder, export_site(files, folder, quiet=True)


@pytest.fixture(scope="module")
def site(exported: tuple[Path, Exported]) -> Path:
    return exported[0]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def shard(site: Path, name: str) -> Any:
    """None where there is no such file."""
    file = site / "data" / "v1" / f"{name}.json.gz"
    return json.loads(gzip.decompress(file.read_bytes())) if file.exists() else None


def description(site: Path) -> dict[str, Any]:
    return json.loads((site / "data" / "v1" / "atlas.json").read_bytes())


def test_every_shard_is_what_the_server_answers(site, files):
    shards = Shards(files)
    names = {f"columns/{column.name}" for column in COLUMNS}
    names |= {f"sequences/{block}" for block in range(shards.n_blocks)}
    names |= {f"neurons/{layer}/{neuron}" for layer in range(shards.n_layers) for neuron in range(shards.d_mlp)}
    data = site / "data" / "v1"
    found = {str(file.relative_to(data)).removesuffix(".json.gz") for file in data.rglob("*.gz")}
    assert {name for name in found if not name.startswith("search/")} == names
    with TestClient(explorer_app(shards), base_url="http://127.0.0.1") as server:
        for name in names:
            answer = server.get(f"/data/v1/{name}.json")
            assert answer.status_code == 200
            assert gzip.decompress((data / f"{name}.json.gz").read_bytes()) == answer.content
        of_server = server.get("/data/v1/atlas.json").json()
    assert description(site) == of_server | {"compressed": True, "search": "index"}
    assert of_server["search"] == "server" and of_server["examples_per_feature"] is None


def test_the_pages_are_those_of_the_server(site):
    found = {name: page for name, page in contents(site).items() if not name.startswith("data/")}
    packed = {name.removesuffix(".gz"): found.pop(name) for name in list(found) if name.endswith(".gz")}
    assert found == pages() and "index.html" in found
    assert {name: gzip.decompress(page) for name, page in packed.items()} == {
        name: page for name, page in pages().items() if name.startswith("assets/")
    }


def test_what_is_reported_is_what_is_there(exported):
    folder, report = exported
    sizes = [file.stat().st_size for file in folder.rglob("*") if file.is_file()]
    assert report == Exported(sum(sizes), len(sizes), None)


def test_nothing_refers_to_an_address_of_its_own(site):
    """So that the site works under any: all that pages load is named from where they are, and is there."""
    page = (site / "index.html").read_text()
    loaded = [(site, name) for name in re.findall(r'(?:src|href)="([^"]*)"', page)]
    for script in site.rglob("*.js"):
        text = script.read_text()
        assert not re.search(r"^(?:import|export)\b|\bimport\s*\(", text, re.MULTILINE), script
        assert not re.search(r"""(?:fetch|import)\(\s*["'`](?:/|https?:)""", text), script
    for style in site.rglob("*.css"):
        loaded += [(style.parent, name) for name in re.findall(r"url\(\s*[\"']?([^)\"'#]+)", style.read_text())]
    assert len(loaded) == 4  # the icon, the atlas that is asked for at once, a sheet and a script
    assert [name for base, name in loaded if name.startswith(("/", "http")) or not (base / name).is_file()] == []


@pytest.mark.slow
def test_two_exports_are_byte_identical(site, files, tmp_path):
    export_site(files, tmp_path / "again", quiet=True)
    assert contents(tmp_path / "again") == contents(site)


# Search: the pages look a query up in these files as this does.


def names_in(held: dict[str, Any], term: str, is_prefix: bool) -> list[str]:
    return [name for name in held if name.startswith(term)] if is_prefix else [term] if term in held else []


def static_search(site: Path, query: str) -> tuple[list[int], list[tuple[int, ...]]]:
    """All sequences, and all features with how many of their examples, best first."""
    peaks_in: Counter[int] = Counter()
    found: dict[tuple[int, ...], set[int]] = defaultdict(set)
    for phrase in readings(query):
        starts: set[tuple[int, int]] | None = None
        last = len(phrase.terms) - 1
        for k, (term, offset) in enumerate(zip(phrase.terms, phrase.offsets, strict=True)):
            held = shard(site, f"search/words/{bucket(term)}") or {}
            places = {
                (sequence, at - offset)
                for name in names_in(held, term, phrase.is_prefix and k == last)
                for sequence, all_at in zip(held[name][::2], held[name][1::2], strict=True)
                for at in all_at
            }
            starts = places if starts is None else starts & places
        assert starts is not None
        peaks_in.update({sequence: 0 for sequence, _ in starts})
        for k, (term, offset) in enumerate(zip(phrase.terms, phrase.offsets, strict=True)):
            is_one = len(phrase.terms) == 1
            held = shard(site, f"search/peaks/{bucket(term)}") or {}
            for name in names_in(held, term, phrase.is_prefix and k == last):
                for layer, neuron, feature, n_examples, *places in held[name]:
                    for sequence, at in zip(places[::2], places[1::2], strict=True):
                        is_inside = (sequence, (at if at >= 0 else -1 - at) - offset) in starts and (
                            at >= 0 or k < last
                        )
                        if is_inside or (at >= FRAGMENT and is_one):
                            found[layer, neuron, feature, n_examples].add(sequence)
    for sequences in found.values():
        peaks_in.update(sequences & peaks_in.keys())
    features = [(*place[:3], len(sequences), place[3]) for place, sequences in found.items()]
    features.sort(key=lambda row: (-row[3], row[:3]))
    return sorted(peaks_in, key=lambda sequence: (-peaks_in[sequence], sequence)), features


@pytest.fixture(scope="module")
def texts(atlas) -> list[str]:
    return [atlas.text(sequence) for sequence in range(atlas.n_sequences)]


def test_the_index_has_every_term_where_it_stands(site, texts):
    expected: dict[str, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for sequence, text in enumerate(texts):
        for term in terms(text):
            expected[term.text][sequence].append(term.at)
    found = {}
    for file in (site / "data" / "v1" / "search" / "words").iterdir():
        held = shard(site, f"search/words/{file.name.removesuffix('.json.gz')}")
        assert held and {bucket(word) for word in held} == {file.name.removesuffix(".json.gz")}
        found |= held
    assert len(found) > 60 and {"夜", "🎉", "\n", "straße"} <= set(found)
    assert found == {
        word: [item for sequence, ordinals in of_word.items() for item in (sequence, ordinals)]
        for word, of_word in expected.items()
    }


def test_everything_is_found_as_by_the_server(site, atlas, files, texts):
    draw = random.Random(0)
    known = sorted({word for text in texts for word in words(text)})
    places = files.rows("SELECT DISTINCT sequence, position FROM examples")
    peaks_at = {word for sequence, position in places for word in words(atlas.pieces(sequence)[position])}
    fragments = sorted(peaks_at - set(known))
    assert len(fragments) > 3
    queries = [
        *known,
        *fragments,
        *(f"{word[:2]}*" for word in fragments),
        *(f"{one} {other}" for one, other in pairwise(fragments)),
        *(f"{word[:n]}*" for word in known for n in (2, 3) if len(word) >= n),
        *("absent", "zz*", "the the", "⏎", "··", "):", "(", "🎉", "👩‍👩", "%", "=====", "東京*", "夜の", " ", "⏎····"),
    ]
    for _ in range(100):
        text = words(draw.choice(texts))
        start, n = draw.randrange(len(text)), draw.randrange(2, 6)
        queries.append(" ".join(text[start : start + n]) + "*" * draw.randrange(2))
        queries.append(" ".join(draw.choices(known, k=2)))
    n_found = 0
    for query in {query for query in queries if not any(p.is_prefix and len(p.terms[-1]) < 2 for p in readings(query))}:
        expected = atlas.search(query, limit=EVERYTHING)
        sequences, peaks = static_search(site, query)
        assert sequences == expected.sequences, query
        assert peaks == [match[:5] for match in expected.peaks], query
        n_found += bool(peaks)
    assert n_found > 100


def test_buckets_are_named_by_code_points():
    assert [bucket(word) for word in ("the", "a", "東京", "\U0001f389!", "A/..")] == [
        "74-68",
        "61",
        "6771-4eac",
        "1f389-21",
        "41-2f",
    ]


# The bound on size.


def with_text(neuron: dict[str, Any]) -> list[bool]:
    for example in neuron["examples"]:
        assert len({"tokens" in example, "activations" in example, "start" in example}) == 1
    return ["tokens" in example for example in neuron["examples"]]


def kept_texts(neuron: dict[str, Any], limit: int) -> list[bool]:
    """Of each feature the central example, and then the strongest."""
    kept = set()
    for index, feature in enumerate(neuron["features"]):
        own = [i for i, example in enumerate(neuron["examples"]) if example["feature"] == index]
        kept |= {feature["central"], *[i for i in own if i != feature["central"]][: limit - 1]}
    return [i in kept for i in range(len(neuron["examples"]))]


@pytest.mark.slow
def test_the_most_text_that_fits_is_taken(exported, files, tmp_path, monkeypatch):
    limits = (None, 8, 3, 1)  # no feature has more than 12 examples
    monkeypatch.setattr(export, "LIMITS", limits)
    _, report = exported
    full = [shard(exported[0], f"neurons/{layer}/3") for layer in range(3)]
    taken: list[int | None] = [None]
    while True:  # each time one byte less than the last site had
        most = report.bytes - 1
        try:
            report = export_site(files, tmp_path / "site", max_mb=most / 1e6, quiet=True)
        except UserError as error:
            needed = re.search(r"takes about ([\d.]+) MB", str(error))
            break
        taken.append(report.examples_per_feature)
        assert report.bytes <= most
        assert report.bytes == sum(map(len, contents(tmp_path / "site").values()))
        limit = report.examples_per_feature
        assert description(tmp_path / "site")["examples_per_feature"] == limit
        for layer, whole in enumerate(full):
            neuron = shard(tmp_path / "site", f"neurons/{layer}/3")
            assert with_text(neuron) == kept_texts(whole, limit)
            without = [
                {k: v for k, v in e.items() if k not in ("tokens", "activations", "start")} for e in whole["examples"]
            ]
            assert [
                {k: v for k, v in e.items() if k in w} for e, w in zip(neuron["examples"], without, strict=True)
            ] == without
    assert tuple(taken) == limits  # none was left out although it would have fitted
    assert needed
    assert export_site(files, tmp_path / "site", max_mb=float(needed[1]), quiet=True).bytes <= 1e6 * float(needed[1])
    smallest = contents(tmp_path / "site")
    with pytest.raises(UserError, match=r"max_mb=0\.001: expected more: with the text of one example a feature"):
        export_site(files, tmp_path / "site", max_mb=0.001, quiet=True)
    assert contents(tmp_path / "site") == smallest  # an earlier export outlives the refusal
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


def test_far_too_little_is_refused_at_once(files, tmp_path, monkeypatch):
    monkeypatch.setattr(export._Site, "_store", lambda *_: pytest.fail("something was written"))
    size = export._Site(files, tmp_path, True)._predicted(export.LIMITS[-1])
    for share in (0.1, 0.9):
        with pytest.raises(
            UserError, match=r"one example a feature, the neurons alone take about [\d.]+ MB; allow"
        ) as e:
            export_site(files, tmp_path / "site", max_mb=share * size / 1e6, quiet=True)
        assert 0 <= float(re.search(r"about ([\d.]+) MB", str(e.value))[1]) - size / 1e6 <= 0.1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_wrong_prediction_is_noticed(exported, files, tmp_path, monkeypatch):
    monkeypatch.setattr(export._Site, "_predicted", lambda self, limit: 0)
    monkeypatch.setattr(export, "LIMITS", (None, 1))
    folder, full = exported
    report = export_site(files, tmp_path / "site", max_mb=(full.bytes - 1) / 1e6, quiet=True)
    assert report.examples_per_feature == 1 and report.bytes < full.bytes
    most = (report.bytes - 1) / 1e6
    with pytest.raises(UserError) as refused:
        export_site(files, tmp_path / "none", max_mb=most, quiet=True)
    assert float(re.search(r"takes about ([\d.]+) MB", str(refused.value))[1]) > most
    assert description(tmp_path / "site")["examples_per_feature"] == 1
    assert contents(tmp_path / "site").keys() == contents(folder).keys()


def test_the_prediction_is_of_all_neurons_from_some(exported, files, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "N_SAMPLED", 40)
    folder, _ = exported
    size = sum(file.stat().st_size for file in (folder / "data" / "v1" / "neurons").rglob("*.gz"))
    predicted = export._Site(files, tmp_path, True)._predicted(None)
    assert 0.8 * size < predicted < 1.2 * size  # 40 of 192 neurons, 65 of which are dead


@pytest.mark.parametrize("max_mb", [0, -1, float("nan")])
def test_a_bound_that_is_none(files, tmp_path, max_mb):
    with pytest.raises(UserError, match=f"^max_mb={max_mb:g}: expected a size above 0"):
        export_site(files, tmp_path / "site", max_mb=max_mb, quiet=True)
    assert not list(tmp_path.iterdir())


# Where it may be written.


@pytest.mark.parametrize(
    "atlas_json", [None, "{", "[]", '{"version": 1}', '{"compressed": false, "fingerprint": "a"}', EARLIER]
)
def test_a_folder_with_other_files_is_left_alone(files, tmp_path, atlas_json):
    folder = tmp_path / "site"
    (folder / "data" / "v1").mkdir(parents=True)
    (folder / "thesis.tex").write_text("of years")
    if atlas_json is not None:
        (folder / "data" / "v1" / "atlas.json").write_text(atlas_json)
    before = contents(folder)
    first = "thesis.tex" if atlas_json == EARLIER else "data"
    with pytest.raises(UserError, match=f"holds '{first}', which is of no earlier export; use another"):
        export_site(files, folder, quiet=True)
    assert contents(folder) == before and [path.name for path in tmp_path.iterdir()] == ["site"]


def test_a_file_in_its_place_or_above_it(files, tmp_path):
    file = tmp_path / "site"
    file.write_text("no folder")
    with pytest.raises(UserError, match="site is a file; expected a folder"):
        export_site(files, file, quiet=True)
    with pytest.raises(UserError, match=r"cannot be written \(File exists: .*/site\); use another folder"):
        export_site(files, file / "below", quiet=True)
    assert file.read_text() == "no folder" and [path.name for path in tmp_path.iterdir()] == ["site"]


@pytest.mark.slow
def test_an_earlier_export_is_replaced_and_an_empty_folder_filled(site, files, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "site"
    folder.mkdir()
    for left_behind in ("site.partial", "site.former"):
        (tmp_path / left_behind / "data").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    export_site(files, "site", quiet=True)
    (folder / "data" / "v1" / "neurons" / "9999.json.gz").write_text("of a larger atlas")
    export_site(files, str(folder), quiet=True)
    assert contents(folder) == contents(site)
    assert [path.name for path in tmp_path.iterdir()] == ["site"]
    assert capsys.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.parametrize("there", ["nothing", "an earlier export"])
@pytest.mark.parametrize(
    ("failure", "raised", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), UserError, "the disk of .*site is full; free some space"),
        (OSError(errno.EIO, "Input/output error"), UserError, r"cannot be written \(.*Input/output error\)"),
        (KeyboardInterrupt(), KeyboardInterrupt, None),
    ],
    ids=["full disk", "broken disk", "Ctrl-C"],
)
def test_what_fails_leaves_what_was_there(files, tmp_path, monkeypatch, there, failure, raised, message):
    folder = tmp_path / "site"
    if there != "nothing":
        (folder / "data" / "v1").mkdir(parents=True)
        (folder / "data" / "v1" / "atlas.json").write_text(EARLIER)
    before = contents(tmp_path)
    write = Path.write_bytes

    def fail_late(self: Path, data: bytes) -> int:
        if "neurons" in self.parts and self.name == "7.json.gz":
            raise failure
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", fail_late)
    with pytest.raises(raised, match=message):
        export_site(files, folder, quiet=True)
    assert contents(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == (["site"] if before else [])


@pytest.mark.slow
def test_progress_is_shown_with_a_rate(files, tmp_path, capsys):
    export_site(files, tmp_path / "site")
    shown = capsys.readouterr().err
    assert all(part in shown for part in ("measures", "sequences", "search", "neurons", "files/s"))
