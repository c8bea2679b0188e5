"""The description of the explorer's JSON, as OpenAPI 3.1: every route, and the shape and range of every answer."""

from typing import Any

from nejax.atlas.explorer.shards import BLOCK, PAGE, PEAKS_PAGE, VERSION, Shards
from nejax.atlas.rows import ExampleRow, FeatureRow, NeuronRow, columns_of, json_columns
from nejax.atlas.search import LONGEST_QUERY

MOST_OFFSET = 999_999_999
"""The largest offset of a search."""

Schema = dict[str, Any]

_SIDES = (
    "Of a neuron. 2: of a layer's d_mlp units, which are the neurons here, the first half are positive sides; unit "
    "j + d_mlp / 2 is the negative side of neuron j, whose activations are times -1."
)

_TEXT: Schema = {"type": "string"}
_NUMBER: Schema = {"type": "number"}
_MAYBE: Schema = {"type": ["number", "null"]}
_SHARE: Schema = {"type": "number", "minimum": 0, "maximum": 1}
_MAYBE_SHARE: Schema = {**_SHARE, "type": ["number", "null"]}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_POSITIVE: Schema = {"type": "integer", "minimum": 1}


def describe(shards: Shards) -> Schema:
    """What the server of an atlas answers under every address of JSON.

    Args:
        shards: of the atlas, for the ranges.
    """
    place = _Places(shards)
    data = f"/data/v{VERSION}"
    paths = {
        f"{data}/atlas.json": _route("The atlas as a whole", "Atlas"),
        f"{data}/columns/{{name}}.json": _route(
            "A measure of all neurons, by layer, then neuron",
            "Column",
            _in_path("name", {"type": "string", "enum": place.columns}),
        ),
        f"{data}/neurons/{{layer}}/{{neuron}}.json": _route(
            "A neuron, its features and their examples",
            "Neuron",
            _in_path("layer", place.layer),
            _in_path("neuron", place.neuron),
        ),
        f"{data}/sequences/{{block}}.json": _route(
            f"{BLOCK} sequences and the examples in them", "Sequences", _in_path("block", place.block)
        ),
        f"{data}/search": _route(
            "The sequences that hold a phrase, and the features that peak at a word",
            "Search",
            _in_query(
                "q",
                {"type": "string", "minLength": 1, "maxLength": LONGEST_QUERY},
                "Words that follow each other; a * at the end: the last is the beginning of a word.",
                required=True,
            ),
            _in_query("offset", {"type": "integer", "minimum": 0, "maximum": MOST_OFFSET}, "Sequences to pass over."),
            _in_query(
                "peaks_offset", {"type": "integer", "minimum": 0, "maximum": MOST_OFFSET}, "Features to pass over."
            ),
        ),
        "/openapi.json": _route("This description", "Description"),
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "nejax explorer",
            "version": str(VERSION),
            "description": "An atlas of neurons, their features and their examples. Everything is only read.",
        },
        "paths": paths,
        "components": {
            "schemas": {
                "Atlas": _atlas(place),
                "Column": {**_array(_MAYBE), "minItems": place.n_neurons, "maxItems": place.n_neurons},
                "Neuron": _neuron(place),
                "Feature": _feature(),
                "Example": _example(place),
                "Bands": _bands(),
                "Sequences": _sequences(place),
                "Search": _search(place),
                **_rows(place),
                "Description": _object({"openapi": _TEXT, "info": {}, "paths": {}, "components": {}}),
                "Error": _object({"error": _TEXT}),
            }
        },
    }


class _Places:
    """The ids and the measures that there are."""

    def __init__(self, shards: Shards):
        self.n_neurons = shards.n_layers * shards.d_mlp
        self.layer = _below(shards.n_layers)
        self.neuron = _below(shards.d_mlp)
        self.block = _below(shards.n_blocks)
        self.sequence = _below(shards.n_sequences)
        self.measures = {column.name: columns_of(NeuronRow)[column.name].schema for column in shards.columns}
        self.columns = list(self.measures)


def _atlas(place: _Places) -> Schema:
    column = {
        "name": {"enum": place.columns},
        "title": _TEXT,
        "help": _TEXT,
        "integer": {"type": "boolean"},
        "unit": {"enum": ["", "%"], "description": "%: a share from 0 to 1, to be shown times a hundred"},
    }
    return _object(
        {
            "version": {"const": VERSION},
            "fingerprint": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
            "compressed": {"type": "boolean", "description": "whether all other shards are NAME.json.gz"},
            "search": {"enum": ["server", "index"]},
            "model": _TEXT,
            "corpus": _TEXT,
            **dict.fromkeys(("n_layers", "d_mlp", "d_model", "n_neurons", "n_sequences", "seq_len"), _POSITIVE),
            **dict.fromkeys(("n_features", "n_examples", "window_before", "window_after", "n_similar"), _COUNT),
            "sides": {"enum": [1, 2], "description": _SIDES},
            "has_importance": {"type": "boolean"},
            "examples_per_feature": {"type": ["integer", "null"], "minimum": 1},
            "columns": _array(_object(column)),
            "left_out": _array(_TEXT, "What of the corpus is not in the atlas, one reason each."),
            "warnings": _array(_TEXT, "Where that is much."),
            "manifest": {"type": "object"},
        }
    )


def _neuron(place: _Places) -> Schema:
    return _object(
        {
            "layer": place.layer,
            "neuron": place.neuron,
            "measures": _object(place.measures),
            "features": _array(_reference("Feature"), "The largest first."),
            "tokens": _array(_reference("Token"), "The different ones in the examples' windows."),
            "activation_step": {"type": "number", "exclusiveMinimum": 0, "description": "What activations count."},
            "examples": _array(_reference("Example"), "The strongest first."),
            "merges": _array(_reference("Merge"), "Average linkage, n_examples - 1 rows."),
            "height": _MAYBE,
            "coordinates_share": _MAYBE,
            "histogram": _object({"low": _MAYBE, "high": _MAYBE, "counts": _array(_COUNT), "n_tokens": _COUNT}),
            "bands": {"anyOf": [{"type": "null"}, _reference("Bands")]},
            "sampled": {"anyOf": [{"type": "null"}, _reference("Range")]},
        }
    )


def _bands() -> Schema:
    edges = _array(_SHARE, "Of the bands of activation, ascending, as parts of the neuron's maximum.")
    return _object(
        {
            "edges": edges,
            "n_tokens": _array(_COUNT, "Tokens of the census whose activation is in each band."),
            "mean_distance": _array(_MAYBE, "Between their embeddings; null for fewer than two tokens."),
        }
    )


def _feature() -> Schema:
    return _object(
        {
            **_shown(FeatureRow),
            "central": {**_COUNT, "description": "Index of its central example in the neuron's."},
            "similar": _array(_reference("SimilarFeature"), "The most similar first."),
        }
    )


def _example(place: _Places) -> Schema:
    always = {
        **_shown(ExampleRow),
        "sequence": place.sequence,
        "document": _TEXT,
        "length": {**_POSITIVE, "description": "Tokens in the sequence."},
        "x": _MAYBE,
        "y": _MAYBE,
    }
    with_text = {
        "start": {**_COUNT, "description": "Position of the window's first token in the sequence."},
        "tokens": _array(_COUNT, "Indices into the neuron's tokens."),
        "activations": _array({"type": "integer"}, "Times activation_step: the activation at each token."),
    }
    importance = _array(_MAYBE_SHARE, "Of each token; null where it is not known. Only of examples it was measured in.")
    schema = _object({**always, **with_text, "importance": importance})
    dependent = {name: sorted({*with_text} - {name}) for name in (*with_text, "importance")}
    return {**schema, "required": list(always), "dependentRequired": dependent}


def _shown(row: type) -> Schema:
    """The columns of a type of row that are shown."""
    return {name: columns_of(row)[name].schema for name in json_columns(row)}


def _sequences(place: _Places) -> Schema:
    sequence = {
        "document": _TEXT,
        "offset": {**_COUNT, "description": "Tokens before it in its document."},
        "tokens": _array(_COUNT, "Indices into tokens."),
        "examples": _array(_reference("ExampleInSequence"), "By position."),
    }
    return _object(
        {
            "first": place.sequence,
            "tokens": _array(_reference("Token"), "The different ones in these sequences."),
            "sequences": {**_array(_object(sequence)), "minItems": 1, "maxItems": BLOCK},
        }
    )


def _search(place: _Places) -> Schema:
    return _object(
        {
            "query": _TEXT,
            "n_sequences": {**_COUNT, "description": "How many hold the phrase."},
            "sequences": {
                **_array(place.sequence, "From the offset on, those with the most peaks first."),
                "maxItems": PAGE,
            },
            "n_peaks": {**_COUNT, "description": "How many features have examples that peak inside it."},
            "peaks": {
                **_array(_reference("PeakMatch"), "From peaks_offset on, those with the most such examples first."),
                "maxItems": PEAKS_PAGE,
            },
        }
    )


def _rows(place: _Places) -> Schema:
    """Arrays whose places have meanings of their own."""
    similarity = {"type": "number", "minimum": -1, "maximum": 1}
    return {
        "Token": _row("Id and text. A character that straddles tokens is with its last one.", _COUNT, _TEXT),
        "PeakToken": _row("Text, and how many of the feature's examples peak there.", _TEXT, _POSITIVE),
        "Merge": _row(
            "Two clusters, their distance, examples in both. Example i is cluster i; row k makes n_examples + k.",
            *(_COUNT, _COUNT, _MAYBE, {"type": "integer", "minimum": 2}),
        ),
        "Range": _row("The lowest and the highest activation of the examples.", _NUMBER, _NUMBER),
        "SimilarFeature": _row(
            "Layer, neuron, feature, similarity, whether both have the same token as their central example.",
            *(place.layer, place.neuron, _COUNT, similarity, {"type": "boolean"}),
        ),
        "ExampleInSequence": _row(
            "Position, layer, neuron, feature, activation.", _COUNT, place.layer, place.neuron, _COUNT, _NUMBER
        ),
        "PeakMatch": _row(
            "Layer, neuron, feature, how many of its examples peak there, how many it has.",
            *(place.layer, place.neuron, _COUNT, _POSITIVE, _POSITIVE),
        ),
    }


def _route(summary: str, schema: str, *parameters: Schema) -> Schema:
    refusals = {
        "400": "Asked wrongly",
        "404": "There is no such thing",
        "405": "Only GET and HEAD",
        "414": "Too long an address",
    }
    responses = {
        "200": {"description": summary, "content": _content(schema)},
        "304": {"description": "As it was when its ETag was given out"},
        **{status: {"description": why, "content": _content("Error")} for status, why in refusals.items()},
        "500": {"description": "A file of the atlas is damaged", "content": _content("Error")},
    }
    return {"get": {"summary": summary, "parameters": list(parameters), "responses": responses}}


def _content(schema: str) -> Schema:
    return {"application/json": {"schema": _reference(schema)}}


def _in_path(name: str, schema: Schema) -> Schema:
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _in_query(name: str, schema: Schema, description: str, *, required: bool = False) -> Schema:
    return {"name": name, "in": "query", "required": required, "description": description, "schema": schema}


def _reference(schema: str) -> Schema:
    return {"$ref": f"#/components/schemas/{schema}"}


def _object(properties: Schema) -> Schema:
    """All properties and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _array(items: Schema, description: str | None = None) -> Schema:
    return {"type": "array", "items": items, **({"description": description} if description else {})}


def _row(description: str, *columns: Schema) -> Schema:
    """An array of a fixed length."""
    n = len(columns)
    return {
        "type": "array",
        "description": description,
        "prefixItems": list(columns),
        "minItems": n,
        "maxItems": n,
    }


def _below(n: int) -> Schema:
    return {"type": "integer", "minimum": 0, "maximum": n - 1}
