"""Models by name: local directories, the package's own, and the Hub by a loopback stand-in in a real subprocess."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hub_stand_in import HubStandIn
from model_files import VOCAB, random_tensors, write_model, write_shards

from nejax.errors import UserError
from nejax.models import loading
from nejax.models.formats.tokens import train_tokenizer
from nejax.models.loading import load_model


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model", tokenizer=True)


def refusal(name: str, **options) -> str:
    """The one line with which a name is refused."""
    with pytest.raises(UserError) as caught:
        load_model(name, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- local directories


def test_a_local_directory(directory: Path):
    loaded = load_model(str(directory))
    assert loaded.name == str(directory)
    np.testing.assert_array_equal(loaded.model.input_weights()[1], random_tensors()["h.1.mlp.c_fc.weight"])
    assert loaded.tokenizer.decode(loaded.tokenizer("brown fox").input_ids) == "brown fox"
    assert loaded.tokenizer.bos_token_id == 0
    assert re.fullmatch(r"[0-9a-f]{32}", loaded.fingerprint)


def test_local_directories_are_found_from_home_and_here(directory: Path, monkeypatch: pytest.MonkeyPatch):
    expected = load_model(str(directory)).fingerprint
    monkeypatch.setenv("HOME", str(directory.parent))
    monkeypatch.chdir(directory.parent)
    assert [load_model(name).fingerprint for name in ("~/model", "./model", "model")] == 3 * [expected]


def test_a_tokenizer_of_vocabulary_and_merges(directory: Path):
    expected = load_model(str(directory)).tokenizer("the quick brown fox").input_ids
    model = json.loads((directory / "tokenizer.json").read_text())["model"]
    (directory / "vocab.json").write_text(json.dumps(model["vocab"]))
    (directory / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(pair) for pair in model["merges"]))
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (directory / file).unlink()
    assert load_model(str(directory)).tokenizer("the quick brown fox").input_ids == expected


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_dtype_and_input_weights(directory: Path, dtype: str):
    native = load_model(str(directory), dtype=dtype).model
    folded = load_model(str(directory), dtype=dtype, input_weights="folded").model
    assert {leaf.dtype for leaf in jax.tree.leaves((nnx.state(native), nnx.state(folded)))} == {jnp.dtype(dtype)}
    jax.tree.map(np.testing.assert_array_equal, nnx.state(folded), nnx.state(native.folded()))
    assert not np.array_equal(native.input_weights(), folded.input_weights())


def test_the_fingerprint_is_that_of_the_files(directory: Path, tmp_path: Path):
    def fingerprint(change=lambda copy: None) -> str:
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(directory, copy)
        change(copy)
        return load_model(str(copy)).fingerprint

    def other_weight(copy: Path) -> None:
        tensors = random_tensors()
        tensors["ln_f.bias"][0] += 1e-6
        write_model(copy, tensors)

    def other_shards(copy: Path) -> None:
        write_shards(copy, random_tensors(), 2)

    def other_tokenizer(copy: Path) -> None:
        train_tokenizer(["something else"], vocab_size=VOCAB, n_positions=16).save_pretrained(copy)

    assert fingerprint() == fingerprint() == load_model(str(directory)).fingerprint
    assert fingerprint(lambda copy: (copy / "README.md").write_text("hello")) == fingerprint()
    others = [
        fingerprint(lambda copy: write_model(copy, settings={"layer_norm_epsilon": 1e-6})),
        fingerprint(other_weight),
        fingerprint(other_shards),
        fingerprint(other_tokenizer),
    ]
    assert len({fingerprint(), *others}) == 5


@pytest.mark.parametrize("name", ["", "no/such/folder", "./nothing", "/nothing", "~/nothing", "a b", "C:\\model"])
def test_paths_that_are_not_there_are_refused(name: str):
    message = refusal(name)
    assert message.startswith(f"there is no directory {name!r}; expected gpt2-tiny, smollm2, gpt2,")


@pytest.mark.parametrize("name", ["a--b", "org/name.git", "x" * 100])
def test_names_that_the_hub_cannot_have_are_refused(name: str):
    assert refusal(name).startswith(f"{name!r} cannot be the name of a model; expected gpt2-tiny")


def test_a_file_is_no_directory(directory: Path):
    assert "is a file; expected the directory" in refusal(str(directory / "model.safetensors"))


def test_a_directory_without_its_parts_is_refused(directory: Path):
    for file, message in {
        "tokenizer.json": f"no tokenizer in {directory}; expected tokenizer.json",
        "model.safetensors": f"no weights in {directory}; expected model.safetensors",
        "config.json": f"no config.json in {directory}; expected a model directory",
    }.items():
        (directory / file).unlink()
        assert refusal(str(directory)).startswith(message)


def test_an_adapter_beside_the_weights_is_not_left_out_in_silence(directory: Path):
    (directory / "adapter_config.json").write_text("{}")
    assert f"{directory} has an adapter beside its weights (adapter_config.json), which is not read" in refusal(
        str(directory)
    )


def test_a_damaged_tokenizer_is_named(directory: Path):
    content = (directory / "tokenizer.json").read_text()
    for damaged in (content[:1000], "{}", ""):
        (directory / "tokenizer.json").write_text(damaged)
        message = refusal(str(directory))
        assert message.startswith(f"the tokenizer in {directory} cannot be read (") and len(message) < 400


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(directory: Path):
    texts = ["a longer text with many more pairs to merge into tokens than the model can tell apart " * 3]
    train_tokenizer(texts, vocab_size=VOCAB + 5, n_positions=16).save_pretrained(directory)
    assert refusal(str(directory)).startswith(f"the tokenizer in {directory} has token ids up to 274, the model 270")


def test_other_settings_are_refused(directory: Path):
    assert "'centred'; expected 'native' or 'folded'" in refusal(str(directory), input_weights="centred")
    assert "is local and has no revision 'main'" in refusal(str(directory), revision="main")


# --- the package's own model


def test_the_model_that_comes_with_the_package():
    loaded = load_model("gpt2-tiny")
    assert loaded.name == "gpt2-tiny"
    assert loaded.model.config.n_layers * loaded.model.config.d_mlp > 0
    assert loaded.tokenizer.bos_token_id is not None


def test_an_installation_without_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loading.resources, "files", lambda package: tmp_path)
    message = refusal("gpt2-tiny")
    assert message.startswith("gpt2-tiny is missing from this installation") and "install nejax again" in message


# --- the Hub

LOAD = """if True:
    import json, sys, time
    from nejax.errors import UserError
    from nejax.models.loading import load_model
    for name, revision in json.loads(sys.argv[1]):
        start = time.monotonic()
        try:
            answer = {"fingerprint": load_model(name, revision=revision).fingerprint}
        except UserError as error:
            answer = {"error": str(error)}
        print(json.dumps(answer | {"name": name, "seconds": time.monotonic() - start}))
"""


def load_in_a_process(environment: dict[str, str], *names: str | tuple[str, str]) -> dict[str, dict]:
    """Load models one after the other in a process of its own; its answers by name."""
    asked = [(name, None) if isinstance(name, str) else name for name in names]
    command = [sys.executable, "-c", LOAD, json.dumps(asked)]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {answer["name"]: answer for answer in map(json.loads, done.stdout.splitlines())}


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """What two processes answered, the first with a Hub, the second with the same cache and no Hub any more."""
    root, cache = tmp_path_factory.mktemp("hub"), tmp_path_factory.mktemp("cache")
    models = root / "models"
    for number, repo in enumerate(["org/tiny", "openai-community/gpt2", "distilbert/distilgpt2", "org/only-bin"]):
        write_model(models / repo, random_tensors(number), tokenizer=True)
    write_shards(write_model(models / "org" / "shards", tokenizer=True), random_tensors(), 3)
    (models / "org" / "only-bin" / "model.safetensors").rename(models / "org" / "only-bin" / "pytorch_model.bin")
    for file in ("pytorch_model.bin", "README.md", "onnx/model.safetensors", "onnx/config.json"):
        (models / "org" / "tiny" / file).parent.mkdir(exist_ok=True)
        (models / "org" / "tiny" / file).write_text("not wanted")

    names = ["org/tiny", "gpt2", "distilgpt2", "org/shards", "org/only-bin", "org/unknown", "unknown"]
    with HubStandIn(root) as stand_in:
        environment = stand_in.environment(cache)
        first = load_in_a_process(environment, *names, ("openai-community/gpt2", "no-such-branch"))
    offline = load_in_a_process(environment, "org/tiny", "gpt2", "org/shards", "org/never-seen")
    return models, stand_in, first, offline


@pytest.mark.slow
def test_a_model_of_the_hub_is_that_of_its_files(hub):
    models, _, answers, _ = hub
    for name, repo in {"org/tiny": "org/tiny", "org/shards": "org/shards"}.items():
        assert answers[name].get("fingerprint") == load_model(str(models / repo)).fingerprint, answers[name]


@pytest.mark.slow
def test_short_names_are_ids_on_the_hub(hub):
    models, _, answers, _ = hub
    for name, repo in {"gpt2": "openai-community/gpt2", "distilgpt2": "distilbert/distilgpt2"}.items():
        assert answers[name].get("fingerprint") == load_model(str(models / repo)).fingerprint, answers[name]


@pytest.mark.slow
def test_only_the_files_that_are_read_are_downloaded(hub):
    _, stand_in, _, _ = hub
    fetched = {path.split("/")[-1] for path in stand_in.requests if path.startswith("GET /org/tiny/resolve")}
    assert fetched == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert not [path for path in stand_in.requests if "onnx" in path or ".bin" in path]


@pytest.mark.slow
def test_what_the_hub_does_not_have_is_refused(hub):
    _, _, answers, _ = hub
    for name in ("org/unknown", "unknown"):
        error = answers[name]["error"]
        assert error.startswith(f"'{name}' is no local directory and no (public) model on the Hub; expected gpt2-tiny")
    assert "has no revision 'no-such-branch'; expected a branch" in answers["openai-community/gpt2"]["error"]
    assert "no weights in" in answers["org/only-bin"]["error"]
    assert "files of type .bin are not read" in answers["org/only-bin"]["error"]
    assert not [answer for answer in answers.values() if "\n" in answer.get("error", "")]


@pytest.mark.slow
def test_without_network_the_cache_is_used(hub):
    _, _, answers, offline = hub
    for name in ("org/tiny", "gpt2", "org/shards"):
        assert offline[name].get("fingerprint") == answers[name]["fingerprint"], offline[name]


@pytest.mark.slow
def test_no_network_is_said_at_once(hub):
    _, stand_in, _, offline = hub
    answer = offline["org/never-seen"]
    assert re.fullmatch(
        "model org/never-seen is neither a local directory nor in the cache, and the Hub at "
        rf"{stand_in.endpoint} cannot be reached \(ConnectError: [^\n]*\); connect to the network, "
        "or use gpt2-tiny or a local directory",
        answer["error"],
    )
    assert answer["seconds"] < 10


class _TroubledHub(BaseHTTPRequestHandler):
    """A Hub that answers by the name asked for: gated, broken, or not at all."""

    def do_GET(self) -> None:
        if "silent" in self.path:
            time.sleep(30)
        self.send_response(403 if "gated" in self.path else 500)
        self.send_header("X-Error-Code", "GatedRepo" if "gated" in self.path else "")
        self.send_header("X-Error-Message", "one\ttwo")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *message: object) -> None:
        pass


@pytest.mark.slow
def test_a_hub_in_trouble(tmp_path: Path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), _TroubledHub)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    environment = HubStandIn(tmp_path).environment(tmp_path / "cache") | {"HF_ENDPOINT": endpoint}
    answers = load_in_a_process(environment, "org/gated", "org/broken", "org/silent")
    server.shutdown()
    server.server_close()
    assert answers["org/gated"]["error"] == (
        f"model org/gated is gated; accept its terms at {endpoint}/org/gated and log in with `hf auth login`"
    )
    assert "the Hub refuses it (HfHubHTTPError: " in answers["org/broken"]["error"]
    assert "cannot be reached (ReadTimeout: " in answers["org/silent"]["error"]
    assert answers["org/silent"]["seconds"] < 15
    assert not [answer for answer in answers.values() if "\n" in answer["error"]]


@pytest.mark.slow
def test_offline_mode_and_a_cache_that_cannot_be_written(tmp_path: Path):
    write_model(tmp_path / "models" / "org" / "tiny", tokenizer=True)
    with HubStandIn(tmp_path) as stand_in:
        offline = stand_in.environment(tmp_path / "cache") | {"HF_HUB_OFFLINE": "1"}
        error = load_in_a_process(offline, "org/tiny")["org/tiny"]["error"]
        assert error.endswith("and HF_HUB_OFFLINE is set; unset it once to download the model")
        assert not stand_in.requests
        (tmp_path / "file").write_text("")
        full = stand_in.environment(tmp_path / "cache") | {"HF_HUB_CACHE": str(tmp_path / "file" / "hub")}
        error = load_in_a_process(full, "org/tiny")["org/tiny"]["error"]
        assert f"cannot be written to {tmp_path / 'file' / 'hub'} (NotADirectoryError" in error
        assert error.endswith("set HF_HOME to another folder")
