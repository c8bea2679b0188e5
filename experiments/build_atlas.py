"""Build an atlas: split every neuron of a language model into its distinct features.

Produces, in `--run`: `manifest.json` (every setting, versions, fingerprints, counts), one Orbax store a stage, `atlas/`
(what `nejax.open_atlas` and the explorer read), `plots/` and `summary.txt`. The same command run again reuses what is
done, and resumes where it was interrupted.

    python experiments/build_atlas.py                                                   # offline, under two minutes
    python experiments/build_atlas.py --model=gpt2 --corpus=Skylion007/openwebtext --input_weights=folded \\
        --selection=fraction --min_fraction=0.75 --clustering=components --run=runs/paper      # the paper's setting
    python experiments/build_atlas.py --model=DIRECTORY --corpus=texts/ --max_sequences=20000 --run=runs/mine
    python experiments/build_atlas.py --importance --census     # and which tokens a feature needs, how often it comes
    python experiments/build_atlas.py --sae=runs/train_sae/sae --run=runs/latents          # an SAE's latents as neurons

With no flag: the bundled gpt2-tiny (4 layers of 1,024 neurons) on Python's own documentation; the time it takes and the
numbers to expect are in docs/measurements.md.
"""

from pathlib import Path

from absl import logging

from atlas.flags import FLAGS
from nejax.scripts import flagged, read_flags, run_script, setting_values

if __name__ == "__main__":
    read_flags()

from nejax.atlas.atlas import open_atlas
from nejax.atlas.band_plot import plot_bands
from nejax.atlas.build import atlas_of
from nejax.atlas.neuron_plot import plot_neuron
from nejax.atlas.plots import plot_measures
from nejax.atlas.summary import most_polysemantic, summarize
from nejax.pipeline.run.devices import use_all_cores
from nejax.pipeline.run.directory import stop_on_full_disk
from nejax.pipeline.run.processes import ending_with_the_others, is_first, join_processes
from nejax.pipeline.run.settings import Settings
from nejax.pipeline.stages.run import Run


def main(argv: list[str]) -> None:
    """Run every stage that is not done, then say what was found; what is damaged is rebuilt."""
    use_all_cores()
    if FLAGS.coordinator or FLAGS.n_processes > 1:
        join_processes(FLAGS.coordinator or "", FLAGS.n_processes, FLAGS.process)
    with ending_with_the_others(flagged), stop_on_full_disk(Path(FLAGS.run).absolute()):
        build()


def build() -> None:
    """The run, its atlas, plots and summary."""
    settings = Settings.of(**setting_values())
    run = Run(
        FLAGS.run,
        settings,
        batch_size=FLAGS.batch_size,
        chunk_mib=FLAGS.chunk_mib,
        checkpoint_seconds=FLAGS.checkpoint_seconds,
    )
    run.refuse_other_sources()
    path = run.directory.path
    done = sorted(stage for stage in run.directory.manifest["stages"] if not stage.startswith("tokens-"))
    if not is_first():
        atlas_of(run)  # its share of the work; the first process does the writing and the talking
        return
    if run.directory.is_done("atlas"):
        print(f"Everything is done already in {path}: reusing it.")
    elif done:
        print(f"Reusing what is done in {path}: {', '.join(done)}.")
    atlas_of(run)
    atlas = open_atlas(path)
    if not run.directory.is_done("plots"):
        plot_measures(atlas, path / "plots")
        if settings.census.wanted:
            edges, distances, counts = atlas.bands_table()
            overall = atlas.neurons_table()["corpus_mean_distance"].reshape(distances.shape[:2])
            plot_bands(path / "plots" / "bands.png", edges, distances, counts, overall)
        for neuron in most_polysemantic(atlas):
            plot_neuron(neuron, path / "plots" / f"neuron-{neuron.layer:02d}-{neuron.index:05d}.png")
        run.directory.mark("plots", {})
    summary = summarize(atlas)
    (path / "summary.txt").write_text(summary, encoding="utf-8")
    print(summary)


if __name__ == "__main__":
    logging.set_verbosity(logging.WARNING)
    run_script(main)
