"""The script that judges SAEs, on SAEs whose figures are known beforehand."""

import json
from pathlib import Path

import jax.numpy as jnp
import pytest
from flax import nnx
from scripts import refusal, refusals, run, run_process
from tiny_run import flags_of, sources_of

from nejax.models.sae.architectures import SAE
from nejax.models.sae.files import save_sae

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> list[str]:
    return flags_of(sources_of(tmp_path_factory))[:2]


def saved(folder: Path, world: list[str], *, d_in: int = 32, hook: str = "blocks.1.mlp.hook_in") -> str:
    """Two latents a dimension, one for each sign: an SAE that loses nothing."""
    sae, eye = SAE(d_in, 2 * d_in, rngs=nnx.Rngs(0)), jnp.eye(d_in)
    sae.W_enc, sae.W_dec = nnx.Param(jnp.concatenate([eye, -eye], axis=1)), nnx.Param(jnp.concatenate([eye, -eye]))
    save_sae(folder, sae, model_name=world[0].removeprefix("--model="), hook_name=hook)
    return f"--sae={folder}"


def test_a_perfect_sae_leaves_the_model_as_good_as_it_was(world, tmp_path):
    folder = tmp_path / "run"
    flags = ["--seq_len=32", "--held_out=0", "--n_tokens=900", f"--run={folder}"]
    result = run("evaluate_sae", saved(tmp_path / "sae", world), world[1], *flags)
    assert result.returncode == 0, result.stderr[-3000:]
    card = json.loads((folder / "scorecard.json").read_text())
    losses = card["loss"]
    assert losses["spliced"] == pytest.approx(losses["clean"], rel=1e-6) and losses["zero"] != losses["clean"]
    # The random model's losses are 1e-3 apart, and float32 gives them to 1e-6.
    assert losses["recovered"] == pytest.approx(1, abs=1e-2)
    sae = card["sae"]
    assert sae["explained"] == pytest.approx(1, abs=1e-6) and sae["dead"] == 0
    assert sae["l0"] == pytest.approx(32, abs=0.1) and 900 <= sae["n_inputs"] < 932
    assert [row["level"] for row in card["levels"]] == [0, 0.25, 0.5, 0.75]
    first = card["levels"][0]["latents"]
    # A latent that reads one dimension has embeddings in one direction.
    assert first["mean_distance"] == pytest.approx(0, abs=1e-6) and first["units"] == 64
    assert 0.1 < card["levels"][0]["neurons"]["mean_distance"] < 1.2 and card["levels"][0]["neurons"]["units"] == 48
    assert (folder / "scorecard.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "scorecard.md").read_text().strip() in result.stdout


REFUSED = {
    "reads 16 numbers": ({"d_in": 16}, []),
    "a hook outside attention": ({"hook": "blocks.0.attn.hook_z"}, []),
    "there is no layer 7; the model has 2 layers": ({"hook": "blocks.7.hook_resid_pre"}, []),
    "'blocks.0.nonsense' is no place in a model": ({}, ["--hook=blocks.0.nonsense"]),
    "there is no folder": ({}, ["--sae=./nowhere"]),
}


def test_what_makes_no_sense_is_refused(world, tmp_path):
    common = [world[1], "--seq_len=32", f"--run={tmp_path / 'run'}"]
    given = [
        [saved(tmp_path / str(i), world, **build), *common, *flags] for i, (build, flags) in enumerate(REFUSED.values())
    ]
    for words, said in zip(REFUSED, refusals("evaluate_sae", given), strict=True):
        assert said and words in said
    assert not (tmp_path / "run").exists()


def test_without_an_sae_it_says_so_in_one_line():
    assert refusal(run_process("evaluate_sae")).startswith("--sae is needed")
