"""Kill a run again and again, at random moments; resumed, does it end with the very same atlas?

Builds a small atlas once without interruption. Then, `--kills` times: starts the same command in a fresh directory,
ends it with SIGKILL at a random moment of the time that the first one took, runs it again to its end, and compares
every byte of its atlas, and the digests of all stages' stores, with the first one's.

    python experiments/kill_and_resume.py                                       # 30 kills, half an hour on two cores
    python experiments/kill_and_resume.py --kills=5 --seed=1 -- --model=gpt2 --max_sequences=64

What comes after `--` are flags of build_atlas.py in place of the small run's. Produces `kill_and_resume.json` in
`--run`: the moments, the stages that were done then, the verdicts. The exit status is 1 if anything differs; what
differs is kept beside it. Expected: no difference, ever.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from absl import flags

from nejax.scripts import read_flags, run_script

FLAGS = flags.FLAGS
flags.DEFINE_integer("kills", 30, "How often a run is killed.", lower_bound=1)
flags.DEFINE_integer("seed", 0, "Of the moments.")
flags.DEFINE_string("run", "runs/kill_and_resume", "Where all is written; runs that end identical are removed.")

if __name__ == "__main__":
    read_flags("...")

from atlas.differences import differences, stages
from nejax.errors import UserError
from nejax.pipeline.run.folders import make_folder
from nejax.pipeline.run.progress import progress_bar

BUILD = Path(__file__).with_name("build_atlas.py")
SMALL = ["--max_sequences=256", "--seq_len=64", "--batch_size=2", "--keep=16", "--examples=12", "--similar=5"]
SMALL += ["--checkpoint_seconds=0.3"]
"""A run of half a minute, in which the collection saves itself several times."""


class Kill(NamedTuple):
    """One run that was killed and resumed."""

    second: float
    """After its start."""
    done: list[str]
    """Stages that the manifest called done then."""
    differences: list[str]
    """From the uninterrupted run; nothing if they are identical."""


def run_for(build_flags: list[str], directory: Path, seconds: float | None = None) -> int | None:
    """Run build_atlas.py, and kill it after so many seconds, with all processes that it has started.

    Returns:
        Its exit status; None if it was killed. What it prints goes to `DIRECTORY.log`.
    """
    with directory.with_suffix(".log").open("ab") as log:
        command = [sys.executable, str(BUILD), *build_flags, f"--run={directory}"]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:  # also after Ctrl-C, which does not reach a session of its own
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def kill_once(build_flags: list[str], expected: Path, directory: Path, moment: float) -> Kill | None:
    """Kill a fresh run at a moment, resume it, and compare; None if it had come to its end before."""
    remove(directory)
    status = run_for(build_flags, directory, moment)
    if status is not None:
        refuse_failure(status, directory)
        return None
    done = list(stages(directory))
    status = run_for(build_flags, directory)
    found = [f"resumed, it failed with exit status {status}: {last_line(directory)}"] if status else []
    return Kill(round(moment, 2), done, found + differences(expected, directory))


def refuse_failure(status: int, directory: Path) -> None:
    """A command that fails by itself says nothing about kills."""
    if status:
        raise UserError(
            f"build_atlas.py fails by itself, with exit status {status}: {last_line(directory)}; mend its flags"
        )


def last_line(directory: Path) -> str:
    """Of what a run has printed."""
    return directory.with_suffix(".log").read_text(errors="replace").rstrip().rpartition("\n")[2]


def remove(directory: Path) -> None:
    """A run directory, and what it printed."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.with_suffix(".log").unlink(missing_ok=True)


def keep(directory: Path, under: Path) -> None:
    """A run directory, and what it printed, under another name."""
    remove(under)
    directory.with_suffix(".log").rename(under.with_suffix(".log"))
    if directory.exists():
        directory.rename(under)


def main(argv: list[str]) -> None:
    """Build once, then kill, resume and compare."""
    build_flags = argv[1:] or SMALL
    if any(flag.lstrip("-").split("=")[0] == "run" for flag in build_flags):
        raise UserError("--run after -- would be one directory for all runs: leave it out there, and give it before --")
    folder = make_folder(Path(FLAGS.run))
    expected, directory = folder / "uninterrupted", folder / "killed"
    remove(expected)
    started = time.monotonic()
    refuse_failure(run_for(build_flags, expected) or 0, expected)
    duration = time.monotonic() - started
    print(f"Uninterrupted: {duration:.1f} s, {' '.join(stages(expected))}", flush=True)

    kills: list[Kill] = []
    after_the_end, moments = 0, random.Random(FLAGS.seed)
    with progress_bar(total=FLAGS.kills, desc="kills", unit=" kills") as bar:
        while len(kills) < FLAGS.kills:
            kill = kill_once(build_flags, expected, directory, moments.uniform(0, duration))
            if kill is None:
                after_the_end += 1
                bar.write("after the end: drawn again")
                continue
            kills.append(kill)
            verdict = "; ".join(kill.differences) or "identical"
            bar.write(f"killed at {kill.second:6.2f} s | {' '.join(kill.done) or 'nothing done yet'} | {verdict}")
            bar.update()
            if kill.differences:
                keep(directory, folder / f"different-{len(kills):02d}")
            result = {"flags": build_flags, "seed": FLAGS.seed, "uninterrupted_seconds": round(duration, 2)}
            result |= {"after_the_end": after_the_end, "kills": [kill._asdict() for kill in kills]}
            (folder / "kill_and_resume.json").write_text(json.dumps(result, indent=1))
    remove(directory)
    n_different = sum(bool(kill.differences) for kill in kills)
    print(f"{len(kills)} kills: {n_different} atlases differ. Written to {folder / 'kill_and_resume.json'}")
    if n_different:
        sys.exit(1)
    remove(expected)


if __name__ == "__main__":
    run_script(main, what_is_left="what was found so far is in kill_and_resume.json")
