"""Runs whose model or texts changed in place: refused by whatever is asked of them, finished or not."""

import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import world
from flax import nnx
from safetensors.numpy import load_file, save_file
from stage_stores import store_of
from tiny_gpt2 import D_MODEL
from world import a_run, text

from nejax.atlas.build import atlas_of
from nejax.errors import UserError
from nejax.models.formats.hub import NotOnHub
from nejax.models.sae.architectures import JumpReLUSAE
from nejax.models.sae.files import save_sae
from nejax.pipeline.run.directory import DamagedStore, RunDirectory
from nejax.pipeline.run.settings import Settings
from nejax.pipeline.stages.collect import COLLECT
from nejax.pipeline.stages.order import STAGES
from nejax.pipeline.stages.run import Run
from nejax.pipeline.stages.tokens import TOKENS


@pytest.fixture(scope="module")
def mine(sources, tmp_path_factory) -> Path:
    """A model, an SAE on it and a text."""
    folder = tmp_path_factory.mktemp("sources")
    shutil.copytree(sources / "model", folder / "model")
    sae = JumpReLUSAE(D_MODEL, 8, threshold=0.1, rngs=nnx.Rngs(0))
    save_sae(folder / "sae", sae, model_name="tiny", hook_name="blocks.1.mlp.hook_in")
    (folder / "texts.txt").write_text(text(0, 300))
    return folder


def settings_of(folder: Path, **changed) -> Settings:
    return world.settings_of(folder, **{"corpus": str(folder / "texts.txt"), "similar": 0} | changed)


@pytest.fixture(scope="module")
def finished(mine, tmp_path_factory) -> Path:
    """A run with its atlas."""
    path = tmp_path_factory.mktemp("runs") / "finished"
    atlas_of(a_run(path, settings_of(mine)))
    return path


@pytest.fixture
def place(mine, finished, tmp_path, monkeypatch) -> Path:
    """A copy of the sources and of the run, both under the names that the run knows."""
    monkeypatch.chdir(shutil.copytree(mine, tmp_path / "place"))
    shutil.copytree(finished, tmp_path / "place" / "run")
    run = RunDirectory("run", settings_of(mine).by_name())
    run.manifest["settings"] = settings_of(Path()).by_name()
    run._write_manifest()
    return tmp_path / "place"


def not_there(name: str, *_, **__) -> Path:
    raise NotOnHub(f"{name} is nowhere")


def ask(**settings) -> Run:
    return a_run("run", settings_of(Path(), **settings))


def refused(work, *words: str) -> None:
    with pytest.raises(UserError) as error:
        work()
    assert "\n" not in str(error.value) and all(word in str(error.value) for word in words), str(error.value)


def change_a_weight(file: Path) -> None:
    """In place: neither the size nor, if set back, the time of the file differs."""
    tensors = load_file(file)
    name = next(name for name in tensors if "c_fc.weight" in name or "W_enc" in name)
    tensors[name] = np.ascontiguousarray(tensors[name][::-1])
    save_file(tensors, file)


def test_a_finished_run_is_shown_while_its_sources_are_the_same(place, capsys):
    assert atlas_of(ask()) == place / "run" / "atlas"
    assert not capsys.readouterr().err


def test_checking_takes_little_time(place, old_clock, monkeypatch):
    """And reads no file twice, once its times tell."""
    ask().refuse_other_sources()
    monkeypatch.setattr("nejax.models.formats.files._digest", lambda path: pytest.fail(f"{path} is read"))
    monkeypatch.setattr("nejax.pipeline.corpus.documents.read_file", lambda *_: pytest.fail("the corpus is read"))
    run, started = ask(), time.monotonic()
    run.refuse_other_sources()
    assert time.monotonic() - started < 0.5


@pytest.mark.parametrize("stage", [atlas_of, *(stage.of for stage in STAGES)])
def test_every_stage_refuses_weights_that_were_changed_in_place(stage, place):
    change_a_weight(place / "model" / "model.safetensors")
    refused(lambda: stage(ask()), "was made with another model", "model.safetensors is not what it was")


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_other_files_of_a_model_count_too(file, place):
    text = (place / "model" / file).read_text()
    (place / "model" / file).write_text(f" {text}")
    refused(lambda: atlas_of(ask()), f"{file} is not what it was")
    (place / "model" / file).write_text(text)
    (place / "model" / "added_tokens.json").write_text("{}")
    refused(lambda: atlas_of(ask()), "added_tokens.json is new")


def test_a_model_that_was_only_copied_is_the_same(place):
    shutil.copytree("model", "copy")
    shutil.rmtree("model")
    Path("copy").rename("model")
    atlas_of(ask())


def test_a_model_that_is_gone_is_refused(place, monkeypatch):
    shutil.rmtree("model")
    monkeypatch.setattr("nejax.models.loading.download", not_there)  # as any name without a slash might be there
    refused(lambda: atlas_of(ask()), "is nowhere")


def test_a_model_of_the_hub_that_cannot_be_reached_is_said_not_to_be_compared(place, monkeypatch, capsys):
    run = ask()
    kept = run.directory.sources.kept("model")
    run.directory.sources.keep("model", kept | {"is_local": False})
    shutil.rmtree("model")
    monkeypatch.setattr("nejax.models.loading.download", not_there)
    atlas_of(run)
    assert "note: not compared with what the run was made from: model is nowhere" in capsys.readouterr().err


def test_texts_that_were_overwritten_are_refused(place):
    text = Path("texts.txt").read_text()
    Path("texts.txt").write_text(text[::-1])
    for work in (atlas_of, TOKENS.of, COLLECT.of):
        refused(lambda: work(ask()), "corpus 'texts.txt' has other text", "'texts.txt' is not what it was")  # noqa: B023
    Path("texts.txt").write_text(text)
    atlas_of(ask())


def test_a_finished_run_refuses_before_it_takes_on_another_stage(place):
    Path("texts.txt").write_text("other text " * 50)
    refused(lambda: atlas_of(ask(census=True)), "'texts.txt' is not what it was")


def test_an_unfinished_run_does_not_go_on_with_another_model(place):
    shutil.rmtree("run")
    TOKENS.of(ask())
    change_a_weight(place / "model" / "model.safetensors")
    refused(lambda: store_of(ask(), COLLECT), "model.safetensors is not what it was")


def test_an_sae_that_was_changed_in_place_is_refused(place):
    shutil.rmtree("run")
    TOKENS.of(ask(sae="sae"))
    TOKENS.of(ask(sae="sae"))
    change_a_weight(place / "sae" / "sae_weights.safetensors")
    refused(lambda: TOKENS.of(ask(sae="sae")), "sae/sae_weights.safetensors is not what it was")


def test_a_directory_in_which_nothing_is_done_takes_any_sources(place):
    shutil.rmtree("run")
    first = ask()
    assert first.loaded.fingerprint
    change_a_weight(place / "model" / "model.safetensors")
    del first
    TOKENS.of(ask())
    TOKENS.of(ask())


@pytest.mark.parametrize("flag", ["model", "corpus", "sae", "text_field", "split", "padding_token"])
def test_settings_that_are_not_utf8_are_refused(flag, tmp_path):
    settings = settings_of(tmp_path)
    refused(lambda: settings.but(**{flag: "caf\udce9"}), f"{flag}='caf\\udce9': expected a name in UTF-8")


def test_what_was_collected_of_sequences_that_are_gone_is_not_gone_on_with(place):
    """Their store is damaged before the collection ends, and then other texts are cut."""
    shutil.rmtree("run")
    TOKENS.of(ask())
    checkpoint = place / "run" / "collect.partial" / "000000000001"
    checkpoint.mkdir(parents=True)
    TOKENS.of(ask())
    assert checkpoint.exists()
    for file in filter(Path.is_file, (place / "run" / "tokens-0000").rglob("*")):
        file.write_bytes(b"")
    with pytest.raises(DamagedStore):
        COLLECT.of(a_run("run", settings_of(Path()), is_finished=True))
    Path("texts.txt").write_text(text(1, 300))
    TOKENS.of(ask())
    assert not checkpoint.exists()
