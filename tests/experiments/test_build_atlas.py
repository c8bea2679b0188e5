"""The main script: what a user sees when it works, and when it cannot."""

import json
import os
import shutil
import socket
import subprocess
from functools import partial
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hub_stand_in import HubStandIn
from safetensors.numpy import load_file, save_file
from scripts import Killed, refusal, refusals, run, run_process

import nejax
from nejax.models.families.gpt2 import GPT2, GPT2Config
from nejax.models.formats.tokens import train_tokenizer
from nejax.models.formats.weights import save_weights
from nejax.models.sae.architectures import JumpReLUSAE
from nejax.models.sae.files import save_sae
from nejax.pipeline.run.directory import RunDirectory

pytestmark = pytest.mark.slow

TEXTS = [
    f"Chapter {i}. The {animal} of the {place} wrote {i * 37} letters, and the {place} answered: “né 🌍”.\n" * 6
    for i, (animal, place) in enumerate(
        (animal, place) for animal in ("heron", "otter", "lynx", "wren") for place in ("river", "city", "ministry")
    )
]
SMALL = ["--seq_len=32", "--keep=16", "--examples=12", "--batch_size=4"]
build, build_process = partial(run, "build_atlas"), partial(run_process, "build_atlas")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    tokenizer = train_tokenizer(TEXTS, vocab_size=400, n_positions=64)
    config = GPT2Config(len(tokenizer), 64, d_model=32, n_layers=2, n_heads=2, d_mlp=48)
    directory = tmp_path_factory.mktemp("model")
    save_weights(GPT2(config, rngs=nnx.Rngs(0)), directory, tokenizer)
    return directory


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    for i, text in enumerate(TEXTS):
        (folder / f"{i:02}.txt").write_text(text)
    return folder


@pytest.fixture(scope="module")
def finished(model: Path, corpus: Path, tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A finished run in `run`, and what the script printed."""
    cwd = tmp_path_factory.mktemp("finished")
    result = build(f"--model={model}", f"--corpus={corpus}", "--run=run", *SMALL, cwd=cwd)
    assert result.returncode == 0, result.stderr[-3000:]
    return cwd, result


def damaged(model: Path, copy: Path, change) -> Path:
    """A copy of the model with its tensors changed."""
    shutil.copytree(model, copy)
    tensors = load_file(copy / "model.safetensors")
    change(tensors)
    save_file(tensors, copy / "model.safetensors")
    return copy


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_it_builds_an_atlas_and_says_what_it_found(finished):
    cwd, result = finished
    atlas = nejax.open_atlas(cwd / "run")
    assert (atlas.n_layers, atlas.d_mlp) == (2, 48)
    assert "96" in result.stdout and "features" in result.stdout
    assert "Traceback" not in result.stderr
    assert list((cwd / "run" / "plots").glob("*.png"))
    assert (cwd / "run" / "summary.txt").read_text().strip() in result.stdout
    manifest = json.loads((cwd / "run" / "manifest.json").read_text())
    assert manifest["settings"]["seq_len"] == 32
    assert manifest["stages"]["tokens"]["documents_read"] == len(TEXTS)


def test_a_second_time_it_reuses_everything_and_says_so(finished, model: Path, corpus: Path):
    cwd, _ = finished
    files = [path for path in (cwd / "run").rglob("*") if path.is_file() and path.name != "summary.txt"]
    files = [path for path in files if path.parent.name != "sources"]  # a file as new as its note is noted anew
    before = {path: path.stat().st_mtime_ns for path in files}
    result = build(f"--model={model}", f"--corpus={corpus}", "--run=run", *SMALL, cwd=cwd)
    assert result.returncode == 0
    assert "done already" in result.stdout
    assert before == {path: path.stat().st_mtime_ns for path in files}


def test_a_finished_run_is_not_shown_for_other_texts_or_another_model(finished, model: Path, corpus: Path):
    """Files overwritten in place with as many bytes; each is put back."""
    cwd, _ = finished
    flags = [f"--model={model}", f"--corpus={corpus}", "--run=run", *SMALL]
    for file, words in (
        (corpus / "03.txt", "'03.txt' is not"),
        (model / "model.safetensors", "model.safetensors is not"),
    ):
        content = file.read_bytes()
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        result = build(*flags, cwd=cwd)
        file.write_bytes(content)
        assert f"{words} what it was" in refusal(result) and not result.stdout


def test_names_that_are_no_text_and_what_is_left_out(model: Path, tmp_path: Path):
    """On a terminal that cannot show every character."""
    folder = tmp_path / "texts"
    folder.mkdir()
    Path(folder, os.fsdecode(b"caf\xe9.txt")).write_text(TEXTS[0])
    (folder / "rows.jsonl").write_text(
        '{"id": "caf\\ud83d", "text": "The heron wrote many letters to the ministry."}\n'
    )
    for name in ("latin-1.txt", "latin-2.txt"):
        (folder / name).write_bytes(b"caf\xe9")
    (folder / "broken").symlink_to(tmp_path / "nothing")
    flags = [f"--model={model}", "--corpus=texts", "--run=run", *SMALL]
    result = build_process(*flags, cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert result.returncode == 0, result.stderr[-3000:]
    summary = (tmp_path / "run" / "summary.txt").read_text(encoding="utf-8")
    warning = "WARNING: 60% of the corpus's documents could not be used"
    for line in (warning, "left out, undecodable: 2", "left out, broken link: 1"):
        assert line in summary and line in result.stdout
    assert warning in result.stderr and "from 2 documents" in summary
    neuron = nejax.open_atlas(tmp_path / "run").neuron(1, 3)
    names = {example.document for feature in neuron.features for example in feature.examples}
    assert names and names <= {"caf\\udce9.txt", "caf\\ud83d"}


def test_ended_and_started_again_it_gives_the_same_atlas(
    finished, model: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It ends as soon as it has published a stage; `test_kill_and_resume.py` has kills at any moment."""
    cwd, _ = finished
    flags = [f"--model={model}", f"--corpus={corpus}", "--run=run", *SMALL]
    mark = RunDirectory.mark
    for last in ("collect", "inputs", "features-00"):

        def mark_and_end(self: RunDirectory, name: str, facts: dict, last: str = last) -> None:
            mark(self, name, facts)
            if name == last:
                raise Killed

        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(RunDirectory, "mark", mark_and_end)
            build(*flags, cwd=tmp_path)
    result = build(*flags, cwd=tmp_path)
    assert result.returncode == 0
    assert "features-00" in result.stdout
    one, other = (nejax.open_atlas(folder / "run") for folder in (cwd, tmp_path))
    for table in ("neurons_table", "features_table"):
        for name, column in getattr(one, table)().items():
            np.testing.assert_array_equal(column, getattr(other, table)()[name], err_msg=name)


def test_standard_input(model: Path, tmp_path: Path):
    flags = [f"--model={model}", "--corpus=-", "--run=run", *SMALL]
    result = build(*flags, cwd=tmp_path, stdin=TEXTS[0] + TEXTS[1])
    assert result.returncode == 0, result.stderr[-2000:]
    assert nejax.open_atlas(tmp_path / "run").manifest["stages"]["tokens"]["documents_read"] == 1
    error = refusal(build(*flags, cwd=tmp_path, stdin=TEXTS[0] + TEXTS[2]))
    assert "corpus '-' has other text than when this run began: 'standard input' is not what it was" in error
    assert "done already" in build(*flags, cwd=tmp_path, stdin=TEXTS[0] + TEXTS[1]).stdout


def test_a_model_by_name_from_a_hub(model: Path, corpus: Path, tmp_path: Path):
    files = tmp_path / "hub" / "models" / "someone" / "small" / "files"
    for folder in (files, files.parent):  # whichever layout the stand-in serves
        shutil.copytree(model, folder, dirs_exist_ok=True)
    with HubStandIn(tmp_path / "hub") as hub:
        environment = hub.environment(tmp_path / "cache")
        flags = [f"--corpus={corpus}", *SMALL]
        result = build_process("--model=someone/small", "--run=run", *flags, cwd=tmp_path, **environment)
        assert result.returncode == 0, result.stderr[-2000:]
        error = refusal(build_process("--model=someone/absent", "--run=other", *flags, cwd=tmp_path, **environment))
        assert "someone/absent" in error


def test_no_network(corpus: Path, tmp_path: Path):
    environment = {"HF_ENDPOINT": f"http://127.0.0.1:{closed_port()}", "HF_HOME": str(tmp_path / "cache")}
    error = refusal(build_process("--model=gpt2", f"--corpus={corpus}", cwd=tmp_path, **environment))
    assert "gpt2" in error and "reach" in error


def test_files_that_make_no_model_or_no_text(model: Path, corpus: Path, tmp_path: Path):
    def narrow(tensors):
        name = next(name for name in tensors if name.endswith("h.1.mlp.c_fc.weight"))
        tensors[name] = np.ascontiguousarray(tensors[name][:, :-1])

    def spoil(tensors):
        name = next(name for name in tensors if name.endswith("h.0.mlp.c_proj.weight"))
        tensors[name][3, 4] = np.nan

    shutil.copytree(model, tmp_path / "cut")
    file = tmp_path / "cut" / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "garbage.txt").write_bytes(np.random.default_rng(0).bytes(50_000))
    cases = [
        (tmp_path / "cut", corpus, ["model.safetensors"]),
        (damaged(model, tmp_path / "narrow", narrow), corpus, ["h.1.mlp.c_fc.weight", "47", "48"]),
        (damaged(model, tmp_path / "spoilt", spoil), corpus, ["h.0.mlp.c_proj.weight"]),
        (model, tmp_path / "empty.txt", ["empty.txt", "text"]),
        (model, tmp_path / "garbage.txt", ["garbage.txt", "text"]),
    ]
    command_lines = [
        [f"--model={of}", f"--corpus={texts}", f"--run=run-{i}", *SMALL] for i, (of, texts, _) in enumerate(cases)
    ]
    for (_, _, words), said in zip(cases, refusals("build_atlas", command_lines, tmp_path), strict=True):
        assert said and all(word in said for word in words)


def test_a_finished_run_takes_on_importance_and_a_census(finished, model: Path, corpus: Path, tmp_path: Path):
    shutil.copytree(finished[0] / "run", tmp_path / "run")
    flags = [f"--model={model}", f"--corpus={corpus}", "--run=run", *SMALL, "--census"]
    line = refusal(build(*flags, "--importance", "--padding_token=zebra crossing", cwd=tmp_path))
    assert "--padding_token='zebra crossing': expected one of the" in line and "tokens of" in line
    result = build(*flags, "--importance", "--importance_examples=1", "--importance_by=deletion", cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    assert "importance of 20 tokens in" in result.stdout and "features explain" in result.stdout
    assert (tmp_path / "run" / "plots" / "bands.png").stat().st_size > 10_000
    central = next(f.central for f in nejax.open_atlas(tmp_path / "run").neuron(1, 3).features)
    assert len(central.importance) == len(central.tokens)


def test_numbers_out_of_range(tmp_path: Path):
    bounds = [["--importance", f"--{flag}=0"] for flag in ("importance_window", "importance_examples")]
    bounds += [["--importance", "--census_sequences=0"]]
    heights = [[f"--height={height}"] for height in ("0", "-0.1", "2.5", "nan")]
    said = refusals("build_atlas", [*bounds, *heights], tmp_path)
    for (_, flag), message in zip(bounds, said[:3], strict=True):
        assert message and f"{flag}: expected at least 1" in message
    assert all(message and "(0, 2]" in message for message in said[3:])
    assert not list(tmp_path.iterdir()), "refused before any work"


def test_a_directory_made_with_other_settings(finished, model: Path, corpus: Path):
    cwd, _ = finished
    error = refusal(build(f"--model={model}", f"--corpus={corpus}", "--run=run", *SMALL, "--height=0.5", cwd=cwd))
    assert "height" in error and "0.5" in error and "null" in error


# --- the latents of a sparse autoencoder


def test_an_atlas_of_latents(model: Path, corpus: Path, tmp_path: Path):
    sae = JumpReLUSAE(32, 40, threshold=0.5, rngs=nnx.Rngs(0))
    save_sae(tmp_path / "sae", sae, model_name=str(model), hook_name="blocks.1.mlp.hook_in")
    flags = [f"--model={model}", f"--corpus={corpus}", *SMALL, "--importance", "--census", "--sae=sae"]
    result = build(*flags, "--run=latents", cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    assert "latents of sae: 1 layer of 40 neurons" in result.stdout
    atlas = nejax.open_atlas(tmp_path / "latents")
    assert (atlas.n_layers, atlas.d_mlp) == (1, 40)
    assert np.nanmax(atlas.neuron(0, 3).features[0].central.importance) == pytest.approx(1)
    examples = [(i, e) for i in range(40) for f in atlas.neuron(0, i).features for e in f.examples]
    latent, example = next((i, e) for i, e in examples if e.peak == e.position)  # its window begins with BOS
    tokens = jnp.asarray(example.tokens)[None, : example.peak + 1]
    x = nejax.load_model(str(model)).model(tokens, reader=lambda view: view.mlp_input)[1][1, 0, -1]
    assert example.activation == pytest.approx(float(sae.encode(x)[latent]), rel=1e-5)

    save_sae(tmp_path / "wide", JumpReLUSAE(31, 40, rngs=nnx.Rngs(0)), model_name="m", hook_name="blocks.1.mlp.hook_in")
    line = refusal(build(*flags[:-1], "--sae=wide", "--run=refused", cwd=tmp_path))
    assert "wide reads 31 numbers" in line and "d_model=32" in line
