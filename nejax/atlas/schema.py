"""The files of an atlas: what they are called, and what the tables and arrays in them hold."""

FORMAT = 5
"""Version of the layout of an atlas."""

FOLDER = "atlas"
"""What an atlas's folder is called in its run directory."""

DATABASE, TOKENIZER = "atlas.sqlite", "tokenizer"
"""The names of the database, and of the folder of the tokenizer."""

ARRAYS = {
    "tokens": "[n_sequences, seq_len], the smallest unsigned type: token ids, padded behind a sequence's length",
    "sequences": "[n_sequences, 3] int32: length, document, offset of the first token in its document's tokens",
    "window": "[n_examples, before + 1 + after] float16: activations around the peak, NaN outside the sequence",
    "directions": "[n_features, d_model] float16: unit mean embedding of the feature",
    "merges": "[n_neurons, examples - 1, 4] float32: a neuron's dendrogram; leaf i is its i-th example",
    "coordinates": "[n_examples, 2] float16: principal coordinates of the example's embedding among its neuron's",
    "histogram": "[n_neurons, n_bins] uint32: sampled tokens by activation, equal bins, lowest to highest activation",
    "similar": "[n_features, n_similar] int32: the features of other neurons most like it, -1 where there are no more",
    "similarity": "[n_features, n_similar] float16: theirs, a cosine, descending; NaN where there are no more",
    "importance": "[n_examples, window + 1] float16: of tokens before the peak and, last, of its own; NaN: not known",
    "bands": "[n_neurons, n_bands] float32: mean distance between the tokens at which its activation is in a band",
    "band_counts": "[n_neurons, n_bands] uint32: how many tokens these are",
    "peak_places": "[n_peaks] int64, ascending: the place of a term at which an example peaks, see `word_index`",
    "peak_features": "[n_peaks] int32: the example's feature",
}
"""The arrays, each a file `NAME.npy` whose rows go by the ids of sequences, examples, features and neurons."""

SCHEMA = (
    """CREATE TABLE meta (
      key TEXT PRIMARY KEY,
      value TEXT NOT NULL              -- JSON
    )""",
    """CREATE TABLE documents (
      id INTEGER PRIMARY KEY,
      name TEXT NOT NULL
    )""",
    """CREATE TABLE neurons (
      id INTEGER PRIMARY KEY,          -- layer * d_mlp + neuron
      layer INTEGER NOT NULL,
      neuron INTEGER NOT NULL,         -- index of the unit in the layer, see below
      n_examples INTEGER NOT NULL,     -- 0: a dead neuron
      n_features INTEGER NOT NULL,
      repeats_left_out INTEGER NOT NULL, -- near-duplicates of its examples that were left out
      max_activation REAL,             -- over the corpus: the right edge of the histogram's last bin
      lowest_activation REAL,          -- among the sampled tokens: the left edge of the histogram's first bin
      firing_rate REAL,                -- share of the tokens at which the activation is above 0
      mean REAL,                       -- of the activation over the corpus, like the next three
      variance REAL,
      skewness REAL,
      kurtosis REAL,                   -- 3 for a normal distribution
      max_distance REAL,               -- over pairs of examples, like the next three: cosine distances
      mean_distance REAL,
      intra_cluster_distance REAL,
      inter_cluster_distance REAL,
      silhouette REAL,                 -- mean over its examples; NULL for one feature, or for examples each on its own
      coordinates_share REAL,          -- of the embeddings' variance that the two principal coordinates show
      corpus_mean_distance REAL,       -- over pairs of tokens of the census at which it fires; NULL without a census
      coverage REAL,                   -- share of its activation in the census that its features explain, likewise
      height REAL,                     -- at which the dendrogram was cut; NULL where clusters do not end at a distance
      n_merges INTEGER NOT NULL,       -- of the dendrogram's rows, how many are real
      first_example INTEGER NOT NULL,  -- the neuron's examples are first_example .. first_example + n_examples - 1
      first_feature INTEGER NOT NULL   -- likewise with n_features
    )""",
    """CREATE TABLE features (
      id INTEGER PRIMARY KEY,
      neuron_id INTEGER NOT NULL REFERENCES neurons (id),
      feature INTEGER NOT NULL,        -- index in the neuron: 0 is the largest
      n_examples INTEGER NOT NULL,
      central_example INTEGER NOT NULL REFERENCES examples (id),
      cohesion REAL,                   -- mean over its examples; NULL for one example
      max_activation REAL NOT NULL,    -- of its strongest example
      frequency REAL,                  -- share of the census's tokens that excite it, NULL without a census
      coverage REAL,                   -- share of the neuron's activation there, likewise
      min_similarity REAL,             -- cosine with its direction from which on an input counts; NULL: never
      peak_tokens TEXT NOT NULL        -- JSON [[text, count], ...]: the most frequent peak tokens, at most 5
    )""",
    """CREATE TABLE examples (
      id INTEGER PRIMARY KEY,          -- ordered by neuron, then rank
      neuron_id INTEGER NOT NULL REFERENCES neurons (id),
      feature_id INTEGER NOT NULL REFERENCES features (id),
      rank INTEGER NOT NULL,           -- 0 is the neuron's strongest example
      sequence INTEGER NOT NULL,
      position INTEGER NOT NULL,       -- of the peak in the sequence
      activation REAL NOT NULL,        -- at the peak
      cohesion REAL                    -- mean similarity to the others of its feature; NULL if there are none
    )""",
    """CREATE TABLE words (
      word TEXT NOT NULL,              -- a word, a sign or a character, see `nejax.atlas.terms.terms`
      shard INTEGER NOT NULL,          -- of the corpus; the places of a later one are larger
      places BLOB NOT NULL,            -- see `nejax.atlas.word_index.packed`: where it stands, ascending
      PRIMARY KEY (word, shard)
    ) WITHOUT ROWID""",
)
"""The tables.

All ids count from 0 without gaps, so a range of ids finds what belongs to a neuron: no index is needed.

`SELECT * FROM neurons AS n JOIN examples AS e ON e.id BETWEEN n.first_example AND n.first_example + n.n_examples - 1`

Where `sides` in `meta` is 2, a row of `neurons` is one side of a neuron: of a layer's `d_mlp` units the first half are
the positive sides, and unit `j + d_mlp / 2` is the negative side of neuron `j`. Every value of the activation of a
negative side is of the neuron's activation times -1.
"""

INDEXES = ("CREATE INDEX examples_by_sequence ON examples (sequence)",)
"""Made after all rows, which is faster than updating them with each row."""
