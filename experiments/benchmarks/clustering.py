"""nejax's clusterings beside SciPy, scikit-learn and OTT-JAX, on the same neurons in the same process."""

import importlib
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from scipy.cluster.hierarchy import linkage
from scipy.sparse.csgraph import connected_components as scipy_components
from scipy.spatial.distance import pdist, squareform
from threadpoolctl import threadpool_limits

import nejax
from benchmarks.planted import D, K, Neurons, everything, spread
from benchmarks.subject_flags import FLAGS
from benchmarks.timing import Contender, Figures, product_contender, product_flops, race
from nejax.errors import UserError
from nejax.neuron.clustering.spectral import affinity
from nejax.pipeline.run.devices import AXIS, mesh_of, n_cores

HEIGHT, RESTARTS = 0.5, 10
N_PEER, N_SLOW_PEER = 256, 16
KMEANS, SPECTRAL = f"k-means, k = {K}, {RESTARTS} starts", f"spectral, k = {K}, {RESTARTS} starts"
FROM_DISTANCES: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "average linkage": lambda d, key: nejax.average_linkage(d).merges,
    "connected components": lambda d, key: nejax.connected_components(d, HEIGHT),
    KMEANS: lambda d, key: nejax.kmeans_from_distances(d, K, key=key, n_restarts=RESTARTS).labels,
    SPECTRAL: lambda d, key: nejax.spectral(d, K, key=key, n_restarts=RESTARTS).labels,
}


def measure(repeats: int) -> Iterator[list[Figures]]:
    """Every method at every size; yields the figures of one method and size together."""
    if importlib.util.find_spec("sklearn") is None:
        raise UserError("scikit-learn is not installed; the peers come with: pip install -e '.[benchmark]'")
    for what, function in FROM_DISTANCES.items():  # first: their peak memory must be their own
        yield [everything(what, function, FLAGS.n_all_examples, FLAGS.n_all)]
    for n in map(int, FLAGS.n_examples):
        yield from _sizes(n, [int(size) for size in FLAGS.n_neurons], repeats)


def _sizes(n: int, sizes: list[int], repeats: int) -> Iterator[list[Figures]]:
    """All methods with `n` examples a neuron."""
    from sklearn.cluster import AgglomerativeClustering, KMeans, SpectralClustering  # other subjects do without it

    most = max(*sizes, N_PEER)
    neurons = Neurons(n, most)
    over = NamedSharding(mesh_of(), PartitionSpec(AXIS))
    x_all = neurons.inputs[neurons.rows]
    keys = jax.random.split(jax.random.key(0), most)
    make = spread(nejax.embedding_distances, most)
    d_all = make(x_all, neurons.w)
    embeddings = x_all[:N_PEER] * neurons.w[:N_PEER, None]
    d_peer = np.asarray(d_all[:N_PEER], np.float64)
    condensed = [squareform(d, checks=False) for d in d_peer]
    similar = [np.asarray(affinity(d)) for d in np.asarray(d_all[:N_SLOW_PEER])]

    def ours(function: Callable, *args: np.ndarray | jax.Array, name: str = "nejax") -> list[Contender]:
        made = []
        for size in sizes:
            some = [arg[:size] for arg in args]
            if size % jax.device_count() == 0:
                some = [jax.device_put(arg, over) for arg in some]
            run = spread(function, size)
            made.append(Contender(name, lambda run=run, some=some: run(*some), size))
        return made

    def peer(by: str, each: Callable, problems: list | np.ndarray) -> Contender:
        def run() -> None:
            with threadpool_limits(n_cores(), user_api="blas"):  # nejax has its cores as devices, peers as threads
                for problem in problems:
                    each(problem)

        return Contender(by, run, len(problems))

    product = product_contender()
    figures = race(
        "distances",
        n,
        [
            product,
            *ours(nejax.embedding_distances, x_all, neurons.w),
            peer("SciPy pdist", lambda e: pdist(e, "cosine"), embeddings),
        ],
        repeats,
    )
    rate = product_flops() / figures[0].us_per_neuron / 1e3
    flops = 2 * n * n * D
    shares = [
        f"{flops / f.us_per_neuron / 1e3:.0f} GFLOP/s, {flops / f.us_per_neuron / 1e3 / rate:.2f}" for f in figures
    ]
    notes = [f"{rate:.0f} GFLOP/s", *shares[1:]]
    yield [f._replace(note=note) for f, note in zip(figures, notes, strict=True)]

    to_height: dict[str, Any] = {"n_clusters": None, "distance_threshold": HEIGHT}
    tree = AgglomerativeClustering(metric="precomputed", linkage="average", **to_height)

    def race_of(what: str, *peers: Contender, others: Sequence[Contender] = ()) -> list[Figures]:
        return race(what, n, [*others, *ours(FROM_DISTANCES[what], d_all, keys, name="nejax"), *peers], repeats)

    yield race_of(
        "average linkage",
        peer("SciPy linkage", lambda d: linkage(d, "average"), condensed),
        peer("scikit-learn", tree.fit, d_peer),
    )
    yield race_of("connected components", peer("SciPy", lambda d: scipy_components(d <= HEIGHT), d_peer))

    def kmeans(x: jax.Array, w: jax.Array, key: jax.Array) -> jax.Array:
        return nejax.kmeans(nejax.neuron_embeddings(x, w), K, key=key, n_restarts=RESTARTS).labels

    starts: dict[str, Any] = {"n_init": RESTARTS}
    few = embeddings[:N_SLOW_PEER]
    yield race_of(
        KMEANS,
        peer("scikit-learn", KMeans(K, **starts).fit, few),
        *_ott(few),
        others=ours(kmeans, x_all, neurons.w, keys, name="nejax, from embeddings"),
    )
    yield race_of(
        SPECTRAL, peer("scikit-learn", SpectralClustering(K, n_init=RESTARTS, affinity="precomputed").fit, similar)
    )


def _ott(embeddings: np.ndarray) -> list[Contender]:
    """OTT-JAX's k-means, all neurons in one call, if it is installed."""
    if importlib.util.find_spec("ott") is None:
        return []
    k_means = importlib.import_module("ott.tools.k_means").k_means
    run = jax.jit(jax.vmap(lambda x, key: k_means(x, K, n_init=RESTARTS, rng=key).assignment))
    keys = jax.random.split(jax.random.key(0), len(embeddings))
    return [Contender("OTT-JAX", lambda: run(embeddings, keys), len(embeddings))]
