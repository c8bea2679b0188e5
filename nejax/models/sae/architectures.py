"""Sparse autoencoders in Flax NNX: four ways to choose which latents fire, one decoder, and their losses by name.

A latent is a neuron of one layer whose input is a vector `x` of a model and whose input weights are `W_enc[:, j]`, so
every measure of a neuron applies to it. Names and shapes are those of SAELens.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from nejax.errors import UserError
from nejax.models.sae.straight_through import jump_relu, step
from nejax.neuron._kernels.kth_largest import kth_largest
from nejax.neuron.polysemanticity import neuron_embedding_loss

Normalization = Literal["none", "layer_norm", "constant_norm_rescale"]
"""The normalization of inputs, undone in reconstructions."""

Losses = dict[str, Float[Array, ""]]
"""Losses by name, each a mean over a batch."""


class SAE(nnx.Module):
    """The standard SAE, and what all architectures share. `h = (x - b_dec) @ W_enc + b_enc`,
    `reconstruction = latents @ W_dec + b_dec`.

    Args:
        d_in: width of the inputs.
        d_sae: number of latents.
        apply_b_dec_to_input: whether `b_dec` is subtracted from the input before it is encoded.
        normalize: `"layer_norm"` subtracts an input's mean and divides by its deviation (over `d_in - 1`, plus 1e-5);
            `"constant_norm_rescale"` brings it to length `sqrt(d_in)`. Reconstructions are brought back.
        rngs: source of the decoder's directions, random ones of length 1. `W_enc` starts as the decoder's transpose
            (Conerly et al. 2024, *Update on how we train SAEs*).

    Example:
        >>> from flax import nnx
        >>> sae = nejax.SAE(d_in=4, d_sae=8, rngs=nnx.Rngs(0))
        >>> sae.encode(jnp.ones((6, 4))).shape, sae(jnp.ones((6, 4))).shape
        ((6, 8), (6, 4))
    """

    architecture = "standard"
    """Its name in a SAELens `cfg.json`."""

    def __init__(
        self,
        d_in: int,
        d_sae: int,
        *,
        apply_b_dec_to_input: bool = True,
        normalize: Normalization = "none",
        rngs: nnx.Rngs,
    ):
        if normalize not in get_args(Normalization):
            raise UserError(f"normalize={normalize!r}: expected one of {', '.join(get_args(Normalization))}")
        self.d_in, self.d_sae = d_in, d_sae
        self.apply_b_dec_to_input, self.normalize = apply_b_dec_to_input, normalize
        directions = jax.random.normal(rngs.params(), (d_sae, d_in))
        directions = directions / jnp.linalg.norm(directions, axis=1, keepdims=True)
        self.W_enc, self.W_dec = nnx.Param(directions.T), nnx.Param(directions)
        self.b_enc, self.b_dec = nnx.Param(jnp.zeros(d_sae)), nnx.Param(jnp.zeros(d_in))

    def read(self, x: Float[Array, "*b d_in"]) -> tuple[Float[Array, "*b d_in"], Callable[[Array], Array]]:
        """The normalized input (`b_dec` not yet subtracted), and the function that undoes this for a reconstruction.

        This is the `x` of a latent's neuron embedding `x * W_enc[:, j]` (Foote 2024, arXiv 2411.08166).
        """
        match self.normalize:
            case "layer_norm":
                mean, std = x.mean(axis=-1, keepdims=True), x.std(axis=-1, ddof=1, keepdims=True)
                return (x - mean) / (std + 1e-5), lambda out: out * std + mean
            case "constant_norm_rescale":
                scale = self.d_in**0.5 / jnp.linalg.norm(x, axis=-1, keepdims=True)
                return x * scale, lambda out: out / scale
        return x, lambda out: out

    def pre_activation(self, x: Float[Array, "*b d_in"]) -> Float[Array, "*b d_sae"]:
        """`h` of inputs as `read` gives them."""
        centred = x - self.b_dec[...] if self.apply_b_dec_to_input else x
        return centred @ self.W_enc[...] + self.b_enc[...]

    def activate(self, h: Float[Array, "*b d_sae"]) -> Float[Array, "*b d_sae"]:
        """The latents' activations: `relu(h)`."""
        return jax.nn.relu(h)

    def encode(self, x: Float[Array, "*b d_in"]) -> Float[Array, "*b d_sae"]:
        """The latents' activations on inputs as the model has them."""
        return self.activate(self.pre_activation(self.read(x)[0]))

    def decode(self, latents: Float[Array, "*b d_sae"]) -> Float[Array, "*b d_in"]:
        """`latents @ W_dec + b_dec`; for normalized inputs, before the normalization is undone."""
        return latents @ self.W_dec[...] + self.b_dec[...]

    def __call__(self, x: Float[Array, "*b d_in"]) -> Float[Array, "*b d_in"]:
        """The reconstruction of inputs as the model has them."""
        read, undo = self.read(x)
        return undo(self.decode(self.activate(self.pre_activation(read))))

    def losses(
        self,
        x: Float[Array, "b d_in"],
        *,
        silent: Bool[Array, " d_sae"] | None = None,
        embedding_rows: int = 0,
    ) -> tuple[Losses, Float[Array, "b d_sae"]]:
        """Every loss that training may minimise, by name; the caller weights them.

        `reconstruction`: squared error, a mean over inputs and dimensions. Those of `own_losses`: `sparsity`, where the
        architecture needs it. `revival`, where `silent` is given. `neuron_embedding`, where `embedding_rows` is not 0:
        the mean distance of the latents, over these rows, see `nejax.neuron.polysemanticity.neuron_embedding_loss`.

        Args:
            x: inputs, in random order.
            silent: latents that have not fired for long.
            embedding_rows: how many of the inputs, from the first, the neuron-embedding loss reads.

        Returns:
            The losses, and the latents' activations.
        """
        read, undo = self.read(x)
        h = self.pre_activation(read)
        latents = self.activate(h)
        error = x - undo(self.decode(latents))
        found = {"reconstruction": jnp.mean(error**2)} | self.own_losses(read, h, latents)
        if silent is not None:
            found["revival"] = self.revival(h, lax.stop_gradient(error), silent)
        if embedding_rows:
            fires = latents[:embedding_rows] > 0
            found["neuron_embedding"] = neuron_embedding_loss(read[:embedding_rows], self.W_enc[...], fires)
        return found, latents

    def own_losses(
        self, read: Float[Array, "b d_in"], h: Float[Array, "b d_sae"], latents: Float[Array, "b d_sae"]
    ) -> Losses:
        """`sparsity`: the L1 norm of the latents, each times the length of its decoder row: a mean over inputs."""
        return {"sparsity": jnp.mean(latents @ self.decoder_norms())}

    def revival(
        self, h: Float[Array, "b d_sae"], error: Float[Array, "b d_in"], silent: Bool[Array, " d_sae"]
    ) -> Float[Array, ""]:
        """Pulls silent latents towards firing: how far their `h` is below their threshold.

        `mean_b sum_j silent_j |W_dec_j| relu(threshold_j - h_bj)` (Anthropic, *Circuits Updates*, January 2025).
        """
        below = jax.nn.relu(self.firing_threshold() - h)
        return jnp.mean(below @ (silent * lax.stop_gradient(self.decoder_norms())))

    def firing_threshold(self) -> Float[Array, " d_sae"] | float:
        """The value that `h` must exceed for a latent to fire."""
        return 0.0

    def decoder_norms(self) -> Float[Array, " d_sae"]:
        """Length of each latent's decoder row."""
        return jnp.linalg.norm(self.W_dec[...], axis=1)


class TopKSAE(SAE):
    """The `k` largest `h` of an input fire, those of them that are positive (Gao et al. 2024, arXiv 2406.04093).

    Args:
        k: how many.
        rescale_acts_by_decoder_norm: treat latents as if decoder rows had length 1: `h` times that length is compared
            and is the activation, and decoder rows are divided by it.
        arguments: see `SAE`.

    Example:
        >>> from flax import nnx
        >>> sae = nejax.TopKSAE(d_in=4, d_sae=8, rngs=nnx.Rngs(0), k=2)
        >>> int((sae.encode(jnp.ones((6, 4))) > 0).sum(axis=1).max())
        2
    """

    architecture = "topk"

    def __init__(self, d_in: int, d_sae: int, *, k: int, rescale_acts_by_decoder_norm: bool = False, **arguments: Any):
        super().__init__(d_in, d_sae, **arguments)
        if not 1 <= k <= d_sae:
            raise UserError(f"k={k}: expected 1 to {d_sae} of {d_sae} latents")
        self.k, self.rescale_acts_by_decoder_norm = k, rescale_acts_by_decoder_norm

    def activate(self, h: Float[Array, "*b d_sae"]) -> Float[Array, "*b d_sae"]:
        """`relu(h)` of the `k` largest; of equal ones at the k-th place, all."""
        if self.rescale_acts_by_decoder_norm:
            h = h * self.decoder_norms()
        return _k_largest(h, self.k)

    def decode(self, latents: Float[Array, "*b d_sae"]) -> Float[Array, "*b d_in"]:
        """See `SAE.decode`, and `rescale_acts_by_decoder_norm`."""
        if self.rescale_acts_by_decoder_norm:
            latents = latents / self.decoder_norms()
        return super().decode(latents)

    def own_losses(self, read: Array, h: Array, latents: Array) -> Losses:
        """None: `k` fixes the sparsity."""
        return {}

    def revival(
        self, h: Float[Array, "b d_sae"], error: Float[Array, "b d_in"], silent: Bool[Array, " d_sae"]
    ) -> Float[Array, ""]:
        """The share of the error that remains when `d_in / 2` silent latents reconstruct it.

        `|error - z W_dec|^2 / |error|^2` with `z` the `d_in / 2` largest `h` of silent latents (Gao et al. 2024,
        section A.2), 0 where none is silent.
        """
        n_tries, W_dec = max(1, min(self.d_in // 2, self.d_sae)), self.W_dec[...]

        def left() -> Float[Array, ""]:
            z = _k_largest(jnp.where(silent, h, -jnp.inf), n_tries)
            return jnp.mean((error - z @ W_dec) ** 2) / jnp.maximum(jnp.mean(error**2), 1e-30)

        return lax.cond(jnp.any(silent), left, lambda: jnp.zeros(()))  # mostly none is: nothing to pay then


class JumpReLUSAE(SAE):
    """`h` where it is above the latent's own threshold (Rajamanoharan et al. 2024, arXiv 2407.14435).

    The loss `sparsity` is the number of latents that fire. Thresholds are trained by straight-through gradients of this
    loss and of the reconstruction.

    Args:
        threshold: where all of them start.
        bandwidth: of the kernel in these gradients, in units of `h`.
        arguments: see `SAE`.

    Example:
        >>> from flax import nnx
        >>> sae = nejax.JumpReLUSAE(d_in=4, d_sae=8, rngs=nnx.Rngs(0), threshold=0.25)
        >>> print(sae.activate(jnp.arange(8) / 8))
        [0.    0.    0.    0.375 0.5   0.625 0.75  0.875]
    """

    architecture = "jumprelu"

    def __init__(self, d_in: int, d_sae: int, *, threshold: float = 0.01, bandwidth: float = 0.05, **arguments: Any):
        super().__init__(d_in, d_sae, **arguments)
        self.threshold, self.bandwidth = nnx.Param(jnp.full(d_sae, threshold)), bandwidth

    def activate(self, h: Float[Array, "*b d_sae"]) -> Float[Array, "*b d_sae"]:
        """`relu(h) * (h > threshold)`."""
        return jump_relu(h, self.threshold[...], self.bandwidth)

    def own_losses(self, read: Array, h: Float[Array, "b d_sae"], latents: Array) -> Losses:
        """`sparsity`: how many latents fire, a mean over inputs."""
        return {"sparsity": jnp.mean(jnp.sum(step(h, self.threshold[...], self.bandwidth), axis=-1))}

    def firing_threshold(self) -> Float[Array, " d_sae"]:
        """The thresholds."""
        return jnp.maximum(self.threshold[...], 0)


class GatedSAE(SAE):
    """One affine map decides which latents fire, another of the same directions how strongly (arXiv 2404.16014).

    `gate = x @ W_enc + b_gate`, `magnitude = relu(x @ (W_enc * exp(r_mag)) + b_mag)`, and latents are the magnitudes
    where `gate > 0` (Rajamanoharan et al. 2024). Here `h` is the gate.

    Example:
        >>> from flax import nnx
        >>> sae = nejax.GatedSAE(d_in=4, d_sae=8, rngs=nnx.Rngs(0))
        >>> print(sae.activate(jnp.arange(8) - 4.0))
        [0. 0. 0. 0. 0. 1. 2. 3.]
    """

    architecture = "gated"

    def __init__(self, d_in: int, d_sae: int, **arguments: Any):
        super().__init__(d_in, d_sae, **arguments)
        del self.b_enc
        self.b_gate, self.b_mag = nnx.Param(jnp.zeros(d_sae)), nnx.Param(jnp.zeros(d_sae))
        self.r_mag = nnx.Param(jnp.zeros(d_sae))

    def pre_activation(self, x: Float[Array, "*b d_in"]) -> Float[Array, "*b d_sae"]:
        """The gate."""
        centred = x - self.b_dec[...] if self.apply_b_dec_to_input else x
        return centred @ self.W_enc[...] + self.b_gate[...]

    def activate(self, h: Float[Array, "*b d_sae"]) -> Float[Array, "*b d_sae"]:
        """The magnitudes where the gate is open."""
        magnitude = (h - self.b_gate[...]) * jnp.exp(self.r_mag[...]) + self.b_mag[...]
        return jnp.where(h > 0, jax.nn.relu(magnitude), 0.0)

    def own_losses(self, read: Float[Array, "b d_in"], h: Float[Array, "b d_sae"], latents: Array) -> Losses:
        """`sparsity`: the L1 norm of `relu(gate)`, as in `SAE`. `gate_reconstruction`: the squared error of its
        reconstruction by the frozen decoder, so that gates learn to be informative. Neither has a gradient in the
        decoder: shorter rows would reduce the first at no cost, since `r_mag` compensates for them.
        """
        gate = jax.nn.relu(h)
        decoded = gate @ lax.stop_gradient(self.W_dec[...]) + lax.stop_gradient(self.b_dec[...])
        return {
            "sparsity": jnp.mean(gate @ lax.stop_gradient(self.decoder_norms())),
            "gate_reconstruction": jnp.mean((read - decoded) ** 2),
        }


ARCHITECTURES: dict[str, type[SAE]] = {
    "standard": SAE,
    "topk": TopKSAE,
    "jumprelu": JumpReLUSAE,
    "gated": GatedSAE,
}
"""The four by their names."""


def make_sae_loss(
    graph: nnx.GraphDef, weights: Mapping[str, float | Array], *, silent_after: int, embedding_fraction: float = 0.5
) -> Callable[[Any, Array, Array], tuple[Array, tuple[Losses, Array]]]:
    """The loss of an SAE for `nejax.training.language_model`: `(parameters, inputs, silence) -> (loss, (metrics,
    silence))`.

    `silence` counts, for each latent, the inputs since it last fired; it starts as `jnp.zeros(d_sae, jnp.int32)`.

    Args:
        graph: of the SAE: `nnx.split(sae)[0]`.
        weights: of the losses of `SAE.losses`, by name; one left out, or 0, is not computed where that saves work. Of
            `reconstruction` 1 is assumed. One that is an array may be traced: it can change from step to step.
        silent_after: inputs after which a latent that has not fired counts as silent.
        embedding_fraction: the share of a batch that the neuron-embedding loss reads. Pairs of one half of the batch
            estimate the same mean distance as those of all of it, at half the cost.

    Raises:
        UserError: a weight of a loss that this SAE does not have, when the loss is first computed.
    """
    given = {name: weight for name, weight in weights.items() if isinstance(weight, Array) or weight}
    weights = {"reconstruction": 1.0} | given

    def loss(params: Any, x: Float[Array, "b d_in"], silence: Int[Array, " d_sae"]):
        sae = nnx.merge(graph, params)
        silent = silence >= silent_after if "revival" in weights else None
        rows = max(2, round(embedding_fraction * len(x))) if "neuron_embedding" in weights else 0
        found, latents = sae.losses(x, silent=silent, embedding_rows=rows)
        if unknown := weights.keys() - found.keys():
            raise UserError(f"an SAE of architecture {sae.architecture} has no loss {', '.join(sorted(unknown))}")
        fired = latents > 0
        silence = jnp.where(fired.any(axis=0), 0, silence + len(x))
        metrics = found | {"l0": fired.sum(axis=-1).mean(), "silent": (silence >= silent_after).sum()}
        total = sum((weight * found[name] for name, weight in weights.items()), jnp.zeros(()))
        return total, (metrics, silence)

    return loss


def fold_scale(sae: SAE, scale: float) -> SAE:
    """The SAE that does with `x` what the given one does with `scale * x`; reconstructions are scaled back.

    With `scale = sqrt(d_in) / mean |x|` this is SAELens' `expected_average_only_in`, folded in. Latents are the
    same, but divided by `scale` where they include the length of decoder rows (`rescale_acts_by_decoder_norm`).

    Raises:
        UserError: the SAE normalizes its inputs, so that no scale reaches its weights.
    """
    if sae.normalize != "none":
        raise UserError(f"a scale cannot be folded into an SAE with normalize={sae.normalize!r}")
    folded = nnx.merge(*nnx.split(sae))
    folded.W_enc, folded.W_dec = nnx.Param(sae.W_enc[...] * scale), nnx.Param(sae.W_dec[...] / scale)
    folded.b_dec = nnx.Param(sae.b_dec[...] / scale)
    return folded


def _k_largest(h: Float[Array, "*b n"], k: int) -> Float[Array, "*b n"]:
    least = kth_largest(h.reshape(-1, h.shape[-1]), k).reshape(*h.shape[:-1], 1)
    return jnp.where(h >= least, jax.nn.relu(h), 0.0)
