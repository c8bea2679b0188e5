"""Datasets of the Hub, streamed in a process of their own from a stand-in for the Hub on this machine."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_stand_in import HubStandIn

REPOSITORY = Path(__file__).parents[2]
READ = """
import itertools, json, sys
from nejax.errors import UserError
from nejax.pipeline.corpus.documents import open_corpus

for settings in json.loads(sys.argv[1]):
    limit = settings.pop("limit", None)
    try:
        corpus = open_corpus(**settings)
        documents = list(itertools.islice(corpus, limit))
        print(json.dumps({"documents": documents, "skipped": corpus.skipped}))
    except UserError as error:
        print(json.dumps({"error": str(error)}))
"""


def read_corpora(environment: dict[str, str], *settings: dict) -> list[dict]:
    """What `open_corpus` makes of each of the settings, in a process with this environment."""
    command = [sys.executable, "-c", READ, json.dumps(settings)]
    process = subprocess.run(
        command, env=os.environ | environment, cwd=REPOSITORY, capture_output=True, text=True, timeout=300
    )
    assert process.returncode == 0, process.stderr
    return [json.loads(line) for line in process.stdout.splitlines()]


@pytest.fixture
def hub(tmp_path):
    with HubStandIn(tmp_path / "hub") as hub:
        yield hub


def write_parquet(path: Path, table: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(table), path)


@pytest.mark.slow
def test_datasets_are_streamed(hub, tmp_path):
    datasets = hub.root / "datasets"
    for number in range(2):
        texts = {"text": [f"text {number}.{row}" for row in range(3)], "label": [0, 1, 2]}
        write_parquet(datasets / f"acme/shards/data/train-0000{number}-of-00002.parquet", texts)
    write_parquet(datasets / "acme/shards/data/test-00000-of-00001.parquet", {"text": ["a test"], "label": [5]})
    lines = datasets / "acme/lines/en/train.jsonl"
    lines.parent.mkdir(parents=True)
    lines.write_text('{"body": "one", "id": "x"}\n{"body": null, "id": "y"}\n{"body": " ", "id": "z"}\n')
    (datasets / "acme/lines/fr").mkdir()
    (datasets / "acme/lines/fr/train.jsonl").write_text('{"body": "un", "id": "f"}\n')
    card = "---\nconfigs:\n- {config_name: en, data_files: en/*}\n- {config_name: fr, data_files: fr/*}\n---\n"
    (datasets / "acme/lines/README.md").write_text(card)
    results = read_corpora(
        hub.environment(tmp_path / "cache"),
        {"source": "acme/shards", "limit": 2},
        {"source": "acme/shards", "split": "test"},
        {"source": "acme/lines:en", "text_field": "body"},
        {"source": "acme/lines:fr", "text_field": "body"},
        {"source": "acme/shards"},
    )
    everything = [[f"acme/shards:{3 * a + b}", f"text {a}.{b}"] for a in range(2) for b in range(3)]
    assert results == [
        {"documents": everything[:2], "skipped": {}},
        {"documents": [["acme/shards:0", "a test"]], "skipped": {}},
        {"documents": [["x", "one"]], "skipped": {"no text in field 'body'": 1, "empty": 1}},
        {"documents": [["f", "un"]], "skipped": {}},
        {"documents": everything, "skipped": {}},
    ]
    fetched = [
        request.rsplit("/", 1)[-1] for request in hub.requests if request.startswith("GET /datasets/acme/shards")
    ]
    seldom = fetched.index("train-00001-of-00002.parquet")
    assert "test-00000-of-00001.parquet" in fetched[:seldom], "two documents need the first file only"


SAME = """
import json, sys
from nejax.errors import UserError
from nejax.pipeline.corpus.documents import open_corpus, read_back

source, kept = sys.argv[1:]
if not kept:
    corpus = open_corpus(source)
    list(corpus)
    print(json.dumps([corpus.news()]))
else:
    print(json.dumps(open_corpus(source, eager=False).changes_since(read_back(json.loads(kept))[0])))
"""


@pytest.mark.slow
def test_a_dataset_is_known_by_its_revision_and_else_by_its_rows(hub, tmp_path):
    file = hub.root / "datasets/acme/rows/train.parquet"
    write_parquet(file, {"text": ["one", "two"]})
    environment = os.environ | hub.environment(tmp_path / "cache")

    def run(kept: str = "") -> tuple[subprocess.CompletedProcess, Any]:
        command = [sys.executable, "-c", SAME, "acme/rows", kept]
        process = subprocess.run(
            command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False
        )
        assert process.returncode == 0, process.stderr
        hub.requests.clear()
        return process, json.loads(process.stdout)

    _, kept = run()
    revision = kept[0][1][0][1]
    assert len(revision) == 40
    _, (changes, _) = run(json.dumps(kept))
    assert changes == []
    write_parquet(file.with_name("README.parquet"), {"text": ["no"]})
    file.with_name("README.parquet").rename(file.with_name("LICENSE"))
    _, (changes, now) = run(json.dumps(kept))
    assert changes == [] and now[1][0][1] != revision, "another revision with the same rows"
    write_parquet(file, {"text": ["one", "three"]})
    _, (changes, _) = run(json.dumps(kept))
    assert len(changes) == 1 and changes[0].startswith("'acme/rows' is not what it was")
    environment |= {"HF_HUB_OFFLINE": "1"}
    process, (changes, _) = run(json.dumps(kept))
    assert changes == [] and "note: not compared with what the run was made from" in process.stderr


@pytest.mark.slow
def test_rows_that_are_not_utf8_are_counted(hub, tmp_path):
    """`a`, one byte that is no text, `c`."""
    offsets, values = pa.array([0, 1, 2, 3], pa.int32()).buffers()[1], pa.py_buffer(b"a\xffc")
    column = pa.Array.from_buffers(pa.string(), 3, [None, offsets, values])
    write_parquet(hub.root / "datasets/acme/bytes/train.parquet", {"text": column})
    (result,) = read_corpora(hub.environment(tmp_path / "cache"), {"source": "acme/bytes"})
    assert result == {"documents": [["acme/bytes:0", "a"], ["acme/bytes:2", "c"]], "skipped": {"undecodable": 1}}


@pytest.mark.slow
def test_what_is_not_on_the_hub_is_refused_in_one_line(hub, tmp_path):
    write_parquet(hub.root / "datasets/acme/docs/train.parquet", {"body": ["a"], "title": ["b"]})
    broken = hub.root / "datasets/acme/broken/train.jsonl"
    broken.parent.mkdir()
    broken.write_bytes(b"\x00\xff" * 100)
    script = hub.root / "datasets/acme/script/script.py"
    script.parent.mkdir()
    script.write_text("pass")
    cases = [
        ({"source": "acme/none"}, "is neither a local file or folder nor a dataset on the Hub"),
        ({"source": "acme/docs"}, "has no column 'text'; its columns are body, title"),
        ({"source": "acme/docs", "split": "dev"}, "Bad split: dev. Available splits: ['train']"),
        ({"source": "acme/docs:en"}, "'en' not found. Available: ['default']"),
        ({"source": "acme/broken"}, "cannot be read from the Hub"),
        ({"source": "acme/script"}, "Dataset scripts are no longer supported"),
    ]
    results = read_corpora(hub.environment(tmp_path / "cache"), *(settings for settings, _ in cases))
    for (settings, message), result in zip(cases, results, strict=True):
        assert message in result["error"], settings
        assert result["error"].startswith(f"corpus {settings['source']!r} "), settings
        assert "\n" not in result["error"], settings


@pytest.mark.slow
def test_no_network_is_told_from_no_dataset(hub, tmp_path):
    environment = hub.environment(tmp_path / "cache")
    hub.__exit__()  # nobody listens any more; huggingface_hub tries for some 25 seconds
    for change in ({}, {"HF_HUB_OFFLINE": "1"}):
        (result,) = read_corpora(environment | change, {"source": "acme/docs"})
        assert "is not a local file or folder, and the Hub cannot be reached" in result["error"]
        assert "'python-docs', which need no network" in result["error"]
