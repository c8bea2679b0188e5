"""The explorer in a process of its own: what its user sees, what its port answers, and how it ends."""

import contextlib
import getpass
import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path

import pytest

from nejax.atlas.explorer.guard import HEADERS, LONGEST_ADDRESS
from nejax.atlas.explorer.serving import directions, listen
from nejax.atlas.explorer.shards import to_json
from nejax.errors import UserError
from nejax.pipeline.stages.run import Run

ROOT = Path(__file__).parent.parent.parent.parent


def explore(*flags: str, cwd: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, str(ROOT / "experiments" / "explore.py"), *flags],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


@contextlib.contextmanager
def serving(run: Run, cwd: Path) -> Iterator[tuple["subprocess.Popen[str]", int, list[str]]]:
    """The process, its port and the first lines that it prints; it is gone at the end."""
    process = explore(f"--atlas={run.directory.path}", "--port=0", cwd=cwd)
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", lines[0])
        assert found, lines
        yield process, int(found[1]), lines
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def port(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with serving(run, tmp_path_factory.mktemp("elsewhere")) as (_, port, _):
        yield port


def ask(port: int, address: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(connection):
        connection.request(method, address)
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()


def raw(port: int, request: bytes) -> tuple[int, str]:
    """Status and head of the answer to any bytes."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(request)
        answer = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
    return int(answer.split()[1]), answer


def test_it_says_where_it_is_and_ends_on_ctrl_c_leaving_the_atlas_as_it_was(run, tmp_path, shards):
    def digests() -> dict[str, str]:
        files = (file for file in (run.directory.path / "atlas").rglob("*") if file.is_file())
        return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}

    before = digests()
    with serving(run, tmp_path) as (process, port, lines):
        assert f"ssh -L {port}:127.0.0.1:{port} {getpass.getuser()}@{socket.gethostname()}" in lines[1]
        for address in ("/", "/icon.svg", "/data/v1/search?q=river", "/data/v1/sequences/0.json", "/openapi.json"):
            assert ask(port, address)[0] == 200
        assert ask(port, "/data/v1/neurons/2/5.json")[2] == to_json(shards.neuron(2, 5))
        kept = socket.create_connection(("127.0.0.1", port))  # as a browser keeps one open
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        kept.close()
    assert process.returncode == 0
    assert out.strip() == "Stopped." and err == ""
    assert digests() == before
    assert list(tmp_path.iterdir()) == []


def test_it_needs_neither_jax_nor_transformers():
    modules = "nejax.atlas.explorer.server, nejax.atlas.explorer.serving, nejax.atlas.files"
    heavy = "{'jax', 'transformers', 'flax', 'scipy', 'torch', 'matplotlib'}"
    script = f"import sys, {modules}; print(*{heavy} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""


def test_many_at_once_get_what_they_asked_for(port, shards):
    places = [(layer, neuron) for layer in range(3) for neuron in range(0, 64, 4)] * 4
    with ThreadPoolExecutor(32) as pool:
        answers = pool.map(lambda place: ask(port, "/data/v1/neurons/{}/{}.json".format(*place))[2], places)
        for place, body in zip(places, answers, strict=True):
            assert body == to_json(shards.neuron(*place))


def test_head_has_no_body(port):
    status, headers, body = ask(port, "/data/v1/atlas.json", "HEAD")
    assert (status, body) == (200, b"") and headers["content-length"] == str(len(ask(port, "/data/v1/atlas.json")[2]))


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /../server.py HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404),
        (b"GET /js/../../guard.py HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404),
        (b"GET //etc/passwd HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404),
        (b"GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.0\r\n\r\n", 400),
        (
            b"GET /data/v1/search?q="
            + b"a" * (LONGEST_ADDRESS + 1)
            + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            414,
        ),
        (b"GET /?" + b"a" * (4 * LONGEST_ADDRESS + 1), 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"DELETE /data/v1/atlas.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 405),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_no_browser_sends_is_refused_with_the_headers(port, request_, status):
    found, answer = raw(port, request_)
    assert found == status
    assert "Traceback" not in answer and "server: " not in answer.lower()
    head = answer.partition("\r\n\r\n")[0].lower()
    for name, value in HEADERS.items():
        assert f"{name}: {value}".lower() in head


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--atlas=nowhere"], "nowhere does not exist"),
        (["--atlas=."], "there is no atlas in ."),
        (["--port=65536"], "--port"),
        (["--port=-1"], "--port"),
        (["--nonsense"], "nonsense"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_a_user_can_mend_is_said_in_one_line(tmp_path, flags, line):
    process = explore(*flags, cwd=tmp_path)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 2 and out == ""
    assert line in err and err.count("\n") == 1 and err.startswith("error: ")


def test_a_port_in_use_is_named(run, tmp_path, port):
    process = explore(f"--atlas={run.directory.path}", f"--port={port}", cwd=tmp_path)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 2 and out == ""
    assert err == f"error: port {port} is in use; choose another --port, or --port=0 for any that is free\n"


def test_it_listens_on_loopback_alone_unless_told_otherwise():
    with listen("127.0.0.1", 0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"
    with listen("localhost", 0) as listener:
        assert listener.getsockname()[0] in ("127.0.0.1", "::1")


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1", "a" * 300, "exa mple", "\ud800", ""])
def test_a_host_that_is_none_of_this_machine_is_refused(host):
    with pytest.raises(UserError, match=r"expected 127\.0\.0\.1") as error:
        listen(host, 0)
    assert "\n" not in str(error.value)


def test_directions_fit_the_address():
    machine = socket.gethostname()
    assert "http://[::1]:80/" in directions("::1", 80) and "ssh -L 80:[::1]:80 " in directions("::1", 80)
    assert f"http://{machine}:80/" in directions("0.0.0.0", 80)
    assert "ssh" not in directions("0.0.0.0", 80) and "can read the atlas" in directions("0.0.0.0", 80)
    assert "http://192.0.2.1:80/" in directions("192.0.2.1", 80)


@pytest.mark.slow
def test_an_export_is_written_and_nothing_served(run, tmp_path):
    process = explore(f"--atlas={run.directory.path}", "--export=site", cwd=tmp_path)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    n_files = sum(file.is_file() for file in (tmp_path / "site").rglob("*"))
    assert out.startswith(f"Wrote {n_files:,} files") and out.count("\n") == 1
