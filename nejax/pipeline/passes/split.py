"""Split every neuron of a layer into its features, see `nejax.neuron.split`."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Float, UInt32

from nejax.errors import SettingError, UserError
from nejax.neuron._kernels.one_kernel import layer_program, loops_are_kernels
from nejax.neuron.split import Split, calibrated_height, split
from nejax.pipeline.run.constants import CHUNK_MIB
from nejax.pipeline.run.devices import fetch, fill_up, mesh_or_all, place, up_to_devices
from nejax.pipeline.run.settings import Clustering
from nejax.pipeline.run.spread import in_chunks, over_devices


def check_reference(reference: np.ndarray | Array) -> None:
    """Refuse a corpus that leaves nothing to calibrate cut heights by.

    Raises:
        UserError: fewer than two inputs have no distance.
    """
    if len(reference) < 2:
        raise UserError(
            f"the cut height cannot be calibrated: the corpus has {len(reference)} positions that can be a peak, "
            "expected at least 2",
            "use a longer corpus, or give {height}",
        )


class LayerClusterer:
    """Splits all neurons of a layer, a chunk at a time, spread over devices; one compilation serves all layers.

    Args:
        n_inputs: most distinct inputs any layer has: shorter ones are padded to it.
        n_examples: examples a neuron.
        d_model: width of the inputs.
        clustering: the method, and its settings. A height of None is calibrated for each neuron.
        seed: for methods that start at random.
        chunk_mib: bound on the memory, in MiB, that the neurons of one chunk take on all devices together, beside the
            layer's inputs and weights. Does not change the result.
        mesh: the devices, see `nejax.pipeline.run.devices.mesh_of`; all of them, if None.

    Raises:
        UserError: a setting is out of range.
    """

    def __init__(
        self,
        *,
        n_inputs: int,
        n_examples: int,
        d_model: int,
        clustering: Clustering,
        seed: int = 0,
        chunk_mib: int = CHUNK_MIB,
        mesh: Mesh | None = None,
    ):
        clustering.check(n_examples)
        if chunk_mib < 1:
            raise SettingError("chunk_mib", chunk_mib, "at least 1")
        self.n_inputs, self.key, self.mesh = n_inputs, jax.random.key(seed), mesh_or_all(mesh)
        # Accelerators hold the matrices of a whole chunk at once; a CPU those of a few neurons, and their results.
        per_neuron = 4 * n_examples * (3 * d_model + 4 * n_examples)
        side_by_side = max(1, chunk_mib * 2**20 // per_neuron // self.mesh.size)
        self.chunk = min(1024, side_by_side) * self.mesh.size
        self._split = jax.jit(over_devices(partial(_split_neurons, clustering=clustering), self.mesh))

    def __call__(
        self, inputs: np.ndarray, input_of: np.ndarray, reference: np.ndarray, w_in: np.ndarray | Array, layer: int = 0
    ) -> tuple[Split, np.ndarray]:
        """Split a layer.

        Args:
            inputs: [n_distinct, d_model] float32.
            input_of: [n_neurons, n_examples] int32, rows of `inputs`; -1 where empty.
            reference: [n_reference, d_model] float32.
            w_in: [d_model, n_neurons].
            layer: which one: neurons of different layers start at random differently.

        Returns:
            What was found, as NumPy arrays with a leading neuron axis (`directions` left empty: [n_neurons, 0, 0]),
            and the directions of the features there are: [n_features, d_model] float32, neuron by neuron.
        """
        n_neurons = len(input_of)
        w = np.asarray(w_in).astype(np.float32).T
        of_layer = jax.random.key_data(jax.random.fold_in(self.key, layer))
        for_all = place((fill_up(inputs, self.n_inputs), reference, of_layer), self.mesh)
        n_chunks = -(-n_neurons // self.chunk)
        # chunks of about one size need the fewest rows to fill the last one up
        size = up_to_devices(-(-n_neurons // n_chunks), self.mesh)
        parts, directions = [], []
        number = np.arange(n_neurons, dtype=np.int32)
        for rows, of_neurons in in_chunks((input_of, w, number), size, self.mesh, fill=-1):
            n = rows.stop - rows.start
            found = jax.tree.map(lambda leaf: leaf[:n], fetch(self._split(for_all, of_neurons)))  # noqa: B023
            directions.append(found.directions[found.central >= 0])
            parts.append(found._replace(directions=found.directions[:, :0, :0]))
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts), np.concatenate(directions)


@layer_program
def _split_neurons(
    for_all: tuple[Float[Array, "n_inputs d_model"], Float[Array, "n_reference d_model"], UInt32[Array, " key"]],
    of_neurons: list[Array],
    *,
    clustering: Clustering,
) -> Split:
    """Split some neurons, each with its own rows of the inputs, its own weights, and its own random key.

    Args:
        for_all: inputs, inputs at random positions, and the layer's key.
        of_neurons: rows of the inputs [chunk, n_examples], weights [chunk, d_model] and numbers [chunk].
        clustering: the method.
    """
    (inputs, reference, of_layer), (rows, w, number) = for_all, of_neurons
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.wrap_key_data(of_layer), number)

    def of_neuron(neuron: tuple[Array, Array, Array]) -> Split:
        rows, w, key = neuron
        height = clustering.height
        if clustering.has_height and height is None:
            check_reference(reference)
            height = calibrated_height(reference, w)
        return split(inputs[jnp.maximum(rows, 0)], w, height, mask=rows >= 0, key=key, **clustering.options())

    # A CPU core keeps the matrices of one neuron in its cache; accelerators want all side by side.
    return lax.map(of_neuron, (rows, w, keys), batch_size=None if loops_are_kernels() else len(rows))
