"""Search, sequences and the page about the method, clicked through."""

import re
from collections import Counter

import pytest
from playwright.sync_api import Page, expect
from watched import Watched

from nejax.atlas.atlas import Atlas
from nejax.atlas.neuron import Neuron
from nejax.atlas.search import LONGEST_QUERY, words
from nejax.pipeline.left_out import left_out

FIND = """([root, query, offset]) => Promise.all([import(`${root}js/find.js`), import(`${root}js/data.js`)])
  .then(([{ find }, { openAtlas }]) => openAtlas().then((atlas) => find(atlas, query, offset)))"""


def find(watched: Watched, query: str, offset: int = 0) -> dict:
    return watched.page.evaluate(FIND, [watched.site.address, query, offset])


def common_words(atlas: Atlas) -> list[str]:
    """Words of the first sequences, the most frequent first."""
    counts = Counter(word for sequence in range(min(atlas.n_sequences, 40)) for word in words(atlas.text(sequence)))
    return [word for word, _ in counts.most_common()]


def queries(atlas: Atlas) -> list[str]:
    first = words(atlas.text(0))
    common = common_words(atlas)
    phrases = [" ".join(first[i : i + n]) for i, n in ((0, 2), (1, 3), (2, 5)) if i + n <= len(first)]
    long = next(word for word in common if len(word) > 3)
    others = [
        "constructor",
        "__proto__",
        "no such words anywhere",
        "...",
        "=",
        ")",
        "É",
        "ΟΣ",
        "İ",
        "ß",
        "\u2028x",
        "ﬁ",
    ]
    texts = [
        *common[:6],
        *phrases,
        phrases[0].upper(),
        f"{first[0]} -- {first[1]}",
        f"{long[:3]}*",
        f"{phrases[1][:-1]}*",
    ]
    return [*texts, "*", *others]


def test_the_pages_find_what_python_finds(watched: Watched, explored: Atlas):
    """The same answer from the server, from a static site's files, and from `Atlas.search`."""
    watched.allowed.append("/search/")  # a file that is not there: no such word
    watched.visit("#/search")
    for query in queries(explored):
        found = find(watched, query)
        expected = explored.search(query, limit=20)
        assert found["n_sequences"] == expected.n_sequences, query
        assert found["sequences"] == expected.sequences, query
        assert [tuple(peak) for peak in found["peaks"]][:20] == [tuple(peak[:5]) for peak in expected.peaks], query
        later = explored.search(query, limit=60).sequences[40:]
        assert find(watched, query, 40)["sequences"] == later, query


def test_a_search_shows_peaks_and_texts(watched: Watched, explored: Atlas, neuron: Neuron):
    peak = neuron.features[0].peak_tokens[0][0].strip()
    watched.allowed.append("/search/")
    page = watched.visit("#/search")
    page.keyboard.press("/")
    expect(page.locator("#search")).to_be_focused()
    page.keyboard.type(peak)
    page.keyboard.press("Enter")
    watched.settle()
    expected = explored.search(peak, limit=50)
    expect(page.locator("#search-status")).to_contain_text("features" if len(expected.peaks) > 1 else "feature")
    if len(expected.peaks) > 12:
        page.get_by_role("button", name=re.compile("Show all")).click()
    rows = page.locator(".peak-list li")
    expect(rows).to_have_count(len(expected.peaks))
    first = expected.peaks[0]
    expect(rows.first).to_contain_text(f"Layer {first.layer}, neuron {first.neuron}, feature {first.feature}")
    expect(rows.first).to_contain_text(f"{first.n} of {first.n_examples}")
    rows.first.get_by_role("link").click()
    watched.settle()
    assert watched.address == f"#/feature/{first.layer}/{first.neuron}/{first.feature}"
    page.go_back()
    watched.settle()
    expect(page.locator("#search")).to_have_value(peak)


def test_texts_are_marked_and_paged(watched: Watched, explored: Atlas):
    word = common_words(explored)[0]
    expected = explored.search(word, limit=1000)
    page = watched.visit(f"#/search?q={word}")
    matches = page.locator(".match")
    expect(matches).to_have_count(min(20, expected.n_sequences))
    for i, sequence in enumerate(expected.sequences[:20]):
        expect(matches.nth(i)).to_have_attribute("data-sequence", str(sequence))
    marks = page.locator(".match mark").all_inner_texts()
    assert len(marks) == min(20, expected.n_sequences) and {mark.lower() for mark in marks} == {word}
    if expected.n_sequences > 20:
        page.get_by_role("link", name="Next →").click()
        watched.settle()
        assert "page=2" in watched.address
        expect(matches.first).to_have_attribute("data-sequence", str(expected.sequences[20]))
        page.reload()
        watched.settle()
        expect(matches.first).to_have_attribute("data-sequence", str(expected.sequences[20]))
        page.go_back()
        expect(matches.first).to_have_attribute("data-sequence", str(expected.sequences[0]))


def test_chips_are_the_features_that_peak_at_the_match(watched: Watched, explored: Atlas):
    word = common_words(explored)[0]
    page = watched.visit(f"#/search?q={word}")
    shown = 0
    for match in page.locator(".match").all():
        if match.get_by_role("button", name=re.compile("more$")).count():
            match.get_by_role("button", name=re.compile("more$")).click()
        sequence = int(match.get_attribute("data-sequence") or -1)
        pieces = explored.pieces(sequence)
        places = [chip.get_attribute("href") for chip in match.locator("a.chip").all()]
        shown += len(places)
        for place in places[:4]:
            layer, neuron, feature = map(int, (place or "").split("/")[2:])
            peaks = [
                e.position for e in explored.neuron(layer, neuron).features[feature].examples if e.sequence == sequence
            ]
            # The peak is in the word: the word begins in one of the few tokens up to it and is not over before it.
            around = ["".join(pieces[max(p - 8, 1) : p + 9]).lower() for p in peaks]
            assert any(word in text for text in around)
    assert shown or explored.n_sequences < 100


@pytest.mark.parametrize("query, said", [("", "A phrase"), ("a*", "two letters"), ("zzqqxx", "No text holds it")])
def test_what_cannot_be_found_is_said_plainly(watched: Watched, query: str, said: str):
    watched.allowed.append("/search/")
    page = watched.visit(f"#/search?q={query}")
    expect(page.locator("main")).to_contain_text(said)


def test_a_query_may_be_as_long_as_the_servers_longest(watched: Watched):
    page = watched.visit()
    watched.allowed.append("/search/")
    expect(page.locator("#search")).to_have_attribute("maxlength", str(LONGEST_QUERY))
    status = page.get_by_role("status").first
    watched.visit(f"#/search?q={'x' * LONGEST_QUERY}")
    expect(status).to_contain_text("No text holds it")
    watched.go(f"#/search?q={'x' * (LONGEST_QUERY + 1)}")
    expect(status).to_contain_text(f"at most {LONGEST_QUERY:,}")


def test_a_sequence_shows_its_text_and_its_peaks(watched: Watched, explored: Atlas, neuron: Neuron):
    example = neuron.features[0].central
    page = watched.visit(f"#/sequence/{example.sequence}?at={example.position}")
    tokens = page.locator(".sequence-text .token")
    expect(tokens).to_have_count(len(explored.tokens(example.sequence)))
    expect(page.locator(".lead")).to_contain_text(example.document[:60])
    chosen = page.locator('.sequence-text [aria-current="true"]')
    expect(chosen).to_have_attribute("data-position", str(example.position))
    name = f"Layer {neuron.layer}, neuron {neuron.index}, feature {example.feature}"
    for button in page.get_by_role("button", name=re.compile(r"^\d+ more$")).all():
        button.click()
    link = page.locator(".peaks-at").get_by_role("link", name=name, exact=True)
    expect(link).to_have_count(1)
    page.locator("#layer").select_option(str(neuron.layer))
    assert f"layer={neuron.layer}" in watched.address
    expect(page.locator(".peaks-at h3")).to_have_text([f"Layer {neuron.layer}"])
    page.reload()
    watched.settle()
    expect(page.locator(".peaks-at h3")).to_have_text([f"Layer {neuron.layer}"])
    page.go_back()
    page.locator(".peaks-at").get_by_role("link").first.click()
    watched.settle()
    assert watched.address.startswith("#/feature/")


def test_tokens_of_a_sequence_answer_to_keys(watched: Watched, explored: Atlas):
    page = watched.visit("#/sequence/1")
    expect(page.locator("#busiest-title")).to_be_visible()
    page.locator('.sequence-text [tabindex="0"]').focus()
    for key, position in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", len(explored.tokens(1)) - 1)):
        page.keyboard.press(key)
        expect(page.locator(".sequence-text :focus")).to_have_attribute("data-position", str(position))
        watched.expect_address(f"#/sequence/1?at={position}")
    page.get_by_role("link", name="Sequence 2 →").click()
    watched.settle()
    page.keyboard.press("ArrowLeft")
    expect(page.locator("h1")).to_have_text("Sequence 1")


def test_about_explains_the_method_and_this_atlas(watched: Watched, explored: Atlas):
    page = watched.visit("#/about")
    assert page.locator("math").count() > 6
    # In MathML's own namespace, or nothing is typeset.
    assert page.evaluate("document.querySelector('math mfrac').namespaceURI").endswith("MathML")
    made = page.locator("#made")
    expect(made).to_contain_text(explored.manifest["model"]["name"])
    expect(made).to_contain_text(f"{explored.n_sequences:,} sequences")
    for line in left_out(explored.manifest["stages"]["tokens"]).left_out:
        expect(made.get_by_text(line, exact=True)).to_be_visible()
    paper = page.get_by_role("link", name=re.compile("2411.08166")).first
    expect(paper).to_have_attribute("href", "https://arxiv.org/abs/2411.08166")
    check_licences(page)


def check_licences(page: Page) -> None:
    for name in ("MIT", "Apache 2.0"):
        address = page.get_by_role("link", name=re.compile(name)).get_attribute("href")
        text = page.evaluate("address => fetch(address).then((answer) => answer.text())", address)
        assert "opyright" in text and len(text) > 500
