"""Settings out of range are refused before anything is written."""

import pytest

from nejax.errors import UserError
from nejax.pipeline.run.settings import Settings
from nejax.pipeline.stages.run import Run


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"seq_len": 2}, "--seq_len=2: expected at least 3"),
        ({"keep": 0}, "--keep=0: expected at least 1"),
        ({"examples": 1}, "--examples=1: expected at least 2"),
        ({"max_repeats": 0}, "--max_repeats=0: expected at least 1"),
        ({"max_sequences": 0}, "--max_sequences=0: expected at least 1"),
        ({"first_position": -1}, "--first_position=-1: expected at least 0"),
        ({"first_position": 24}, "--first_position=24: expected less than --seq_len=24"),
        ({"seed": -1}, "--seed=-1: expected at least 0"),
        ({"similar": -1}, "--similar=-1: expected at least 0"),
        ({"min_similarity": 1.0}, "--min_similarity=1: expected a cosine from -1 up to, not including, 1"),
        ({"min_similarity": float("nan")}, "--min_similarity=nan: expected a cosine"),
        ({"min_fraction": 1.0}, "--min_fraction=1: expected a fraction"),
        ({"min_fraction": -0.1}, "--min_fraction=-0.1: expected a fraction"),
        ({"min_fraction": float("nan")}, "--min_fraction=nan: expected a fraction"),
        ({"keep": 5}, "--keep=5 is less than --examples=6"),
        ({"height": 0.0}, "--height=0: expected"),
        ({"height": float("nan")}, "--height=nan: expected"),
        ({"selection": "best"}, "--selection=best: expected one of fraction, top, quantiles"),
        ({"clustering": "ward"}, "--clustering=ward: expected one of average, components, kmeans, spectral"),
        ({"clustering": "kmeans", "height": 0.3}, "--height=0.3 is not used by --clustering=kmeans"),
        ({"precision": "int8"}, "--precision=int8: expected one of float32, bfloat16, float16"),
        ({"input_weights": "raw"}, "--input_weights=raw: expected one of native, folded"),
    ],
)
def test_settings_out_of_range_are_refused_before_anything_is_written(change, line, tmp_path):
    changed = Settings(seq_len=24, keep=8, examples=6)
    for name, value in change.items():
        object.__setattr__(changed, name, value)  # the tests' own type checks would refuse some of these
    with pytest.raises(UserError) as error:
        Run(tmp_path / "run", changed)
    assert str(error.value).startswith(line) and "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_batch_of_nothing_is_refused(tmp_path):
    with pytest.raises(UserError, match="--batch_size=0: expected at least 1"):
        Run(tmp_path / "run", Settings(), batch_size=0)
    assert not (tmp_path / "run").exists()
