"""The flags of `benchmark.py`, by what is measured."""

from typing import get_args

from absl import flags

from benchmarks.sizes import GPT2_SMALL
from nejax.models.choices import Architecture
from nejax.scripts import subject

FLAGS = flags.FLAGS

subject("All")
flags.DEFINE_string("run", "runs/benchmark", "Where the results are written.")
flags.DEFINE_integer("repeats", 5, "Rounds; a figure is the median over them.", lower_bound=1)

subject("Explorer, collection")
flags.DEFINE_integer("n_layers", GPT2_SMALL.n_layers, "Layers of the model.")
flags.DEFINE_integer("d_mlp", GPT2_SMALL.d_mlp, "Neurons of a layer.")
flags.DEFINE_integer("d_model", GPT2_SMALL.d_model, "Width of the model.")
flags.DEFINE_integer("vocab_size", GPT2_SMALL.vocab_size, "Tokens of the tokenizer.")

subject("Clustering")
flags.DEFINE_list("n_examples", ["20", "50", "100", "200"], "Examples a neuron.")
flags.DEFINE_list("n_neurons", ["1", "64", "1024"], "Neurons a call; peers take 16 to 256 of them, one by one.")
flags.DEFINE_integer("n_all", 36_864, "Neurons of the whole model that is clustered from inputs and weights.")
flags.DEFINE_integer("n_all_examples", 100, "Examples of each of these.")

subject("Collection")
flags.DEFINE_string("model", None, "A model with gated neurons, in place of a GPT-2 with random weights; truth: any.")
flags.DEFINE_integer("seq_len", 128, "Tokens of a sequence.", lower_bound=4)
flags.DEFINE_integer("keep", 128, "Best examples kept of each neuron.", lower_bound=4)
flags.DEFINE_integer("batch_size", 16, "Sequences a pass.", lower_bound=1)
flags.DEFINE_enum("precision", "float32", ["float32", "bfloat16"], "Of weights and products.")

subject("Explorer")
flags.DEFINE_integer("n_sequences", GPT2_SMALL.n_sequences, "Sequences of the corpus; collection: of a round (32).")
flags.DEFINE_integer("n_requests", 10_000, "Neurons that are asked for.", lower_bound=20)
flags.DEFINE_integer("n_clients", 32, "Clients at once.", lower_bound=1, upper_bound=256)
flags.DEFINE_integer("max_mb", 1000, "Bound on the static site.", lower_bound=1)

subject("Importance")
flags.DEFINE_list("importance_sequences", ["64"], "Of the corpus, one race for each number.")
flags.DEFINE_integer("importance_timed", 16, "Sequences whose examples are timed.", lower_bound=1)
flags.DEFINE_integer("importance_passes", 256, "Whole passes in a round, a sample.", lower_bound=1)

subject("SAE")
flags.DEFINE_list("sae_sizes", ["256:2048:1024", "768:6144:1024"], "d_in:d_sae:inputs a step.")
flags.DEFINE_list("sae_architectures", list(get_args(Architecture)), "Which of them.")

subject("Similar")
flags.DEFINE_list("similar_sizes", ["30000", "100000", "300000"], "Features, one race for each number.")
flags.DEFINE_integer("similar_dimensions", 768, "Of the inputs.", lower_bound=2)
flags.DEFINE_integer("similar_k", 20, "Neighbours of each feature.", lower_bound=1)
flags.DEFINE_integer("similar_queries", 2048, "Features that nejax seeks the neighbours of.", lower_bound=1)
flags.DEFINE_integer("similar_peer_most", 300_000, "Features up to which PyNNDescent takes part.")
flags.DEFINE_float("similar_recall", 0.95, "That the approximate search is asked for.")

subject("Truth; --model too")
flags.DEFINE_list("truth_sources", ["planted", "chimera"], "Planted neurons, chimeras of real ones, or both.")
flags.DEFINE_integer("truth_repeats", 1, "Planted neurons of each setting.", lower_bound=1)
flags.DEFINE_integer("truth_sequences", 4096, "Of the corpus that chimeras read.", lower_bound=64)
flags.DEFINE_bool("quick", False, "Few neurons: to see that it runs.")
