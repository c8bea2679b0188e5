"""The document of keys is that of the lists."""

from scripts import module_of

key_tables = module_of("key_tables")


def test_the_document_is_up_to_date():
    assert key_tables.DOCUMENT.read_text() == key_tables.document(), "run experiments/key_tables.py"


def test_every_neutral_value_is_in_words():
    assert key_tables.values({"a": (None, {}), "b": (True,), "c": (0, -1), "d": (None, 1.0), "e": (True,)}) == (
        "null: `a`; true: `b`, `e`; 0 or -1: `c`; null or 1.0: `d`"
    )
