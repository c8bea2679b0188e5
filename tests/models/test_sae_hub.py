"""SAEs of the Hub, by a loopback stand-in in real subprocesses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hub_stand_in import HubStandIn
from sae_folders import random_tensors, write_sae, write_sparsify

from nejax.models.sae.files import load_sae

LOAD = """if True:
    import json, sys
    from nejax.errors import UserError
    from nejax.models.sae.files import load_sae
    for name in json.loads(sys.argv[1]):
        try:
            loaded = load_sae(name)
            answer = {"fingerprint": loaded.fingerprint, "centred": loaded.centred, "model": loaded.model_name}
        except UserError as error:
            answer = {"error": str(error)}
        print(json.dumps(answer | {"name": name}))
"""


def load_in_a_process(environment: dict[str, str], *names: str) -> dict[str, dict]:
    command = [sys.executable, "-c", LOAD, json.dumps(names)]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {answer["name"]: answer for answer in map(json.loads, done.stdout.splitlines())}


@pytest.mark.slow
def test_the_hub(tmp_path: Path):
    models, jbloom = tmp_path / "models", "jbloom/GPT2-Small-SAEs-Reformatted"
    for layer in range(3):
        folder = write_sae(models / jbloom / f"blocks.{layer}.hook_resid_pre", tensors=random_tensors(layer))
        (folder / "sparsity.safetensors").write_text("not wanted")
    write_sparsify(models / "org" / "sparse" / "run" / "h.1.mlp")
    (models / "org" / "sparse" / "run" / "config.json").write_text('{"model": "gpt2"}')
    write_sae(models / "org" / "at-the-top")
    wanted = f"{jbloom}/blocks.1.hook_resid_pre"
    names = [wanted, "org/sparse/run/h.1.mlp", "org/at-the-top", f"{jbloom}/blocks.9.hook_resid_pre", "org/none/sae"]
    with HubStandIn(tmp_path) as hub:
        environment = hub.environment(tmp_path / "cache")
        first = load_in_a_process(environment, *names)
    for name in names[:3]:
        assert first[name].get("fingerprint") == load_sae(models / name).fingerprint, first[name]
    assert first[wanted]["centred"] and not first["org/at-the-top"]["centred"]
    assert first["org/sparse/run/h.1.mlp"]["model"] == "gpt2"
    fetched = {
        path.partition("/main/")[2] or path for path in hub.requests if path.startswith(f"GET /{jbloom}/resolve")
    }
    assert {path.split("/", 5)[-1] for path in fetched} == {
        f"blocks.1.hook_resid_pre/{file}" for file in ("cfg.json", "sae_weights.safetensors")
    }
    assert first[names[3]]["error"].startswith(
        f"there is no blocks.9.hook_resid_pre/cfg.json in the repository {jbloom} on the Hub; expected a local folder"
    )
    assert first[names[4]]["error"].startswith("'org/none' is no local directory and no (public) model on the Hub;")

    offline = load_in_a_process(environment, *names[:3], f"{jbloom}/blocks.2.hook_resid_pre")
    for name in names[:3]:
        assert offline[name].get("fingerprint") == first[name]["fingerprint"], offline[name]
    error = offline[f"{jbloom}/blocks.2.hook_resid_pre"]["error"]
    assert error.startswith(
        f"SAE {jbloom} is neither a local directory nor in the cache, and the Hub at {hub.endpoint}"
    )
    assert error.endswith("connect to the network, or use a local folder")
