"""A model whose neurons are the latents of a sparse autoencoder, so that every stage reads them unchanged."""

import hashlib
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from nejax.errors import UserError
from nejax.models.families.transformer import Transformer
from nejax.models.loading import LoadedModel
from nejax.models.reading import Branches, Editor, LayerView, Reader, edit_nothing, read_nothing
from nejax.models.sae.architectures import SAE, GatedSAE
from nejax.models.sae.files import load_sae, site_in_model
from nejax.models.sae.hook_points import Site


class LatentsModel(nnx.Module):
    """One layer of neurons, the latents of an SAE at one site of a language model.

    What a reader sees: `mlp_input` is the SAE's input as its encoder reads it (`b_dec` not subtracted, see `SAE.read`),
    `activation` the latents, `mlp_output` the reconstruction; the residual stream is that around the site.

    Args:
        model: the whole language model; its layers after the site are not run.
        site: what the SAE reads.
        sae: any of the four.
        centred: whether the SAE expects inputs less their mean over `d_model`.
    """

    sides = 1

    def __init__(self, model: Transformer, site: Site, sae: SAE, *, centred: bool = False):
        self.config = model.config
        self.model, self.sae = model.first_layers(site.layer + 1), sae
        self.site, self.centred = site, centred

    def __call__(
        self, tokens: Int[Array, "batch seq"], *, reader: Reader = read_nothing, editor: Editor = edit_nothing
    ) -> tuple[None, Any]:
        """Run the model up to the site, and the SAE on its value there.

        Args:
            tokens: the sequences.
            reader: see `nejax.models.reading`.
            editor: called with the language model's residual streams too.

        Returns:
            No logits, and the reader's result with a leading axis of one layer.
        """
        _, views = self.model(tokens, reader=self._around_site, editor=_outside(editor))
        return None, self._read(views, reader, editor)

    def read_branches(
        self, tokens: Int[Array, "batch seq"], branches: Branches, *, reader: Reader, editor: Editor = edit_nothing
    ) -> Any:
        """Other continuations of sequences, as far as the site: as `Transformer.read_branches` runs them.

        Args:
            tokens: the sequences.
            branches: see `nejax.models.reading`.
            reader: of the branches' tokens.
            editor: called with the language model's residual streams too.
        """
        views = self.model.read_branches(tokens, branches, reader=self._around_site, editor=_outside(editor))
        return self._read(views, reader, editor)

    def embed(self, tokens: Int[Array, "batch seq"], position: Int[Array, "..."]) -> Float[Array, "batch seq d_model"]:
        """The language model's residual stream before its first layer."""
        return self.model.embed(tokens, position)

    def _around_site(self, view: LayerView) -> dict[str, Array]:
        return {name: getattr(view, name) for name in self._needed}

    def _read(self, views: dict[str, Array], reader: Reader, editor: Editor) -> Any:
        """The reader's result for the SAE at the site."""
        here = {name: value[-1] for name, value in views.items()}
        x, layer = here[self.site.name].astype(jnp.float32), jnp.int32(0)
        if self.centred:
            x = x - x.mean(axis=-1, keepdims=True)
        read, undo = self.sae.read(x)
        read = editor("mlp_input", read, layer)
        h = editor("pre_activation", self.sae.pre_activation(read), layer)
        latents = editor("activation", self.sae.activate(h), layer)
        output = editor("mlp_output", undo(self.sae.decode(latents)), layer)
        stream = {name: here[name] for name in ("resid_pre", "resid_mid", "resid_post")}
        view = LayerView(layer=layer, mlp_input=read, pre_activation=h, activation=latents, mlp_output=output, **stream)
        return jax.tree.map(lambda reading: reading[None], reader(view))

    @property
    def _needed(self) -> set[str]:
        return {self.site.name, "resid_pre", "resid_mid", "resid_post"}

    def input_weights(self) -> Float[Array, "1 d_in d_sae"]:
        """The input weights of every latent: `W_enc`."""
        return self.sae.W_enc[...][None]

    def input_bias(self) -> Float[Array, "1 d_sae"]:
        """What is added to `mlp_input @ W_enc` before the non-linearity, that of `b_dec` included."""
        sae = self.sae
        bias = sae.b_gate[...] if isinstance(sae, GatedSAE) else sae.b_enc[...]
        return (bias - sae.b_dec[...] @ sae.W_enc[...] if sae.apply_b_dec_to_input else bias)[None]


def _outside(editor: Editor) -> Editor:
    """An editor for the language model of an SAE: MLP inputs, activations and outputs are the SAE's alone."""

    def edit(name: str, value: Array, layer: Array) -> Array:
        return editor(name, value, layer) if name.startswith("resid_") else value

    return edit


def load_latents(loaded: LoadedModel, sae: str, *, input_weights: str = "native") -> LoadedModel:
    """The latents of an SAE on a model, as a model.

    Args:
        loaded: the model that the SAE reads.
        sae: a folder, or a name on the Hub, see `nejax.models.sae.files.load_sae`.
        input_weights: as the model was loaded.

    Returns:
        A `LatentsModel` with the model's tokenizer; the name and the fingerprint are of both.

    Raises:
        UserError: the SAE does not say what it reads, or that is not in this model; it reads another width; it needs
            other input weights; or a factor for its inputs is known only from data.
    """
    found = load_sae(sae)
    site = site_in_model(found, None, loaded.name, loaded.model.config)
    if found.input_weights not in (None, input_weights):
        raise UserError(
            f"{sae} reads {found.hook_name}, which is in a model with {found.input_weights} input weights",
            f"use {{input_weights}}={found.input_weights}",
        )
    if found.scale_by_mean_norm:
        raise UserError(
            f"{sae} expects inputs of mean length sqrt(d_in) and does not say by which factor; fold it in with "
            "nejax.models.sae.architectures.fold_scale and save the SAE again"
        )
    fingerprint = hashlib.blake2b(f"{loaded.fingerprint} {found.fingerprint}".encode(), digest_size=16).hexdigest()
    model = LatentsModel(loaded.model, site, found.sae, centred=found.centred)
    return loaded._replace(model=model, name=f"{loaded.name}, latents of {sae}", fingerprint=fingerprint)
