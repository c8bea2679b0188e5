"""Settings: what is refused, how it is said, and what follows from the fields."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from nejax.errors import SettingError, UserError
from nejax.pipeline.run.settings import (
    GROUPS,
    CensusSettings,
    Clustering,
    ExampleSettings,
    Settings,
    SimilarSettings,
    decided_late,
    settings_by_name,
)
from nejax.pipeline.stages.order import STAGES
from nejax.pipeline.stages.run import Run
from nejax.setting import Interval, settings_in

STAGE_FILES = Path(__file__).parents[2] / "nejax" / "pipeline" / "stages"


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"seq_len": 2}, "seq_len=2: expected at least 3"),
        ({"seq_len": "24"}, "seq_len=24: expected an integer"),
        ({"seq_len": 24.0}, "seq_len=24: expected an integer"),
        ({"seq_len": True}, "seq_len=True: expected an integer"),
        ({"keep": 0}, "keep=0: expected at least 1"),
        ({"examples": 1}, "examples=1: expected at least 2"),
        ({"max_repeats": 0}, "max_repeats=0: expected at least 1"),
        ({"max_sequences": 0}, "max_sequences=0: expected at least 1"),
        ({"first_position": -1}, "first_position=-1: expected at least 0"),
        ({"first_position": 24}, "first_position=24: expected less than seq_len=24"),
        ({"seed": -1}, "seed=-1: expected at least 0"),
        ({"similar": -1}, "similar=-1: expected at least 0"),
        ({"similar_threshold": 1.0}, "similar_threshold=1: expected a cosine in [-1, 1)"),
        ({"similar_threshold": float("nan")}, "similar_threshold=nan: expected a cosine"),
        ({"similar_recall": 0.0}, "similar_recall=0: expected a share in (0, 1]"),
        ({"min_fraction": 1.0}, "min_fraction=1: expected a fraction in [0, 1)"),
        ({"min_fraction": -0.1}, "min_fraction=-0.1: expected a fraction"),
        ({"min_fraction": float("nan")}, "min_fraction=nan: expected a fraction"),
        ({"min_fraction": "0.4"}, "min_fraction=0.4: expected a number"),
        ({"keep": 5}, "keep=5: expected at least examples=6; examples are chosen from those kept"),
        ({"height": 0.0}, "height=0: expected a cosine distance in (0, 2]; leave it out to have it calibrated"),
        ({"selection": "best"}, "selection=best: expected one of fraction, top, quantiles"),
        ({"clustering": "ward"}, "clustering=ward: expected one of average, components, kmeans, spectral"),
        ({"clustering": "kmeans", "height": 0.3}, "height=0.3: expected nothing, as clustering=kmeans does not use it"),
        ({"clustering": "kmeans", "n_clusters": 7}, "n_clusters=7: expected 1 to examples=6"),
        ({"precision": "int8"}, "precision=int8: expected one of float32, bfloat16, float16"),
        ({"input_weights": "raw"}, "input_weights=raw: expected one of native, folded"),
        ({"importance": 1}, "importance=1: expected True or False"),
        ({"model": None}, "model=None: expected a text"),
        ({"corpus": "caf\udce9"}, r"corpus='caf\udce9': expected a name in UTF-8; rename it"),
    ],
)
def test_settings_out_of_range_are_refused_when_they_are_made(change, line):
    with pytest.raises(SettingError) as error:
        Settings.of(seq_len=24, keep=8, examples=6).but(**change)
    assert str(error.value).startswith(line) and "\n" not in str(error.value)
    dashed = error.value.said(lambda name: f"--{name}")
    assert re.sub(r"--(\w+)=", r"\1=", dashed) == str(error.value)
    assert dashed.count("--") == line.count("=") + str(error.value).removeprefix(line).count("=")


def test_a_name_that_is_no_setting():
    with pytest.raises(UserError, match=r"there is no setting 'seqlen'; expected seq_len"):
        Settings.of(seqlen=3)
    with pytest.raises(UserError, match=r"there is no setting 'zzz'$"):
        Settings().but(zzz=3)


def test_a_batch_of_nothing_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(SettingError, match=r"^batch_size=0: expected at least 1"):
        Run(tmp_path / "run", Settings(), batch_size=0)
    assert not (tmp_path / "run").exists()


def test_flat_names_and_groups_are_two_ways_to_say_one_thing():
    settings = Settings.of(seq_len=32, similar=5, clustering="kmeans", n_clusters=3, census=True, seed=4)
    assert settings == Settings(
        corpus=dataclasses.replace(Settings().corpus, seq_len=32),
        clustering=Clustering("kmeans", n_clusters=3),
        similar=SimilarSettings(n=5),
        census=CensusSettings(wanted=True),
        seed=4,
    )
    assert Settings.of(**json.loads(json.dumps(settings.by_name()))) == settings
    assert settings.but() == settings and settings.but(seed=0, similar=20) != settings
    assert Settings.of(keep=3, examples=2).examples == ExampleSettings(n=2, keep=3)


def test_names_are_unique_and_every_default_is_allowed():
    every = [one for group in (*GROUPS.values(), Settings) for one in settings_in(group)]
    assert len({one.name for one in every}) == len(every) == len(settings_by_name()) == len(Settings().by_name())
    for one in every:
        one.check(one.default)
        assert one.help.endswith(".") and (not one.choices or one.default in one.choices)
        assert re.findall(r"\{(\w+)\}", one.help + one.mend) == [
            name for name in re.findall(r"\{(\w+)\}", one.help + one.mend) if name in settings_by_name()
        ]


def test_what_may_change_late_is_read_by_its_stage_alone():
    """A group says which stage reads it; no other file of a stage names the group."""
    groups = {name: of.READ_BY for name, of in GROUPS.items() if of.READ_BY}
    assert set(groups.values()) <= {stage.name for stage in STAGES}
    assert set(groups) == {"clustering", "similar", "importance", "census"}
    for group, stage in groups.items():
        reading = {
            file.stem
            for file in STAGE_FILES.glob("*.py")
            if re.search(rf"\b(settings|s)\.{group}\b(?!\()", file.read_text())
        }
        assert reading == {stage}
    assert decided_late()["similar_threshold"] == "similar" and "seq_len" not in decided_late()


@pytest.mark.parametrize(
    ("interval", "inside", "outside"),
    [
        (Interval(0, 1, "[)"), (0, 0.5), (1, -1e-9, float("nan"))),
        (Interval(0, 2, "(]"), (2, 1e-300), (0, -0.0, 2.0001, float("inf"))),
        (Interval(-1, 1), (-1, 1), (-1.0001, float("nan"))),
    ],
    ids=str,
)
def test_intervals(interval, inside, outside):
    assert all(map(interval.has, inside)) and not any(map(interval.has, outside))
