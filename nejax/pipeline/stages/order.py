"""All stages of a run, in their order, and what they leave to an atlas."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerFast

from nejax.pipeline.corpus.sequences import SequenceShards
from nejax.pipeline.passes.census import Census
from nejax.pipeline.passes.collect import Collection
from nejax.pipeline.passes.similar import Similar
from nejax.pipeline.stages.census import CENSUS
from nejax.pipeline.stages.collect import COLLECT
from nejax.pipeline.stages.features import FEATURES, Features
from nejax.pipeline.stages.importance import IMPORTANCE, Importance
from nejax.pipeline.stages.inputs import INPUTS, Inputs
from nejax.pipeline.stages.numerics import NUMERICS
from nejax.pipeline.stages.run import Run
from nejax.pipeline.stages.similar import SIMILAR
from nejax.pipeline.stages.stage import Layers
from nejax.pipeline.stages.tokens import TOKENS

STAGES = (TOKENS, COLLECT, NUMERICS, INPUTS, FEATURES, SIMILAR, IMPORTANCE, CENSUS)


class Results(NamedTuple):
    """What the stages of a run found; None for those that were not asked for."""

    manifest: Mapping[str, Any]
    """The settings, the model, and facts of every stage."""
    tokenizer: PreTrainedTokenizerFast
    sequences: SequenceShards
    collection: Collection
    inputs: Inputs
    features: Layers[Features]
    similar: Similar | None
    importance: Importance | None
    census: Census | None


def finish(run: Run) -> None:
    """Run every stage that is asked for and not done."""
    for stage in STAGES:
        if stage is not TOKENS and stage.is_wanted(run.settings):  # sequences are cut while they are collected
            stage.finish(run)


def results_of(run: Run) -> Results:
    """The results of a run; what is not done is run first. The features are read layer by layer."""
    finish(run)
    return Results(
        manifest=run.directory.manifest,
        tokenizer=run.loaded.tokenizer,
        sequences=TOKENS.of(run),
        collection=COLLECT.of(run),
        inputs=INPUTS.of(run),
        features=FEATURES.of(run),
        similar=SIMILAR.if_wanted(run),
        importance=IMPORTANCE.if_wanted(run),
        census=CENSUS.if_wanted(run),
    )
