import io
import re
import time

from nejax.pipeline.run import progress
from nejax.pipeline.run.progress import progress_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_file_gets_the_last_line_alone_from_a_short_work(monkeypatch, capsys):
    with progress_bar(total=5000, desc="tokens", unit=" tokens") as bar:
        for _ in range(5000):
            bar.update(1)
            bar.set_postfix(loss=1.5)
        bar.write("a word between")
    out, err = capsys.readouterr()
    assert out == "a word between\n"
    assert re.fullmatch(r"tokens: 100%\S*\| 5000/5000 \[.*, loss=1\.5\]\n", err)


def test_a_file_gets_a_line_at_every_interval(monkeypatch, capsys):
    monkeypatch.setattr(progress, "SECONDS", 0.3)
    start = time.monotonic()
    with progress_bar(total=100) as bar:
        for _ in range(100):
            time.sleep(0.01)
            bar.update(1)
    lines = capsys.readouterr().err.splitlines()
    assert 3 <= len(lines) <= 1 + (time.monotonic() - start) / 0.3
    assert all(re.search(r"\d+/100 \[", line) for line in lines)
    assert "100/100" in lines[-1]


def test_nothing_is_shown_of_what_is_hidden_or_closed_twice(capsys):
    with progress_bar(total=3, disable=True) as bar:
        bar.update(3)
    assert capsys.readouterr().err == ""
    bar = progress_bar([1, 2], "pair")
    assert list(bar) == [1, 2]
    bar.close()
    assert capsys.readouterr().err.count("\n") == 1


def test_a_terminal_gets_one_line_that_changes(monkeypatch):
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    with progress_bar(total=2) as bar:
        bar.update(2)
    assert terminal.getvalue().startswith("\r")
    assert terminal.getvalue().count("\n") == 1
