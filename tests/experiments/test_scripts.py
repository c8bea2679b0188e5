"""What every script does before its work: help, and command lines that are refused."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from scripts import refusals

from nejax.errors import UserError
from nejax.models.choices import Architecture
from nejax.models.sae.architectures import ARCHITECTURES
from nejax.pipeline.corpus.documents import refuse_no_corpus
from nejax.pipeline.run.settings import Settings, settings_by_name
from nejax.pipeline.stages.collect import COLLECT
from nejax.pipeline.stages.inputs import INPUTS
from nejax.pipeline.stages.run import Run
from nejax.pipeline.stages.tokens import TOKENS

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
SCRIPTS = sorted(file.stem for file in EXPERIMENTS.glob("*.py") if "run_script(main" in file.read_text())
HEAVY = {"jax", "numpy", "flax", "optax", "orbax", "transformers", "matplotlib", "pyarrow", "starlette"}
IMPORT = re.compile(r"import time:.*\| +([\w.]+)")


def start(script: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A script that ends before anything heavy is imported: what it imports is taken out of its standard error."""
    command = [sys.executable, "-X", "importtime", str(EXPERIMENTS / f"{script}.py"), *arguments]
    environment = os.environ | {"PYTHONPATH": str(EXPERIMENTS.parent)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=60, check=False)
    lines = done.stderr.splitlines()
    imported = {found[1].split(".")[0] for line in lines if (found := IMPORT.match(line))}
    assert "absl" in imported and not imported & HEAVY
    done.stderr = "".join(f"{line}\n" for line in lines if not line.startswith("import time:"))
    return done


def test_all_scripts_are_found():
    assert {"benchmark", "build_atlas", "explore", "train_sae"} <= set(SCRIPTS)
    assert len(SCRIPTS) == len(list(EXPERIMENTS.glob("*.py"))), "what a script needs beside it is in a folder"


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_comes_at_once(script: str, tmp_path: Path):
    before = os.times().children_user
    done = start(script, "--help", "--what=1", cwd=tmp_path)
    assert os.times().children_user - before < 0.5
    assert done.returncode == 0 and done.stderr == "" and not list(tmp_path.iterdir())
    source = (EXPERIMENTS / f"{script}.py").read_text()
    assert done.stdout.startswith(source.removeprefix('"""').partition("\n")[0])
    for name in re.findall(r'flags\.DEFINE_\w+\(\s*"(\w+)"', source):
        assert re.search(rf"^  --(\[no\])?{name}\b", done.stdout, re.MULTILINE), name


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_flag_that_is_not_there(script: str, tmp_path: Path):
    done = start(script, "--what=1", cwd=tmp_path)
    assert done.returncode == 2 and not list(tmp_path.iterdir())
    assert re.fullmatch(r"error: Unknown command line flag 'what'.*; --help lists the flags\n", done.stderr)


@pytest.mark.parametrize("script", [script for script in SCRIPTS if script != "kill_and_resume"])
def test_arguments_too_many(script: str, tmp_path: Path):
    """`--` is forgotten more easily than seen: `model=gpt2` would build the demo."""
    done = start(script, "model=gpt2", "one", "two", cwd=tmp_path)
    assert done.returncode == 2 and not list(tmp_path.iterdir())
    line = rf"error: {script}\.py model=gpt2 one two: expected [\w|]+.*; --help lists the flags\n"
    assert re.fullmatch(line, done.stderr)


def test_an_argument_that_is_missing(tmp_path: Path):
    done = start("clearest_neurons", cwd=tmp_path)
    assert done.stderr == "error: clearest_neurons.py: expected RUN; --help lists the flags\n"
    done = start("compare_runs", "runs/a", cwd=tmp_path)
    assert done.stderr == "error: compare_runs.py runs/a: expected RUN_A RUN_B; --help lists the flags\n"


def test_the_help_of_build_atlas_is_by_subject(tmp_path: Path):
    help_ = start("build_atlas", "--help", cwd=tmp_path).stdout
    heads = re.findall(r"^(\S[^\n]*):$", help_, re.MULTILINE)
    assert heads[:3] == ["The run", "The model, whose neurons are split", "The corpus"] and "Flags" not in heads
    parts = re.split(r"^\S[^\n]*:$", help_, flags=re.MULTILINE)[1:]
    names = [re.findall(r"^  --(?:\[no\])?(\w+)", part, re.MULTILINE) for part in parts]
    assert all(2 <= len(of_part) <= 7 for of_part in names)
    flat = [name for of_part in names for name in of_part]
    source = (EXPERIMENTS / "atlas" / "flags.py").read_text()
    assert sorted(flat) == sorted([*re.findall(r'DEFINE_\w+\(\s*"(\w+)"', source), *settings_by_name()])
    assert "  --keep (128)\n      Best examples kept of each neuron" in help_
    assert "  --[no]census (false)\n" in help_ and "  --height\n" in help_


def test_the_architectures_offered_are_those_there_are():
    assert get_args(Architecture) == tuple(ARCHITECTURES)


@pytest.mark.parametrize("stage", [TOKENS, COLLECT, INPUTS], ids=lambda stage: stage.name)
def test_a_corpus_that_is_not_there_is_refused_before_a_model_is_loaded(stage: Any, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("nejax.pipeline.stages.run.load_model", lambda *_, **__: pytest.fail("it was loaded"))
    with pytest.raises(UserError, match="corpus '/nope': no such file or folder"):
        stage.of(Run(tmp_path / "run", Settings.of(corpus="/nope")))


def test_of_several_corpora_all_must_be_there(tmp_path: Path):
    (tmp_path / "a.txt").write_text("text")
    refuse_no_corpus(["python-docs", str(tmp_path / "a.txt"), str(tmp_path), "some/dataset"])
    with pytest.raises(UserError, match=r"corpus '\./b\.txt': no such file or folder"):
        refuse_no_corpus([str(tmp_path / "a.txt"), "./b.txt"])


@pytest.mark.parametrize(("script", "flags"), [("train_sae", []), ("evaluate_sae", ["--sae=some/where"])])
def test_training_and_judging_ask_for_the_corpus_first(script: str, flags: list[str], tmp_path: Path):
    command = ["--model=/no/model", *flags, "--corpus=python-docs,/nope", f"--run={tmp_path / 'run'}"]
    assert refusals(script, [command]) == ["corpus '/nope': no such file or folder"]
