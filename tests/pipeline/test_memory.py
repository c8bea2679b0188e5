"""The peak memory of a process that reads ten times the corpus."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from flax import nnx

from nejax.models.families.gpt2 import GPT2, GPT2Config
from nejax.models.formats.tokens import train_tokenizer
from nejax.models.formats.weights import save_weights

ROOT = Path(__file__).parent.parent.parent
SEQ_LEN, SHARD, N_SEQUENCES = 128, 512, 3000

SCRIPT = f"""
import functools, json, random, resource, sys
from nejax.pipeline.run.settings import Settings
from nejax.pipeline.stages.collect import COLLECT
from nejax.pipeline.stages import run as stages
from nejax.pipeline.corpus.windows import cut_documents
from nejax.pipeline.corpus.documents import Corpus

def read(skipped):
    for number in range(10**9):
        letters = random.Random(number)
        yield f"document {{number}}", " ".join(f"{{letters.randrange(10**9)}}" for _ in range(100))

stages.open_corpus = lambda *_, **__: Corpus("made up", read)
stages.cut_documents = functools.partial(cut_documents, shard_size={SHARD})
model, directory, n = sys.argv[1:]
settings = Settings.of(model=model, max_sequences=int(n), seq_len={SEQ_LEN}, keep=8, examples=8)
run = stages.Run(directory, settings, batch_size=8, quiet=True)
COLLECT.finish(run)
facts = run.directory.manifest["stages"]["tokens"]
print(json.dumps({{**facts, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}}))
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    tokenizer = train_tokenizer(["0 1 2 3 4 5 6 7 8 9"], vocab_size=260, n_positions=SEQ_LEN)
    config = GPT2Config(len(tokenizer), SEQ_LEN, d_model=8, n_layers=1, n_heads=1, d_mlp=8)
    folder = tmp_path_factory.mktemp("model")
    save_weights(GPT2(config, rngs=nnx.Rngs(0)), folder, tokenizer)
    return folder


@pytest.mark.slow
def test_ten_times_the_sequences_take_no_more_memory(model: Path, tmp_path: Path):
    """Tokens and collect together, with checkpoints of the one beside shards of the other."""
    facts = []
    for n in (N_SEQUENCES, 10 * N_SEQUENCES):
        result = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(model), str(tmp_path / f"run-{n}"), str(n)],
            capture_output=True,
            text=True,
            timeout=600,
            env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "JAX_ENABLE_COMPILATION_CACHE": "false"},
        )
        assert result.returncode == 0, result.stderr[-2000:]
        facts.append(json.loads(result.stdout))
        assert facts[-1]["sequences"] == n and facts[-1]["shards"] == -(-n // SHARD)
    assert facts[1]["peak"] < 1.05 * facts[0]["peak"]
