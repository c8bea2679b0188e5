"""The rows of an atlas's tables as they are read: each column once, with its type and its meaning.

`Neuron`, `Feature` and `Example` have these fields, and so have the explorer's JSON and its description: a field that
is added here is in all of them. A field is the column of its name; what its type does not say stands beside it, in
`Annotated`: keywords of JSON Schema, `Stored`, or `PYTHON_ONLY`.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Annotated, Any, NamedTuple, TypeVar, get_args, get_origin

Count = Annotated[int, {"minimum": 0}]
Positive = Annotated[int, {"minimum": 1}]
Maybe = Annotated[float, {"type": ["number", "null"]}]
"""NaN where a value has nothing behind it: NULL in the table, null in JSON."""
MaybeShare = Annotated[Maybe, {"minimum": 0, "maximum": 1}]
Counted = list[tuple[str, int]]
"""Texts and how often each is there; JSON in the table."""


class Stored(NamedTuple):
    """Where a field is not the column of its name."""

    sql: str


PYTHON_ONLY = object()
"""Of a field that the explorer's JSON leaves out."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class NeuronRow:
    """A neuron's row: its measures. Measures without data are NaN."""

    layer: Count
    index: Annotated[Count, Stored("neuron")]
    """In its layer; with two sides, that of the unit: a negative side's is `number` + `d_mlp` / 2."""
    n_examples: Count
    """0: the neuron is dead, it never fires in this corpus."""
    n_features: Count
    repeats_left_out: Count
    """Near-duplicates that were left out: of its kept sequences, those strong enough to be examples that have the same
    tokens up to the peak as `max_repeats` stronger ones."""
    max_activation: Maybe
    """Over the corpus, also where the neuron is dead."""
    lowest_activation: Maybe
    """Among the tokens of its histogram."""
    firing_rate: Maybe
    """Share of the corpus's tokens at which the activation is above 0."""
    mean: Maybe
    """Of the activation over the corpus."""
    variance: Maybe
    """Of the activation over the corpus."""
    skewness: Maybe
    """Of the activation over the corpus."""
    kurtosis: Maybe
    """Of the activation over the corpus; 3 for a normal distribution."""
    max_distance: Maybe
    """The largest cosine distance of all pairs of examples."""
    mean_distance: Maybe
    """Mean cosine distance of all pairs of examples: how polysemantic the neuron is."""
    intra_cluster_distance: Maybe
    """Mean over all pairs in the same feature."""
    inter_cluster_distance: Maybe
    """Mean over all pairs in different features."""
    silhouette: Maybe
    """Mean silhouette of the examples: near 1, features are far apart; NaN where that is not defined."""
    coordinates_share: Maybe
    """Of the variance of its embeddings at length 1, the part that the examples' coordinates show."""
    corpus_mean_distance: Maybe
    """Mean cosine distance over all pairs of the census's tokens at which it fires; NaN without a census."""
    coverage: Maybe
    """Share of its positive activation in the census that its features explain; NaN without a census."""
    height: Maybe
    """Distance at which the examples were cut into features; NaN after k-means or spectral clustering."""
    n_merges: Count
    """How many of the linkage's merges are real."""
    first_example: Count
    """Id of its strongest example in the atlas's tables."""
    first_feature: Count
    """Id of its largest feature in the atlas's tables."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class FeatureRow:
    """A feature's row."""

    index: Annotated[Count, Stored("feature"), PYTHON_ONLY]
    """In its neuron: 0 is the largest feature."""
    n_examples: Positive
    cohesion: Maybe
    """Mean over its examples of their mean cosine similarity to the others; NaN for one example."""
    max_activation: float
    """Of its strongest example."""
    frequency: Annotated[MaybeShare, {"description": "Of the census's tokens, those that excite it."}]
    """Share of the census's tokens at which the neuron fires and the input is this feature's; NaN without a census."""
    coverage: Annotated[MaybeShare, {"description": "Of the neuron's activation in the census, what is there."}]
    """Share of the neuron's positive activation in the census that is at these tokens; NaN without a census."""
    min_similarity: Annotated[Maybe, PYTHON_ONLY]
    """Cosine with `direction` from which on an input is this feature's, see `nejax.assign`."""
    peak_tokens: Annotated[
        Counted, {"items": {"$ref": "#/components/schemas/PeakToken"}, "description": "The most frequent first."}
    ]
    """The most frequent texts of its peaks and how many examples have them, at most 5."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ExampleRow:
    """An example's row."""

    sequence: Count
    """Number of the sequence in the corpus."""
    position: Annotated[Count, {"description": "Of the peak in the sequence."}]
    """Of the peak in the sequence; position 0 is the BOS token."""
    activation: float
    """At the peak; of a neuron's negative side, that of the neuron times -1, like `activations`."""
    feature: Annotated[Count, Stored("feature_id - first_feature")]
    """Index of the feature it belongs to."""
    cohesion: Maybe
    """Mean cosine similarity of its embedding to the others of its feature; NaN where there are none."""


Row = TypeVar("Row")

TABLES: dict[type, str] = {
    NeuronRow: "neurons",
    FeatureRow: "features",
    ExampleRow: "examples AS e JOIN neurons AS n ON n.id = e.neuron_id",
}
"""What each type of row is read from."""

_JSON_TYPES = {int: "integer", float: "number", list: "array"}


class Column(NamedTuple):
    """A field of a row."""

    name: str
    sql: str
    """What it is in a query."""
    type: type
    """int, float or list."""
    schema: dict[str, Any]
    """Of its value in the explorer's JSON, as JSON Schema."""
    in_explorer: bool


@cache
def columns_of(row: type) -> dict[str, Column]:
    """The columns of a type of row, by name."""
    return {field.name: _column(field.name, field.type) for field in dataclasses.fields(row)}


@cache
def json_columns(row: type) -> dict[str, type]:
    """The types of the columns of a type of row that the explorer's JSON has, by name."""
    return {column.name: column.type for column in columns_of(row).values() if column.in_explorer}


def select(row: type[Row], *names: str) -> str:
    """The beginning of a query for rows of a type, or for some of their columns: "SELECT ... FROM ..."."""
    columns = columns_of(row)
    return f"SELECT {', '.join(columns[name].sql for name in names or columns)} FROM {TABLES[row]}"


def rows_of(row: type[Row], found: Sequence[Iterable[Any]]) -> list[Row]:
    """The result of a query that begins with `select(row)`."""
    columns = columns_of(row).values()
    values = [_read(column, stored) for column, stored in zip(columns, zip(*found, strict=True), strict=bool(found))]
    make: Callable[..., Row] = row
    return [make(*own) for own in zip(*values, strict=True)]


def _read(column: Column, stored: Sequence[Any]) -> Sequence[Any]:
    """A column's values in Python."""
    if column.type is float:
        return [math.nan if value is None else value for value in stored]
    if column.type is list:
        return [[(text, count) for text, count in json.loads(value)] for value in stored]
    return stored


def _column(name: str, annotated: Any) -> Column:
    plain, *notes = get_args(annotated) if get_origin(annotated) is Annotated else (annotated,)
    of_type = get_origin(plain) or plain
    schema = {"type": _JSON_TYPES[of_type]}
    for note in notes:
        schema |= note if isinstance(note, dict) else {}
    sql = next((note.sql for note in notes if isinstance(note, Stored)), name)
    return Column(name, sql, of_type, schema, in_explorer=PYTHON_ONLY not in notes)
