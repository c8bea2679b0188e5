"""Examples on a line, and numbers with what they count."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nejax.atlas.entries import Example, beginning, counted, ending


def example(pieces: list[str], peak: int, *, start: int = 7, peak_text: str | None = None) -> Example:
    """An example with these pieces; `start` 0: the first of them is BOS."""
    return Example(
        sequence=0,
        position=start + peak,
        activation=1.0,
        feature=0,
        cohesion=float("nan"),
        document="d",
        tokens=np.arange(len(pieces)),
        pieces=pieces,
        activations=np.ones(len(pieces), np.float32),
        peak=peak,
        peak_text=pieces[peak] if peak_text is None else peak_text,
        coordinates=(0.5, -0.25),
    )


def test_the_peak_is_marked_without_its_space():
    assert example(["The", " quick", " fox", " jumps"], 2).snippet() == "The quick [[fox]] jumps"
    assert example(["The", " quick", " fox", "es"], 2).snippet() == "The quick [[fox]]es"
    assert example(["a", " ", "b"], 1).snippet() == "a[[ ]]b"


def test_line_breaks_show_and_other_white_space_is_one_space():
    assert example(["a:\r\n", "\tb  c", "\n", "\n\x00d"], 2).snippet() == "a:⏎ b c[[⏎]]⏎·d"


def test_the_name_of_bos_is_not_text():
    assert example(["<|endoftext|>", "a", "b"], 1, start=0).snippet() == "[[a]]b"
    assert example(["<|endoftext|>", "a", "b"], 1, start=0).text == "ab"
    assert example(["a", "b"], 1).text == "ab"


@pytest.mark.parametrize(
    ("peak", "peak_text", "expected"),
    [
        (0, "a", "[[a]] 🎉b"),
        (1, " 🎉", "a [[🎉]]b"),  # the token has the space and the first bytes
        (2, "🎉", "a [[🎉]]b"),
        (3, "🎉", "a [[🎉]]b"),
        (4, "b", "a 🎉[[b]]"),
    ],
)
def test_a_peak_within_a_character_marks_all_of_it(peak, peak_text, expected):
    assert example(["a", " ", "", "🎉", "b"], peak, peak_text=peak_text).snippet() == expected


def test_long_texts_are_cut_where_it_is_said():
    pieces = ["x" * 50, " peak", "y" * 50]
    assert example(pieces, 1).snippet(40) == "…" + "x" * 20 + " [[peak]]" + "y" * 9 + "…"
    assert example(["x", " peak", "y" * 50], 1).snippet(20) == "x [[peak]]" + "y" * 9 + "…"
    assert example(["x" * 50, " peak"], 1).snippet(20) == "…" + "x" * 10 + " [[peak]]"
    assert example(["a", "=" * 90, "b"], 1).snippet() == "a[[" + "=" * 29 + "…]]b"


@given(
    pieces=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=12), min_size=1, max_size=12),
    data=st.data(),
    width=st.integers(40, 90),
)
def test_snippets_are_lines_of_the_width(pieces, data, width):
    peak = data.draw(st.integers(0, len(pieces) - 1))
    found = example(pieces, peak)
    snippet = found.snippet(width)
    assert len(snippet) <= width
    assert f"[[{found.around_peak()[1]}]]" in snippet
    assert not set(snippet) & set("\n\r\t\x00\x85")


@given(text=st.text(), width=st.integers(0, 30))
def test_cutting_keeps_one_end(text, width):
    for cut, kept in ((beginning(text, width), text[: max(width - 1, 0)]), (ending(text, width), text[1 - width :])):
        assert len(cut) == min(len(text), width)
        assert cut == text or not width or cut in (f"{kept}…", f"…{kept}" if width > 1 else "…")


def test_counts_know_their_plural():
    assert [counted(n, "feature") for n in (0, 1, 2048)] == ["0 features", "1 feature", "2,048 features"]
