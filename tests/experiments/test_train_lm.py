"""The training script: it trains, resumes exactly after a kill in earnest, and leaves what transformers loads."""

import json
import signal
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from scripts import refusal, refusals, run, start

from nejax.models.loading import load_model

pytestmark = pytest.mark.slow

SMALL = ["--n_layers=1", "--d_model=16", "--n_heads=2", "--vocab_size=300", "--seq_len=16", "--batch_size=4"]
STEPS = ["--steps=400", "--warmup=5", "--learning_rate=0.02", "--evaluate_every=50", "--checkpoint_every=20"]


def flags_of(corpus: Path, *flags: str) -> list[str]:
    return [f"--corpus={corpus}", *SMALL, *STEPS, "--held_out=0.25", *flags]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    for i in range(40):
        (folder / f"{i}.txt").write_text(
            f"The {i}th heron counts to {i}, then rests by the river and counts again.\n" * 8
        )
    return folder


@pytest.fixture(scope="module")
def trained(corpus: Path, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    result = run("train_lm", *flags_of(corpus, f"--run={folder}"))
    assert result.returncode == 0, result.stderr[-3000:]
    assert "held-out bits per byte" in result.stdout
    return folder


def test_it_learns_and_reports(trained: Path):
    result = json.loads((trained / "result.json").read_text())
    metrics = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [m["step"] for m in metrics] == list(range(400))
    looks = [m["bits_per_byte"] for m in metrics if "bits_per_byte" in m]
    assert len(looks) == 8
    assert abs(metrics[0]["loss"] - np.log(300)) < 0.1  # it begins knowing nothing of 300 tokens
    assert result["held_out_bits_per_byte"] < 1.0  # the text repeats itself
    assert (trained / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_killed_and_resumed_it_ends_with_the_very_same_weights(trained: Path, corpus: Path, tmp_path: Path):
    folder = tmp_path / "run"
    flags = flags_of(corpus, f"--run={folder}")
    with start("train_lm", *flags) as process:
        deadline = time.monotonic() + 200
        while not list(folder.glob("checkpoints/[0-9]*0")) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        assert process.poll() is None, "it ended before it could be killed"
        process.send_signal(signal.SIGKILL)
    assert not (folder / "result.json").exists()
    result = run("train_lm", *flags)
    assert result.returncode == 0, result.stderr[-3000:]
    name = "model/model.safetensors"
    assert (folder / name).read_bytes() == (trained / name).read_bytes()
    assert (folder / "metrics.jsonl").read_text() == (trained / "metrics.jsonl").read_text()


def test_transformers_loads_the_result(trained: Path):
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(trained / "model", dtype=torch.float32)
    ours = load_model(str(trained / "model"))
    tokens = jnp.asarray([ours.tokenizer("The 7th heron")["input_ids"]])
    with torch.no_grad():
        expected = theirs(torch.tensor(tokens.tolist())).logits.numpy()
    np.testing.assert_allclose(ours.model(tokens)[0], expected, rtol=1e-5, atol=1e-4)


def test_other_settings_in_the_same_run_are_refused(trained: Path, corpus: Path):
    result = run("train_lm", *flags_of(corpus, f"--run={trained}", "--steps=500"))
    assert "steps is 400 there and 500 now" in refusal(result)


def test_flags_that_make_no_sense(tmp_path: Path):
    flags = {"--n_heads=3": "divide", "--steps=none": "steps", "--what=1": "what"}
    command_lines = [[f"--run={tmp_path / 'run'}", flag] for flag in flags]
    for word, said in zip(flags.values(), refusals("train_lm", command_lines), strict=True):
        assert said and word in said
