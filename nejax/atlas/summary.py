"""The summary of a finished atlas, for readers."""

from shlex import quote
from textwrap import fill, indent
from typing import Any

import numpy as np

from nejax.atlas.atlas import Atlas
from nejax.atlas.entries import Feature, beginning, counted, ending
from nejax.atlas.neuron import Neuron
from nejax.atlas.units import NEGATIVE
from nejax.pipeline.corpus.left_out import left_out, told
from nejax.pipeline.run.constants import CONTEXT
from nejax.pipeline.run.folders import DEMO

MIN_EXAMPLES, MIN_IN_FEATURE = 20, 3
"""Only neurons with so many examples are ranked, and the most polysemantic must have two features of so many."""

N_RANKED, N_SPELLED, N_SNIPPETS = 5, 3, 3
"""How many neurons are listed, how many of them with text, and with how many snippets a feature."""

_WIDTH, _BEFORE = 100, 42
"""Columns of the terminal, and of those for the text before a peak."""

_INDENT = " " * 12
"""Before what belongs to the line above."""

Table = dict[str, np.ndarray]


def summarize(atlas: Atlas) -> str:
    """Describe an atlas in text for a terminal of 100 columns.

    Its model and corpus, its layers, its most and least polysemantic neurons with examples of their features, its
    files, and commands for what to do next.
    """
    neurons, features = atlas.neurons_table(), atlas.features_table()
    floor = f"of the {_unit(atlas)}s with {_floor(atlas)} examples or more"
    most, least = most_polysemantic(atlas), _least_polysemantic(atlas, neurons)
    return "\n\n".join(
        [
            _overview(atlas, neurons, features),
            _layers(atlas, neurons),
            _listing(
                f"Most polysemantic: highest mean distance between examples, {floor}\n"
                f"and two features of {MIN_IN_FEATURE} or more",
                most,
            ),
            _listing(f"Least polysemantic: lowest mean distance between examples, {floor}", least),
            _files(atlas, (most + least)[:1]),
        ]
    )


def _overview(atlas: Atlas, neurons: Table, features: Table) -> str:
    settings, stages = atlas.manifest["settings"], atlas.manifest["stages"]
    alive = neurons["n_examples"] > 0
    n_dead = f"{(~alive).sum():,}" if (~alive).any() else "none"
    of_sae = f", latents of {settings['sae']}" if settings.get("sae") else ""
    large, unit = int((features["n_examples"] >= MIN_IN_FEATURE).sum()), _unit(atlas)
    corpus = left_out(stages["tokens"])
    lines = {
        "model": f"{settings['model']} ({settings['input_weights']} input weights, {settings['precision']}){of_sae}: "
        f"{counted(atlas.n_layers, 'layer')} of {_neurons_a_layer(atlas)}",
        "corpus": f"{settings['corpus']}: {counted(stages['tokens']['tokens'], 'token')} in "
        f"{counted(atlas.n_sequences, 'sequence')} from {counted(stages['tokens']['documents_read'], 'document')}"
        + "".join(f"\n{_INDENT}{beginning(line, _WIDTH - len(_INDENT))}" for line in told(corpus)),
        "neurons": f"{_counted_as(atlas)}{n_dead} of them dead (never firing in this corpus)",
        "examples": f"{neurons['n_examples'].sum():,}, median {_median(neurons['n_examples'][alive], '.0f')} a {unit}",
        "left out": _left_out(atlas, neurons),
        "features": f"{len(features['id']):,}, median {_median(neurons['n_features'][alive], '.0f')} a {unit}; "
        f"{large:,} of them have at least {MIN_IN_FEATURE} examples",
        "clusters": _clustering(settings, neurons["height"][alive]),
        "quality": f"silhouette {_median(neurons['silhouette'][alive])} (median of the {unit}s with several features)",
    }
    if settings["importance"]:
        lines["causes"] = _causes(settings, stages["importance"])
    if settings["census"]:
        lines["census"] = _census(stages["census"], neurons, features)
    if "passport" in stages:
        lines["numbers"] = _numbers(stages["passport"]["layers"])
    return "Atlas\n" + "\n".join(f"  {name:<9} {line}" for name, line in lines.items())


def _unit(atlas: Atlas) -> str:
    """What is counted: neurons, or their sides."""
    return "neuron" if atlas.sides == 1 else "side"


def _neurons_a_layer(atlas: Atlas) -> str:
    if atlas.sides == 1:
        return counted(atlas.d_mlp, "neuron")
    return f"{counted(atlas.units.n_neurons, 'gated neuron')}, each with a positive and a negative side"


def _counted_as(atlas: Atlas) -> str:
    if atlas.sides == 1:
        return f"{atlas.n_neurons:,}, "
    return f"{atlas.n_neurons // 2:,}, counted as {atlas.n_neurons:,} sides, "


def _left_out(atlas: Atlas, neurons: Table) -> str:
    """How many near-duplicates there were among the neurons' examples."""
    left, most = neurons["repeats_left_out"], atlas.manifest["settings"]["max_repeats"]
    where = f", in {counted(int((left > 0).sum()), _unit(atlas))}" if left.any() else ""
    found = counted(int(left.sum()), "near-duplicate")
    return f"{found}{where}: at most {most} may have the same {CONTEXT} tokens up to the peak"


def _causes(settings: dict[str, Any], facts: dict[str, Any]) -> str:
    """Which examples have token importance, and how well other ways to ablate a token agree."""
    own = settings["importance_by"]
    others = {pair: found for pair, found in facts["agreement"].items() if own in pair.split(", ")}
    agreed = ", ".join(
        f"{' '.join(pair.replace(own, '').split(', ')).strip()} {found['same_token']:.0%}"
        for pair, found in others.items()
        if found["same_token"] is not None
    )
    return (
        f"importance of {settings['importance_window']} tokens in {counted(facts['examples'], 'example')}, by {own}; "
        f"the most important is the same by {agreed or 'no other way'}"
    )


def _census(facts: dict[str, Any], neurons: Table, features: Table) -> str:
    """How much of the neurons' activation the features explain."""
    usual = float(np.nanmedian(features["frequency"]))
    often = f", a feature comes once in {1 / usual:,.0f} tokens" if usual else ""
    explained = _median(neurons["coverage"], ".0%")
    return (
        f"{counted(facts['tokens'], 'token')}: features explain {explained} of a neuron's activation{often} (medians)"
    )


def _numbers(layers: list[dict[str, float]]) -> str:
    """How far they are from float32's."""
    worst = {
        kind: max(layer[f"{kind}_difference"] / max(layer[kind], 1e-30) for layer in layers)
        for kind in ("mlp_input", "activation")
    }
    if not any(worst.values()):
        return "MLP inputs and activations equal to float32's to the last bit, in a sample"
    inputs, activations = (f"{value:.0e}" for value in worst.values())
    return f"within {inputs} (MLP inputs) and {activations} (activations) of float32's, as parts of the largest"


def _clustering(settings: dict[str, Any], heights: np.ndarray) -> str:
    """How the features were found."""
    method = settings["clustering"]
    if method in ("average", "components"):
        name = {"average": "average linkage", "components": "connected components"}[method]
        origin = "as set" if settings["height"] else "calibrated for each neuron"
        return f"{name} cut at a cosine distance of {_median(heights)} (median), {origin}"
    name = {"kmeans": "spherical k-means", "spectral": "spectral clustering"}[method]
    chosen = "silhouette" if method == "kmeans" else "eigengap"
    number = settings["n_clusters"] or f"their number chosen by {chosen}, at most {settings['max_clusters']}"
    return f"{name}: {number}"


def _layers(atlas: Atlas, neurons: Table) -> str:
    """A table with a line a layer."""
    head = "  layer    dead  examples  features  mean distance  within  between features  height  fires at"
    lines = [f"Layers (medians over the {_unit(atlas)}s that are not dead)", head]
    for layer in range(atlas.n_layers):
        here = neurons["layer"] == layer
        alive = {name: column[here & (neurons["n_examples"] > 0)] for name, column in neurons.items()}
        lines.append(
            f"{layer:>7}{(here.sum() - len(alive['id'])):>8,}"
            f"{_median(alive['n_examples'], '.0f'):>10}{_median(alive['n_features'], '.0f'):>10}"
            f"{_median(alive['mean_distance']):>15}{_median(alive['intra_cluster_distance']):>8}"
            f"{_median(alive['inter_cluster_distance']):>18}{_median(alive['height']):>8}"
            f"{_median(alive['firing_rate'], '.1%'):>10}"
        )
    return "\n".join(lines)


def most_polysemantic(atlas: Atlas) -> list[Neuron]:
    """The five neurons with the highest mean distance between examples, of those that have enough."""
    neurons, features = atlas.neurons_table(), atlas.features_table()
    large = features["neuron_id"][features["n_examples"] >= MIN_IN_FEATURE]
    has_two = np.bincount(large, minlength=atlas.n_neurons) >= 2
    return _first(atlas, -neurons["mean_distance"], (neurons["n_examples"] >= _floor(atlas)) & has_two)


def _least_polysemantic(atlas: Atlas, neurons: Table) -> list[Neuron]:
    """Those with the lowest mean distance between examples."""
    return _first(atlas, neurons["mean_distance"], neurons["n_examples"] >= _floor(atlas))


def _first(atlas: Atlas, values: np.ndarray, candidate: np.ndarray) -> list[Neuron]:
    """The candidates with the lowest values."""
    ids = np.flatnonzero(candidate)
    ids = ids[np.argsort(values[ids], kind="stable")][:N_RANKED]
    return [atlas.neuron(*divmod(int(neuron_id), atlas.d_mlp)) for neuron_id in ids]


def _floor(atlas: Atlas) -> int:
    """Fewest examples of a neuron that is ranked; fewer than usual in an atlas of few examples a neuron."""
    return max(2, min(MIN_EXAMPLES, atlas.manifest["settings"]["examples"] // 2))


def _listing(title: str, neurons: list[Neuron]) -> str:
    """Neurons with a line each, the first ones with text of their two largest features."""
    blocks = [[_headline(neuron)] for neuron in neurons]
    for block, neuron in zip(blocks[:N_SPELLED], neurons, strict=False):
        block += [line for feature in neuron.features[:2] for line in _spelled(feature)]
    spelled = ["\n".join(block) for block in blocks[:N_SPELLED]]
    rest = "\n".join(line for block in blocks[N_SPELLED:] for line in block)
    return "\n\n".join([title, *spelled, *([rest] if rest else [])] if blocks else [title, "  none"])


def _headline(neuron: Neuron) -> str:
    return (
        f"  {neuron.name}: mean distance {neuron.mean_distance:.2f}, "
        f"{counted(neuron.n_examples, 'example')} in {counted(neuron.n_features, 'feature')}"
    )


def _spelled(feature: Feature) -> list[str]:
    """A feature's central example and its strongest, no text twice, one below the other by their peaks."""
    candidates = [example.around_peak() for example in (feature.central, *feature.examples)]
    name, lines = f"feature {feature.index} ({feature.n_examples})", []
    for before, peak, after in list(dict.fromkeys(candidates))[:N_SNIPPETS]:
        line = f"    {name:<17} {ending(before, _BEFORE):>{_BEFORE}}[[{peak}]]{after}"
        lines.append(beginning(line.rstrip(), _WIDTH))
        name = ""
    return lines


def _files(atlas: Atlas, interesting: list[Neuron]) -> str:
    """Where everything is, and what to do with it."""
    place = ", ".join(map(str, _place(interesting[0]) if interesting else (0, 0)))
    files = sorted(atlas.path.iterdir())
    size = sum(file.stat().st_size for file in atlas.path.rglob("*") if file.is_file())
    return "\n".join(
        [
            f"Files in {atlas.path} ({size / 1e6:,.1f} MB)",
            indent(fill(", ".join(file.name for file in files), _WIDTH - 2), "  "),
            "",
            "Next, in a browser",
            f"  {_explore(atlas)}",
            "",
            "Next, in Python",
            "  import nejax, pandas",
            f"  atlas = nejax.open_atlas({str(atlas.path)!r})",
            f"  print(atlas.neuron({place}))",
            "  pandas.DataFrame(atlas.neurons_table()).sort_values('mean_distance')",
        ]
    )


def _explore(atlas: Atlas) -> str:
    """The command that shows it."""
    if atlas.path.absolute().parent == DEMO.absolute():
        return "make explore"
    return f"python experiments/explore.py --atlas={quote(str(atlas.path))}"


def _place(neuron: Neuron) -> tuple[int | str, ...]:
    """What `Atlas.neuron` is asked for."""
    return neuron.layer, neuron.number, *([repr(NEGATIVE)] if neuron.side == NEGATIVE else [])


def _median(values: np.ndarray, form: str = ".2f") -> str:
    values = values[~np.isnan(values)]
    return format(float(np.median(values)), form) if len(values) else "-"
