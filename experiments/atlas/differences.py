"""Where two runs of one command differ: files of their atlases, byte by byte, and digests of their stages."""

import json
from pathlib import Path


def stages(directory: Path) -> dict[str, str | None]:
    """What the manifest of a run calls done, and the digest of each stage's store, where it has one."""
    manifest = directory / "manifest.json"
    if not manifest.exists():
        return {}
    return {name: facts.get("digest") for name, facts in json.loads(manifest.read_text())["stages"].items()}


def differences(expected: Path, found: Path) -> list[str]:
    """A line for each file of the atlas, and each stage of the manifest, that is not the same in both runs."""
    lines = []
    digests, others = stages(expected), stages(found)
    for name in sorted(digests | others):
        if name not in digests or name not in others:
            lines.append(f"stage {name}: done only in the {'resumed' if name in others else 'uninterrupted'} run")
        elif digests[name] != others[name]:
            lines.append(f"stage {name}: digest {others[name]}, expected {digests[name]}")
    files = {
        str(file.relative_to(run)) for run in (expected, found) for file in (run / "atlas").rglob("*") if file.is_file()
    }
    for name in sorted(files):
        if not (expected / name).is_file() or not (found / name).is_file():
            lines.append(f"{name}: only in the {'resumed' if (found / name).is_file() else 'uninterrupted'} run")
            continue
        one, other = (expected / name).read_bytes(), (found / name).read_bytes()
        if one != other:
            pairs = enumerate(zip(one, other, strict=False))
            same = next((i for i, (x, y) in pairs if x != y), min(len(one), len(other)))
            lines.append(f"{name}: {len(other)} bytes, expected {len(one)}; the first that differs is byte {same}")
    return lines
