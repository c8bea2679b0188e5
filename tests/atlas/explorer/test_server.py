"""What the server answers, and how it refuses: every answer has its headers, every refusal is one plain line."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from schemathesis.engine import events, from_schema
from starlette.testclient import TestClient

from nejax.atlas.explorer import server
from nejax.atlas.explorer.columns import COLUMNS
from nejax.atlas.explorer.guard import ASK_AGAIN, HEADERS, LONGEST_ADDRESS, host_name, is_loopback
from nejax.atlas.explorer.pages import may_be_kept, pages
from nejax.atlas.explorer.server import FOR_EVER, explorer_app
from nejax.atlas.explorer.shards import Shards, to_json
from nejax.atlas.files import AtlasFiles
from nejax.atlas.search import LONGEST_QUERY
from nejax.pipeline.stages.run import Run

HERE = "http://127.0.0.1:8000"
DATA = ["/data/v1/atlas.json", "/data/v1/neurons/1/2.json", "/data/v1/sequences/0.json", "/data/v1/columns/mean.json"]
ASSETS = [f"/{name}" for name in pages() if may_be_kept(name)]
EVERY = [*DATA, "/data/v1/search?q=river", "/openapi.json", "/", "/index.html", "/icon.svg", *ASSETS]


def client_of(shards: Shards, host: str = "127.0.0.1", address: str = HERE) -> TestClient:
    return TestClient(explorer_app(shards, host), base_url=address, raise_server_exceptions=False)


@pytest.fixture(scope="module")
def client(shards: Shards) -> TestClient:
    return client_of(shards)


def refused(response: Any, status: int, *, json_expected: bool = True) -> str:
    """The line of a refusal."""
    assert response.status_code == status
    assert all(response.headers[name] == value for name, value in HEADERS.items())
    assert "Traceback" not in response.text
    if json_expected:
        assert response.headers["content-type"] == "application/json"
        assert list(response.json()) == ["error"]
        line = response.json()["error"]
    else:
        assert response.headers["content-type"] == "text/plain; charset=utf-8"
        line = response.text.removesuffix("\n")
    assert line and "\n" not in line and line.isprintable()
    return line


def test_the_shards_are_what_is_answered(client, shards):
    expected = {
        "atlas": shards.atlas(),
        "neurons/2/63": shards.neuron(2, 63),
        "sequences/1": shards.sequences(1),
        **{f"columns/{column.name}": shards.column(column.name) for column in COLUMNS},
    }
    for name, shard in expected.items():
        response = client.get(f"/data/v1/{name}.json")
        assert response.status_code == 200 and response.headers["content-type"] == "application/json"
        assert response.content == to_json(shard)
    assert client.get("/data/v1/search?q=the+river&offset=1").content == to_json(shards.search("the river", 1))
    page = client.get("/data/v1/search?q=the&offset=1&peaks_offset=2").content
    assert page == to_json(shards.search("the", 1, 2))
    assert client.get("/openapi.json").json()["openapi"] == "3.1.0"


@pytest.mark.parametrize("address", EVERY)
def test_every_answer_has_the_headers(client, address):
    response = client.get(address)
    assert response.status_code == 200
    assert all(response.headers[name] == value for name, value in HEADERS.items())
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy and "http" not in policy


@pytest.mark.parametrize("name", list(pages()))
def test_every_page_is_sent_as_what_it_is(client, name: str):
    response = client.get(f"/{name}")
    assert response.content == pages()[name]
    kinds = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
    assert response.headers["content-type"].split(";")[0] == kinds.get(Path(name).suffix, "text/plain")


def test_what_has_its_content_in_its_name_is_kept_for_ever_and_all_else_asked_for_again(client):
    assert len(ASSETS) == 2
    for address in EVERY:
        expected = FOR_EVER if address in ASSETS else ASK_AGAIN
        assert client.get(address).headers["cache-control"] == expected["Cache-Control"]
    assert client.get("/nothing").headers["cache-control"] == ASK_AGAIN["Cache-Control"]
    assert client.get(ASSETS[0].replace("assets/", "assets/0")).status_code == 404


@pytest.mark.parametrize("address", [*ASSETS, *DATA])
def test_answers_are_compressed_for_who_can_read_that(client, address):
    packed = client.get(address, headers={"Accept-Encoding": "gzip"})
    plain = client.get(address, headers={"Accept-Encoding": "identity"})
    assert packed.content == plain.content and "content-encoding" not in plain.headers
    if len(plain.content) >= 1000:
        assert packed.headers["content-encoding"] == "gzip"
        assert int(packed.headers["content-length"]) < 0.7 * len(plain.content)
        assert "accept-encoding" in packed.headers["vary"].lower()


@pytest.mark.parametrize("address", EVERY)
def test_head_is_get_without_the_body(client, address):
    whole, head = client.get(address), client.head(address)
    assert head.status_code == 200
    assert head.headers["content-length"] == whole.headers["content-length"]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY", "<SCRIPT>"])
@pytest.mark.parametrize("address", EVERY)
def test_other_methods_are_refused(client, method, address):
    response = client.request(method, address)
    json_expected = address.startswith("/data") or address == "/openapi.json"
    assert "GET or HEAD" in refused(response, 405, json_expected=json_expected)
    assert response.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    ("address", "status", "line"),
    [
        ("/data/v1/neurons/3/0.json", 404, "no layer 3; expected 0 to 2"),
        ("/data/v1/neurons/0/64.json", 404, "no neuron 64; expected 0 to 63"),
        ("/data/v1/neurons/-1/0.json", 404, "layer is '-1'"),
        ("/data/v1/neurons/00/1.json", 404, "layer is '00'"),
        ("/data/v1/neurons/0/01.json", 404, "neuron is '01'"),
        ("/data/v1/neurons/0/1e1.json", 404, "neuron is '1e1'"),
        ("/data/v1/neurons/0/ 1.json", 404, "neuron is ' 1'"),
        ("/data/v1/neurons/0/１.json", 404, "neuron is '１'"),
        ("/data/v1/neurons/0/٣.json", 404, "neuron is"),
        ("/data/v1/neurons/0/%00.json", 404, "neuron is"),
        ("/data/v1/neurons/0/1%0a.json", 404, "neuron is"),
        ("/data/v1/neurons/0/" + "9" * 5000 + ".json", 404, "neuron is '9999"),
        ("/data/v1/neurons/0.json", 404, "no such data"),
        ("/data/v1/neurons/0/1", 404, "no such data"),
        ("/data/v1/neurons/0/1.json/", 404, "no such data"),
        ("/data/v1/sequences/99.json", 404, "no block 99"),
        ("/data/v1/columns/id.json", 404, "no measure 'id'"),
        ("/data/v1/columns/..%2f..%2fatlas.json", 404, "no such data"),
        ("/data/v2/atlas.json", 404, "no such data"),
        ("/data/", 404, "no such data"),
        ("/data/v1/search", 400, "expected search?q=TEXT"),
        ("/data/v1/search?q=", 400, "expected search?q=TEXT"),
        ("/data/v1/search?q=a&offset=-1", 400, "offset is '-1'"),
        ("/data/v1/search?q=a&offset=1.5", 400, "offset is '1.5'"),
        ("/data/v1/search?q=a&offset=", 400, "offset is ''"),
        ("/data/v1/search?q=a&offset=9999999999", 400, "offset is"),
        ("/data/v1/search?q=a&peaks_offset=x", 400, "peaks_offset is 'x'"),
        ("/data/v1/search?q=" + "a" * (LONGEST_QUERY + 1), 400, "expected at most"),
        ("/data/v1/search?q=" + "a" * (LONGEST_ADDRESS + 1), 414, "address is too long"),
        ("/data/v1/" + "a" * (LONGEST_ADDRESS + 1), 414, "address is too long"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_asked_wrongly_is_refused_in_one_line(client, address, status, line):
    assert line in refused(client.get(address), status)


@pytest.mark.parametrize(
    "address",
    [
        *("/nothing", "/js", "/js/", "/server.py", "/../server.py", "/%2e%2e/server.py", "/..%2fserver.py"),
        *(
            "/js/..%5c..%5cserver.py",
            "/....//server.py",
            "//etc/passwd",
            "/%2fetc%2fpasswd",
            "/%00",
            "/index.html%00.js",
        ),
        *(
            "/%ff",
            "/%ed%a0%80",
            "/" + "x" * 300,
            "/a%0d%0aX-Injected:%201",
            "/<script>alert(1)</script>",
        ),
    ],
    ids=lambda value: value[:30],
)
def test_nothing_but_the_pages_is_served(client, address):
    response = client.get(address)
    refused(response, 404, json_expected=False)
    assert "x-injected" not in response.headers


@pytest.mark.parametrize(
    "query", ["*", '"', "a OR b", "NEAR(a b)", "text:a", "' OR 1=1 --", "\x00", "🚀", "a*", "  ", "%%", "\ud800"]
)
def test_any_text_can_be_searched_for(client, query):
    response = client.get("/data/v1/search", params={"q": query.encode("utf-8", "surrogatepass")})
    assert response.status_code == 200
    assert response.json()["n_sequences"] >= len(response.json()["sequences"])


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8000", "localhost:1", "LOCALHOST", "[::1]:8000", "[::1]"])
def test_this_machine_s_own_names_are_answered(client, host):
    assert client.get("/data/v1/atlas.json", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        *(
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example:8000",
            "",
            "127.0.0.1@evil.example",
            "127.0.0.1:x",
        )
    ],
)
@pytest.mark.parametrize("address", ["/data/v1/atlas.json", "/"])
def test_a_name_of_another_is_refused(client, host, address):
    line = refused(client.get(address, headers={"Host": host}), 400, json_expected=address != "/")
    assert repr(host) in line


def test_bound_elsewhere_any_name_is_answered(shards):
    for host in ("0.0.0.0", "::", "192.0.2.7"):
        client = client_of(shards, host, "http://some.name:80")
        for name in ("some.name", "[", "a b", ""):
            assert client.get("/", headers={"Host": name}).status_code == 200
            assert client.get(DATA[1], headers={"Host": name}).status_code == 200
            refused(client.get("/nothing", headers={"Host": name}), 404, json_expected=False)
    assert client_of(shards, "127.0.0.2", "http://127.0.0.2").get("/").status_code == 200
    assert client_of(shards, "127.0.0.2", "http://some.name").get("/").status_code == 400


def test_hosts_are_told_from_ports():
    assert [host_name(host) for host in ("a:1", "a", "[::1]:80", "[::1]", "a:", "a:²")] == [
        "a",
        "a",
        "[::1]",
        "[::1]",
        "a:",
        "a:²",
    ]
    assert [is_loopback(host) for host in ("127.3.2.1", "::1", "Localhost", "0.0.0.0", "::", "host")] == [True] * 3 + [
        False
    ] * 3


@pytest.mark.parametrize("address", [*DATA, "/openapi.json", "/", *ASSETS])
def test_what_the_browser_has_is_not_sent_again(client, address):
    tag = client.get(address).headers["etag"]
    for known in (tag, f'"other", {tag}', f"W/{tag}"):
        response = client.get(address, headers={"If-None-Match": known})
        assert response.status_code == 304 and response.content == b""
        assert response.headers["etag"] == tag
        assert all(response.headers[name] == value for name, value in HEADERS.items())
    assert client.get(address, headers={"If-None-Match": '"other"'}).status_code == 200
    assert client.get("/data/v1/neurons/9/9.json", headers={"If-None-Match": tag}).status_code == 404


def test_another_server_has_other_tags(client, shards):
    assert client_of(shards).get(DATA[0]).headers["etag"] != client.get(DATA[0]).headers["etag"]


def test_a_damaged_file_is_said_in_one_line(run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    copy = shutil.copytree(run.directory.path / "atlas", tmp_path / "copy")
    client = client_of(Shards(AtlasFiles(copy)))
    database = copy / "atlas.sqlite"
    page = 4096
    database.write_bytes(database.read_bytes()[:page] + b"\xa5" * (database.stat().st_size - page))
    for address in ("/data/v1/neurons/0/3.json", "/data/v1/sequences/1.json", "/data/v1/search?q=river"):
        assert "is damaged" in refused(client.get(address), 500)
    assert "Traceback" in capfd.readouterr().err
    assert client.get("/").status_code == 200


def test_what_nobody_thought_of_is_said_in_one_line(shards, monkeypatch):
    client = client_of(shards)
    monkeypatch.setattr(shards, "neuron", lambda *place: 1 / 0)
    line = refused(client.get("/data/v1/neurons/0/3.json"), 500)
    assert "ZeroDivision" not in line and "went wrong" in line
    with pytest.raises(ZeroDivisionError):  # so that the server logs it
        TestClient(explorer_app(shards), base_url=HERE).get("/data/v1/neurons/0/3.json")


def test_answers_are_kept_up_to_a_bound(shards, monkeypatch):
    cache = server._Cache(100)
    for i in range(50):
        cache.put(str(i), b"x" * 30)
        cache.get("48")
    assert [i for i in range(50) if cache.get(str(i)) is not None] == [47, 48, 49]
    cache.put("large", b"x" * 101)
    assert cache.get("large") is None and cache.get("49") is None
    monkeypatch.setattr(server, "_KEPT", 10)
    client = client_of(shards)
    assert client.get(DATA[1]).content == client.get(DATA[1]).content == to_json(shards.neuron(1, 2))


def test_a_kept_answer_is_not_made_again(shards, monkeypatch):
    client, made = client_of(shards), []
    monkeypatch.setattr(shards, "column", lambda name: made.append(name) or [1])
    assert [client.get("/data/v1/columns/mean.json?x=1").json() for _ in range(3)] == [[1]] * 3
    assert made == ["mean"]


def test_the_atlas_stays_as_it_was(run: Run):
    def digests() -> dict[str, str]:
        files = (file for file in sorted((run.directory.path / "atlas").rglob("*")) if file.is_file())
        return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}

    before = digests()
    with AtlasFilesOf(run) as shards:
        client = client_of(shards)
        for address in EVERY:
            assert client.get(address).status_code == 200
    assert digests() == before


class AtlasFilesOf:
    """The shards of a run's atlas, whose files are closed at the end."""

    def __init__(self, run: Run):
        self.files = AtlasFiles(run.directory.path / "atlas")

    def __enter__(self) -> Shards:
        return Shards(self.files)

    def __exit__(self, *error: object) -> None:
        self.files.close()


def failures(shards: Shards) -> list[str]:
    """What schemathesis finds wrong with a server: requests that fit its description and such that do not."""
    schema = schemathesis.openapi.from_asgi("/openapi.json", explorer_app(shards), headers={"Host": "127.0.0.1"})
    schema.config.update(headers={"Host": "127.0.0.1"})
    schema.config.generation.update(max_examples=5)
    found, n_checked = [], 0
    for event in from_schema(schema).execute():
        if isinstance(event, events.NonFatalError | events.FatalError):
            found.append(str(event))
        if isinstance(event, events.ScenarioFinished):
            checks = [check for checks in event.recorder.checks.values() for check in checks]
            n_checked += len(checks)
            found += [f"{event.label}: {check.name}" for check in checks if check.failure_info is not None]
    assert n_checked > 300
    return found


@pytest.mark.slow
def test_the_description_holds(shards):
    assert failures(shards) == []


@pytest.mark.slow
def test_a_wrong_description_would_be_noticed(shards, monkeypatch):
    monkeypatch.setattr(shards, "sequences", lambda block: {"first": "none"})
    assert "GET /data/v1/sequences/{block}.json: response_schema_conformance" in failures(shards)
