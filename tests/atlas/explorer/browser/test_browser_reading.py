"""Search, sequences and the page about the method, clicked through."""

import random
import re
from collections import Counter
from urllib.parse import quote

import pytest
from playwright.sync_api import Page, expect
from watched import Watched

from nejax.atlas.atlas import Atlas
from nejax.atlas.neuron import Neuron
from nejax.atlas.search import LONGEST_QUERY
from nejax.atlas.terms import readings, words
from nejax.pipeline.corpus.left_out import left_out

FIND = """([root, ...query]) => Promise.all([import(`${root}js/find.js`), import(`${root}js/data.js`)])
  .then(([{ find }, { openAtlas }]) => openAtlas().then((atlas) => find(atlas, ...query)))"""

READ = """([root, texts]) => import(`${root}js/words.js`).then(({ words, readings }) => texts.map((text) => [
  words(text), readings(text).map(({ terms, offsets, isSigns, isPrefix }) => [terms, offsets, isSigns, isPrefix])]))"""


def find(watched: Watched, query: str, offset: int = 0, peaks_offset: int = 0) -> dict:
    return watched.page.evaluate(FIND, [watched.site.address, query, offset, peaks_offset])


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
        *(
            "⏎",
            "⏎⏎",
            "····",
            "=====",
            "/",
            "):",
            "(",
            ",",
            "·",
            "🎉",
            "%",
            "東京",
            "京は夜",
            "の",
            "です。",
            "中文",
            "กำ",
        ),
    ]
    texts = [
        *common[:6],
        *phrases,
        phrases[0].upper(),
        f"{first[0]} -- {first[1]}",
        f"{long[:3]}*",
        f"{phrases[1][:-1]}*",
    ]
    parts = sorted(fragments(atlas))[:8]
    return [*texts, *parts, *(f"{part[:2]}*" for part in parts if len(part) > 1), "*", *others]


def fragments(atlas: Atlas) -> dict[str, tuple[int, int, int]]:
    """Peak tokens that are parts of words, and a feature that peaks at each."""
    found = {}
    for match in atlas.search(common_words(atlas)[0], limit=40).peaks:
        for feature in atlas.neuron(match.layer, match.neuron).features:
            for example in feature.examples:
                own = atlas.pieces(example.sequence)[example.position].strip()
                if words(own) == [own.lower()] and own.lower() not in words(atlas.text(example.sequence)):
                    found[own] = (match.layer, match.neuron, feature.index)
    return found


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
        later = explored.search(query, limit=60)
        found = find(watched, query, 40, 50)
        assert found["sequences"] == later.sequences[40:], query
        assert [tuple(peak) for peak in found["peaks"]][:10] == [tuple(peak[:5]) for peak in later.peaks[50:]], query


def test_the_pages_read_queries_as_python_does(watched: Watched):
    """In every script, and in signs that nobody types."""
    parts = [*"aÉßΣςİı٣²Ⅷ _-=*·⏎⍽␍␀/\n\t\u00a0\u2028\ufeff\x1c\x85é한", "  ", "e\u0301", "🎉", "⟨U+200B⟩", "⟨ZWSP⟩"]
    parts += [*"東京は夜のーｶ゛中文々〇กำลังภาษาໄທမြန်ខ្មែរབོད་།๑฿。、", "𠮷", "the", "ab*"]
    draw = random.Random(0)
    texts = ["".join(draw.choices(parts, k=draw.randint(1, 8))) for _ in range(3000)]
    page = watched.visit("#/search")
    found = page.evaluate(READ, [watched.site.address, texts])
    for text, (its_words, its_readings) in zip(texts, found, strict=True):
        assert its_words == words(text), repr(text)
        assert its_readings == [list(phrase) for phrase in readings(text)], repr(text)


def test_a_search_shows_peaks_and_texts(watched: Watched, explored: Atlas):
    peak = max(common_words(explored)[:20], key=lambda word: explored.search(word).n_peaks)
    watched.allowed.append("/search/")
    page = watched.visit("#/search")
    page.keyboard.press("/")
    expect(page.locator("#search")).to_be_focused()
    page.keyboard.type(peak)
    page.keyboard.press("Enter")
    watched.settle()
    expected = explored.search(peak, limit=1000)
    expect(page.locator("#search-status")).to_contain_text(f"{expected.n_peaks:,} feature")
    while page.get_by_role("button", name=re.compile(r"^Show \d+ more")).count():
        n = page.locator(".peak-list li").count()
        page.get_by_role("button", name=re.compile(r"^Show \d+ more")).click()
        expect(page.locator(".peak-list li").nth(n)).to_be_visible()
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


def test_the_chip_of_a_part_of_a_word_leads_to_features(watched: Watched, explored: Atlas):
    part, place = next(iter(fragments(explored).items()))
    watched.allowed.append("/search/")
    page = watched.visit("#/feature/" + "/".join(map(str, place)))
    page.locator(".peak-chips a.chip").filter(has_text=re.compile(rf"^\s*·?{re.escape(part)}\s*\d*\s*$")).first.click()
    watched.settle()
    assert watched.address == f"#/search?q={quote(part)}"
    expected = explored.search(part)
    assert any(match[:3] == place for match in explored.search(part, limit=10**6).peaks)
    expect(page.locator("#search-status")).to_contain_text(f"{expected.n_peaks:,} feature")
    expect(page.locator(".peak-list li").first).to_be_visible()


def test_what_is_shown_can_be_searched_for(watched: Watched, explored: Atlas):
    """The signs that the pages print, several tokens, and no page that says of chips on it that there are none."""
    long = next(word for word in common_words(explored) if len(word) > 4)
    watched.allowed.append("/search/")
    for query in ("⏎", "(", f"{long[:4]}*", long):
        page = watched.visit(f"#/search?q={quote(query)}")
        expected = explored.search(query, limit=1)
        assert expected.n_sequences and expected.n_peaks
        said = page.locator("#search-status")
        expect(said).to_contain_text(f"{expected.n_sequences:,} text")
        expect(said).to_contain_text(f"{expected.n_peaks:,} feature")
        expect(page.locator(".match mark").first).to_be_visible()
        expect(page.locator(".match").first.locator("a.chip").first).to_be_visible()
    page = watched.visit(f"#/search?q={quote(common_words(explored)[0] + ' (')}")
    expect(page.locator("#search-left-out")).to_contain_text("Only its words")
    page = watched.visit("#/search?q=+")
    expect(page.locator("#search-left-out")).to_contain_text("A single space is not in the index")


def test_the_field_goes_to_places_and_forgets_what_was_not_sent(watched: Watched, explored: Atlas):
    page = watched.visit("#/about")
    field = page.locator("#search")
    for typed, address in (("1/3", "#/neuron/1/3"), (" 2/7/0 ", "#/feature/2/7/0"), ("1/5-", "#/neuron/1/5")):
        field.fill(typed)
        field.press("Enter")
        watched.settle()
        assert watched.address == address
        expect(field).to_have_value("")
    field.fill("not sent")
    page.get_by_role("navigation", name="Pages").get_by_role("link", name="Compare").click()
    watched.settle()
    expect(field).to_have_value("")
    watched.allowed.append("/search/")
    for text in (f"{explored.n_layers}/3", '"1/3"'):  # no place, and none that is meant
        field.fill(text)
        field.press("Enter")
        watched.settle()
        assert watched.address.startswith("#/search?q=")
        expect(field).to_have_value(text)


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
