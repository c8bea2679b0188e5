"""The flags of `build_atlas.py`, by subject."""

from typing import get_args

from absl import flags

from nejax.models.choices import EmbedBy
from nejax.neuron.defaults import HEIGHT_QUANTILE, Method
from nejax.pipeline.run.constants import CHUNK_MIB, CONTEXT, N_REFERENCE
from nejax.pipeline.run.settings import Ablation, Settings, SimilarBy
from nejax.scripts import subject

FLAGS = flags.FLAGS
DEFAULT = Settings()

subject("The run")
flags.DEFINE_string("run", "runs/demo", "Where everything is written.")
flags.DEFINE_integer("seed", DEFAULT.seed, "Of the random inputs, and of the starts of k-means.")
flags.DEFINE_integer("batch_size", 16, "Sequences a pass, on all devices together; does not change the result.")
flags.DEFINE_float("checkpoint_seconds", 60.0, "Between checkpoints of the collection; does not change the result.")
flags.DEFINE_integer(
    "chunk_mib", CHUNK_MIB, "MiB for the neurons that are clustered at a time; does not change the result."
)

subject("The model, whose neurons are split")
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

subject("The corpus")
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

subject("Examples of a neuron")
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

subject("Features, clusters of examples")
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

subject("Similar features")
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

subject("Importance of earlier tokens")
flags.DEFINE_bool("importance", DEFAULT.importance, "Measure which earlier tokens every feature's examples need.")
flags.DEFINE_integer("importance_examples", DEFAULT.importance_examples, "Of each feature, the most central so many.")
flags.DEFINE_integer("importance_window", DEFAULT.importance_window, "Tokens before the peak that are ablated.")
flags.DEFINE_enum(
    "importance_by",
    DEFAULT.importance_by,
    get_args(Ablation),
    "A token is replaced by padding, left out, replaced by the mean input, or its loss is estimated by the gradient.",
)
flags.DEFINE_string("padding_token", DEFAULT.padding_token, "Stands for a token. Default: the model's padding or BOS.")

subject("Census of the corpus")
flags.DEFINE_bool("census", DEFAULT.census, "Read the corpus again: features' frequency, mean distances by activation.")
flags.DEFINE_integer("census_sequences", DEFAULT.census_sequences, "A random sample of so many. Default: all.")

subject("Several processes as one")
flags.DEFINE_string("coordinator", None, "Of several processes that run as one: HOST:PORT of process 0.")
flags.DEFINE_integer("n_processes", 1, "How many processes run as one, each started with the same flags but --process.")
flags.DEFINE_integer("process", 0, "Which of them this is, from 0.")
