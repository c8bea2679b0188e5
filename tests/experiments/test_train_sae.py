"""The script that trains SAEs: it learns, resumes exactly, refuses, and leaves what loads."""

import json
import subprocess
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
import pytest
from scripts import Killed, refusal, refusals, run, run_process
from tiny_run import flags_of, sources_of

from nejax.models.sae.files import load_sae
from nejax.models.sae.hook_points import Site

pytestmark = pytest.mark.slow

SMALL = ["--seq_len=32", "--d_sae=96", "--k=4", "--batch_size=64", "--buffer=600", "--silent_after=2000", "--warmup=5"]
STEPS = ["--steps=300", "--checkpoint_every=20", "--neuron_embedding=0.1", "--layer=1", "--held_out=0"]


def train(world: list[str], *flags: str) -> subprocess.CompletedProcess[str]:
    return run("train_sae", *world, *SMALL, *STEPS, *flags)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> list[str]:
    """The flags of a tiny model and a little text."""
    return flags_of(sources_of(tmp_path_factory))[:2]


@pytest.fixture(scope="module")
def trained(world, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    result = train(world, f"--run={folder}")
    assert result.returncode == 0, result.stderr[-3000:]
    assert "of the variance explained" in result.stdout
    return folder


def test_it_learns_and_reports(trained: Path):
    result = json.loads((trained / "result.json").read_text())
    metrics = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [m["step"] for m in metrics] == list(range(300))
    assert metrics[-1]["reconstruction"] < metrics[0]["reconstruction"] / 2
    assert all(0 <= m["neuron_embedding"] <= 2 and m["l0"] <= 4 for m in metrics)
    assert 0.5 < result["held_out"]["explained"] < 1 and 2 < result["held_out"]["l0"] <= 4
    assert result["inputs_seen"] == 300 * 64 and result["settings"]["k"] == 4
    assert (trained / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_the_saved_sae_says_what_it_reads(trained: Path, world):
    loaded = load_sae(trained / "sae")
    assert loaded.sae.architecture == "topk" and loaded.sae.W_enc.shape == (32, 96)
    assert loaded.site == Site(1, "mlp_input") and loaded.input_weights == "native" and not loaded.scale_by_mean_norm
    assert f"--model={loaded.model_name}" == world[0] and loaded.context_size == 32


def test_ended_and_resumed_it_ends_with_the_very_same_weights(trained: Path, world, tmp_path: Path, monkeypatch):
    """After the third checkpoint; `test_train_lm.py` has a kill in earnest."""
    folder = tmp_path / "run"
    save = ocp.CheckpointManager.save

    def save_and_end(self: ocp.CheckpointManager, step: int, **options) -> None:
        save(self, step, **options)
        if step == 60:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(ocp.CheckpointManager, "save", save_and_end)
        train(world, f"--run={folder}")
    assert list(folder.glob("checkpoints/60")) and not (folder / "result.json").exists()
    result = train(world, f"--run={folder}")
    assert result.returncode == 0, result.stderr[-3000:]
    for name in ("sae/sae_weights.safetensors", "metrics.jsonl"):
        assert (folder / name).read_bytes() == (trained / name).read_bytes(), name


@pytest.mark.parametrize("architecture", ["jumprelu", "gated"])
def test_other_architectures(architecture: str, world, tmp_path: Path):
    site = "blocks.0.ln2.hook_normalized"
    few = ["--steps=20", "--neuron_embedding=0", f"--site={site}", "--layer=0", f"--run={tmp_path / 'run'}"]
    result = train(world, f"--architecture={architecture}", *few)
    assert result.returncode == 0, result.stderr[-3000:]
    metrics = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(m["sparsity"]) for m in metrics)
    loaded = load_sae(tmp_path / "run" / "sae")
    assert loaded.sae.architecture == architecture
    assert loaded.hook_name == site and loaded.input_weights == "folded"


REFUSED = {
    "k is 4 there and 5 now": ["--k=5"],
    "there is no layer 2; the model has 2 layers": ["--layer=2"],
    "is inside attention": ["--site=blocks.0.attn.hook_z"],
    "--k=97: there are --d_sae=96 latents": ["--k=97"],
    "--sparsity=1: topk has no such loss": ["--sparsity=1"],
    "--input_weights=native": ["--site=blocks.1.ln2.hook_normalized", "--input_weights=native"],
    "--seq_len=65: expected at most": ["--seq_len=65"],
}


def test_what_makes_no_sense_is_refused(trained: Path, world, tmp_path: Path):
    runs = [f"--run={trained if 'there and' in words else tmp_path / 'run'}" for words in REFUSED]
    given = [[*world, *SMALL, *STEPS, run, *flags] for run, flags in zip(runs, REFUSED.values(), strict=True)]
    for words, said in zip(REFUSED, refusals("train_sae", given), strict=True):
        assert said and words in said


def test_a_refusal_is_one_line_without_a_traceback(world, tmp_path: Path):
    assert "nonsense" in refusal(
        run_process("train_sae", *world, f"--run={tmp_path / 'run'}", "--architecture=nonsense")
    )
