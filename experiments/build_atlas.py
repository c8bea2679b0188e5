"""Build an atlas: split every neuron of a language model into its distinct features.

Produces, in `--run`: `manifest.json` (every setting, versions, fingerprints, counts), one Orbax store a stage, `atlas/`
(what `nejax.open_atlas` and the explorer read), `plots/` and `summary.txt`. The same command run again reuses what is
done, and goes on where it was interrupted.

    python experiments/build_atlas.py                                                   # offline, under two minutes
    python experiments/build_atlas.py --model=gpt2 --corpus=Skylion007/openwebtext --input_weights=folded \\
        --selection=fraction --min_fraction=0.75 --clustering=components --run=runs/paper      # the paper's setting
    python experiments/build_atlas.py --model=DIRECTORY --corpus=texts/ --max_sequences=20000 --run=runs/mine
    python experiments/build_atlas.py --importance --census     # and which tokens a feature needs, how often it comes
    python experiments/build_atlas.py --sae=runs/train_sae/sae --run=runs/latents          # an SAE's latents as neurons

With no flag: the bundled gpt2-tiny (4 layers of 1,024 neurons) on Python's own documentation; the time it takes and the
numbers to expect are in BUILD_NOTES.md.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Any, get_args

from absl import flags, logging

from nejax.atlas.atlas import open_atlas
from nejax.atlas.band_plot import plot_bands
from nejax.atlas.neuron_plot import plot_neuron
from nejax.atlas.plots import plot_measures
from nejax.atlas.summary import most_polysemantic, summarize
from nejax.atlas.write import write_atlas
from nejax.errors import run_script
from nejax.models.two_sided import EmbedBy
from nejax.pipeline.choose import CONTEXT
from nejax.pipeline.clustering import Method
from nejax.pipeline.devices import use_all_cores
from nejax.pipeline.features import CHUNK_MIB, HEIGHT_QUANTILE
from nejax.pipeline.processes import ending_with_the_others, is_first, join_processes
from nejax.pipeline.settings import Ablation, SimilarBy
from nejax.pipeline.stages import N_REFERENCE, Run, Settings
from nejax.pipeline.stores import DamagedStore, stop_on_full_disk

FLAGS = flags.FLAGS
DEFAULT = Settings()
flags.DEFINE_string("run", "runs/demo", "Where everything is written.")
flags.DEFINE_string("model", DEFAULT.model, "gpt2-tiny, smollm2, gpt2, ..., a Hub id, a directory, or a .gguf file.")
flags.DEFINE_enum(
    "input_weights",
    DEFAULT.input_weights,
    ["native", "folded"],
    "The model's own input weights, or with LayerNorm folded into them, as the paper read GPT-2.",
)
flags.DEFINE_enum(
    "embed_by",
    DEFAULT.embed_by,
    get_args(EmbedBy),
    "Gated neurons have two input vectors: those of the gate alone embed an example, or both together.",
)
flags.DEFINE_string(
    "sae",
    DEFAULT.sae,
    "A sparse autoencoder on this model, a folder or a name on the Hub: its latents are the neurons.",
)
flags.DEFINE_enum("precision", DEFAULT.precision, ["float32", "bfloat16", "float16"], "Type of the weights.")
flags.DEFINE_string(
    "corpus",
    DEFAULT.corpus,
    "python-docs (in every Python installation), a file or folder (.txt .md .jsonl .parquet, also .gz .xz .zst), "
    "- for standard input, or a Hub dataset NAME or NAME:CONFIG, which is streamed.",
)
flags.DEFINE_string("text_field", DEFAULT.text_field, "The field that holds the text, where there are fields.")
flags.DEFINE_string("split", DEFAULT.split, "The split of a Hub dataset.")
flags.DEFINE_integer("max_sequences", DEFAULT.max_sequences, "Stop reading after so many sequences; 0: read all.")
flags.DEFINE_integer("seq_len", DEFAULT.seq_len, "Tokens a sequence, the beginning-of-text token included.")
flags.DEFINE_integer("first_position", DEFAULT.first_position, "First position that may be a peak; 0 allows BOS's.")
flags.DEFINE_integer("keep", DEFAULT.keep, "Best examples kept of each neuron; its examples are chosen from them.")
flags.DEFINE_integer("examples", DEFAULT.examples, "At most so many examples a neuron are embedded and clustered.")
flags.DEFINE_enum(
    "selection",
    DEFAULT.selection,
    ["fraction", "top", "quantiles"],
    "Of those kept: above a fraction of the maximum, the strongest, or evenly over their ranks.",
)
flags.DEFINE_float("min_fraction", DEFAULT.min_fraction, "The fraction of the maximum, for --selection=fraction.")
flags.DEFINE_integer("max_repeats", DEFAULT.max_repeats, f"Examples with the same {CONTEXT} tokens up to the peak.")
flags.DEFINE_enum(
    "clustering",
    DEFAULT.clustering,
    get_args(Method),
    "Average linkage cut at a height, connected components of the pairs at most that far apart, spherical k-means, or "
    "spectral clustering.",
)
flags.DEFINE_float(
    "height",
    DEFAULT.height,
    "average, components: cut height for all neurons, a cosine distance in (0, 2]. Default: each neuron's own, the "
    f"{HEIGHT_QUANTILE:.0%} quantile of the distances between {N_REFERENCE} random inputs through its weights.",
)
flags.DEFINE_integer(
    "n_clusters",
    DEFAULT.n_clusters,
    "kmeans, spectral: features of every neuron. Default: each neuron's own, by silhouette or by eigengap.",
)
flags.DEFINE_integer("max_clusters", DEFAULT.max_clusters, "kmeans, spectral: the most that are chosen for a neuron.")
flags.DEFINE_integer("n_restarts", DEFAULT.n_restarts, "kmeans, spectral: starts of k-means.")
flags.DEFINE_float(
    "min_silhouette",
    DEFAULT.min_silhouette,
    "kmeans: mean silhouette that several features must exceed; otherwise the neuron has one.",
)
flags.DEFINE_integer(
    "n_neighbors", DEFAULT.n_neighbors, "spectral: the neighbour whose distance is an example's own scale."
)
flags.DEFINE_integer("similar", DEFAULT.similar, "Most similar features of other neurons, listed for each; 0: none.")
flags.DEFINE_float(
    "min_similarity",
    DEFAULT.min_similarity,
    "Cosine between the inputs of two features' central examples that must be exceeded for them to count as similar.",
)
flags.DEFINE_enum(
    "similar_by", DEFAULT.similar_by, get_args(SimilarBy), "Inputs compared: of central examples, or their means."
)
flags.DEFINE_float("similar_recall", DEFAULT.similar_recall, "Below 1: an approximate search, which pays on a TPU.")
flags.DEFINE_integer("similar_examples", DEFAULT.similar_examples, "Only features with so many examples are compared.")
flags.DEFINE_bool("importance", DEFAULT.importance, "Measure which earlier tokens every feature's examples need.")
flags.DEFINE_integer("importance_examples", DEFAULT.importance_examples, "Of each feature, the most central so many.")
flags.DEFINE_integer("importance_window", DEFAULT.importance_window, "Tokens before the peak that are taken away.")
flags.DEFINE_enum(
    "importance_by",
    DEFAULT.importance_by,
    get_args(Ablation),
    "A token is replaced by padding, left out, replaced by the mean input, or its loss is estimated by the gradient.",
)
flags.DEFINE_string("padding_token", DEFAULT.padding_token, "Stands for a token. Default: the model's padding or BOS.")
flags.DEFINE_bool("census", DEFAULT.census, "Read the corpus again: features' frequency, mean distances by activation.")
flags.DEFINE_integer("census_sequences", DEFAULT.census_sequences, "A random sample of so many. Default: all.")
flags.DEFINE_integer("seed", DEFAULT.seed, "Of the random inputs, and of the starts of k-means.")
flags.DEFINE_integer("batch_size", 16, "Sequences a pass, on all devices together; does not change the result.")
flags.DEFINE_float("checkpoint_seconds", 60.0, "Between checkpoints of the collection; does not change the result.")
flags.DEFINE_string("coordinator", None, "Of several processes that run as one: HOST:PORT of process 0.")
flags.DEFINE_integer("n_processes", 1, "How many processes run as one, each started with the same flags but --process.")
flags.DEFINE_integer("process", 0, "Which of them this is, from 0.")
flags.DEFINE_integer(
    "chunk_mib", CHUNK_MIB, "MiB for the neurons that are clustered at a time; does not change the result."
)


def main(argv: list[str]) -> None:
    """Run every stage that is not done, then say what was found; what is damaged is made anew."""
    use_all_cores()
    if FLAGS.coordinator or FLAGS.n_processes > 1:
        join_processes(FLAGS.coordinator or "", FLAGS.n_processes, FLAGS.process)
    with ending_with_the_others(), stop_on_full_disk(Path(FLAGS.run).absolute()):
        while True:
            try:
                return build()
            except DamagedStore as error:
                print(f"{str(error).partition('; ')[0]}: making it anew.", file=sys.stderr)


def build() -> None:
    """One go at it."""
    values: dict[str, Any] = {field.name: FLAGS[field.name].value for field in dataclasses.fields(Settings)}
    values["max_sequences"] = FLAGS.max_sequences or None
    settings = Settings(**values)
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
        write_atlas(run)  # its share of the work; the first process does the writing and the talking
        return
    if run.directory.is_done("atlas"):
        print(f"Everything is done already in {path}: reusing it.")
    elif done:
        print(f"Reusing what is done in {path}: {', '.join(done)}.")
    write_atlas(run)
    atlas = open_atlas(path)
    if not run.directory.is_done("plots"):
        plot_measures(atlas, path / "plots")
        if settings.census:
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
