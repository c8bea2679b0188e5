"""Judge a sparse autoencoder: how sparse, faithful, alive and monosemantic it is, beside the model's own neurons.

Produces, in `--run`: `scorecard.json`, `scorecard.md` (printed too) and `scorecard.png`.

    python experiments/train_sae.py && python experiments/evaluate_sae.py --sae=runs/train_sae/sae
    python experiments/evaluate_sae.py --sae=jbloom/GPT2-Small-SAEs-Reformatted/blocks.8.hook_resid_pre \\
        --model=gpt2 --corpus=Skylion007/openwebtext --held_out=0

The first takes two and a half minutes on two cores; the numbers to expect are in docs/measurements.md. The SAE may be
one of SAELens, of sparsify, or of train_sae.py: a folder, or a name on the Hub.
"""

import json
from pathlib import Path

from absl import flags, logging

from nejax.pipeline.run.settings import CorpusSettings, check_seq_len
from nejax.scripts import read_flags, run_script, setting_flags

FLAGS = flags.FLAGS
flags.DEFINE_string("sae", None, "The SAE: a folder, or a name on the Hub. Needed.")
flags.DEFINE_string(
    "model", None, "The model: gpt2-tiny, gpt2, a Hub name, or a directory (default: what the SAE says)."
)
flags.DEFINE_enum("precision", "float32", ["float32", "bfloat16"], "Type in which the model's products read operands.")
flags.DEFINE_string("hook", None, "The place that the SAE reads (default: what the SAE says).")
flags.DEFINE_list("corpus", ["python-docs"], "Where text comes from: python-docs, files, folders, Hub names.")
flags.DEFINE_float("held_out", 0.1, "Only the documents that train_sae.py held out with this; 0: all.", 0.0, 0.5)
flags.DEFINE_integer("n_tokens", 50_000, "Inputs that it is judged on, or all there are.", lower_bound=2)
setting_flags(CorpusSettings, "seq_len")
flags.DEFINE_integer("first_position", 1, "First position that is read; 0 reads BOS too.", lower_bound=0)
flags.DEFINE_integer("examples", 100, "Examples of each latent and neuron: the first that excite it.", lower_bound=2)
flags.DEFINE_float("height", 0.05, "At which the average linkage of a latent's examples is cut.", 0.0, 2.0)
flags.DEFINE_integer("batch_size", 16, "Sequences a pass of the model.", lower_bound=1)
flags.DEFINE_string("run", "runs/evaluate_sae", "Where the results are written.")

if __name__ == "__main__":
    read_flags()

import jax.numpy as jnp
import numpy as np

from nejax.atlas.sae_scorecard import Scorecard, markdown, plot_scorecard
from nejax.errors import UserError
from nejax.models.loading import load_model
from nejax.models.sae.architectures import fold_scale
from nejax.models.sae.evaluation import evaluate_sae, read_by_encoder
from nejax.models.sae.files import load_sae, site_in_model
from nejax.models.sae.hook_points import Site, hook_name, needed_input_weights
from nejax.pipeline.corpus.documents import refuse_no_corpus
from nejax.pipeline.passes.peaks import PeakRule
from nejax.pipeline.run.folders import make_folder, refuse_no_folder
from nejax.pipeline.run.progress import progress_bar
from nejax.training.scorecard import LEVELS, latents_of, measure_at_levels, neurons_of, splice_losses
from nejax.training.site_inputs import SiteReader, first_inputs
from nejax.training.text import sequences_to_evaluate_on


def evaluate() -> Scorecard:
    """Load both, read the text once, and measure."""
    if not FLAGS.sae:
        raise UserError("--sae is needed: the folder of an SAE (runs/train_sae/sae, say), or its name on the Hub")
    refuse_no_corpus(FLAGS.corpus)
    loaded = load_sae(FLAGS.sae)
    hook, name = FLAGS.hook or loaded.hook_name, FLAGS.model or loaded.model_name
    if not hook or not name:
        raise UserError(f"{FLAGS.sae} does not say what it reads; name it with --hook and --model")
    weights = needed_input_weights(hook) or "native"
    model, tokenizer, _, fingerprint = load_model(name, dtype=jnp.dtype(FLAGS.precision), input_weights=weights)
    site = site_in_model(loaded, hook, name, model.config)
    check_seq_len(FLAGS.seq_len, model.config.n_positions, name)

    peaks = PeakRule.of(sorted(tokenizer.all_special_ids), FLAGS.first_position)
    read = SiteReader(model, site, rule=peaks, centred=loaded.centred, batch_size=FLAGS.batch_size)
    pieces = sequences_to_evaluate_on(FLAGS.corpus, tokenizer, held_out=FLAGS.held_out, seq_len=FLAGS.seq_len)
    inputs, sequences = first_inputs(read, pieces, FLAGS.n_tokens)
    sae = loaded.sae
    if loaded.scale_by_mean_norm:
        sae = fold_scale(sae, read.d**0.5 / float(np.linalg.norm(inputs, axis=1).mean(dtype=np.float64)))
    where, n_real = read.positions(sequences), int(sequences.length.sum())
    with progress_bar(total=4 * n_real, desc="losses", unit=" tokens", unit_scale=True) as bar:
        settings = {"centred": loaded.centred, "batch_size": FLAGS.batch_size, "progress": bar.update}
        losses = splice_losses(model, site, sae, sequences, where, inputs.mean(axis=0), **settings)
    print("measuring the SAE, its latents and the layer's neurons")
    rule = {"n_examples": FLAGS.examples, "height": FLAGS.height}
    report = evaluate_sae(sae, inputs, **rule)
    above = measure_at_levels(read_by_encoder(sae, inputs), latents_of(sae), levels=LEVELS[1:], **rule)
    latents = [report.latents, *above]  # above 0 is where they fire
    of_mlp = SiteReader(model, Site(site.layer, "mlp_input"), rule=peaks, batch_size=FLAGS.batch_size)
    neurons = measure_at_levels(of_mlp(sequences), neurons_of(model, site.layer), **rule)
    about = {
        "sae": FLAGS.sae,
        "architecture": f"{sae.architecture}, {sae.d_sae:,} latents",
        "SAE's fingerprint": loaded.fingerprint,
        "reads": hook_name(site, input_weights=weights),
        "model": f"{name} ({weights} input weights, {FLAGS.precision}), fingerprint {fingerprint}",
        "corpus": ", ".join(FLAGS.corpus) + (f", the held-out {FLAGS.held_out:g}" if FLAGS.held_out else ""),
        "inputs": f"{len(inputs):,} from {len(sequences.length):,} sequences",
    }
    return Scorecard(about, report, losses, latents, neurons)


def main(argv: list[str]) -> None:
    """Evaluate, and write what was found."""
    refuse_no_folder(Path(FLAGS.run))
    card = evaluate()
    folder = make_folder(Path(FLAGS.run))
    (folder / "scorecard.json").write_text(json.dumps(card.numbers(), indent=2), encoding="utf-8")
    (folder / "scorecard.md").write_text(markdown(card), encoding="utf-8")
    plot_scorecard(card, folder / "scorecard.png")
    print(markdown(card))
    print(f"Written to {folder}/scorecard.json, .md and .png")


if __name__ == "__main__":
    logging.set_verbosity(logging.WARNING)
    run_script(main)
