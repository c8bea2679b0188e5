"""The rules side by side: one row a rule."""

from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.truth.answers import TOKENS
from benchmarks.truth.arms import ARMS, NULL
from benchmarks.truth.figures import ALL, COMMON, HELD_OUT, ONE, SEVERAL, Figures
from benchmarks.truth.scoring import FORMS


class Share(NamedTuple):
    """Of neurons, with its interval."""

    of: float
    least: float
    most: float
    n: int


class Row(NamedTuple):
    """One rule through one arm. A share is None where there was no such neuron."""

    arm: str
    rule: str
    form: str
    """Which clusters count: the form in which the rule has more planted neurons right."""
    planted_right: Share | None
    """Of planted neurons with several features that can be told apart, without the families that are held out or share
    a direction."""
    planted_split: Share | None
    """Of those with at most one feature, falsely split."""
    held_out_right: Share | None
    """Of families that no rule was tuned with, several features."""
    held_out_split: Share | None
    """Of these, with at most one feature, falsely split."""
    chimera_right: Share | None
    """Of chimeras with two to four parents that can be told apart."""
    chimera_split: Share | None
    """Of chimeras with one."""
    ari: float | None
    """Median over the chimeras with several, or if there are none over the planted ones."""
    ari_from: float | None
    ari_to: float | None


def rows_of(figures: Sequence[Figures]) -> list[Row]:
    """A row for every rule and arm, in its better form."""
    at = {(f.source, f.group, f.kind, f.arm, f.rule, f.form): f for f in figures}
    names = dict.fromkeys((f.arm, f.rule) for f in figures)
    return [_row(at, arm, rule) for arm, rule in names]


def _row(at: dict[tuple[str, ...], Figures], arm: str, rule: str) -> Row:
    def find(source: str, group: str, kind: str, form: str) -> Figures | None:
        return at.get((source, group, kind, arm, rule, form))

    def n_right(form: str) -> float:
        return sum(f.n * f.right for f in at.values() if (f.rule, f.form) == (rule, form) and _decides(f))

    form = max(FORMS, key=n_right)

    def right(source: str, group: str) -> Share | None:
        f = find(source, group, SEVERAL, form)
        return f and Share(f.right, f.right_from, f.right_to, f.n)

    def split(source: str, group: str) -> Share | None:
        f = find(source, group, ONE, form)
        return f and Share(f.split, f.split_from, f.split_to, f.n)

    shares = right("planted", COMMON), split("planted", COMMON), right("planted", HELD_OUT), split("planted", HELD_OUT)
    shares += right("chimera", ALL), split("chimera", ALL)
    best = find("chimera", ALL, SEVERAL, form) or find("planted", COMMON, SEVERAL, form)
    return Row(arm, rule, form, *shares, *((best.ari, best.ari_from, best.ari_to) if best else (None,) * 3))


def _decides(f: Figures) -> bool:
    return f.arm in (ARMS[0], TOKENS) and f.group in (COMMON, ALL) and f.kind in (ONE, SEVERAL)


HEAD = (
    *("planted right", "planted split", "held out right", "held out split", "chimera right", "chimera split"),
    "median ARI",
)


def table(rows: Sequence[Row]) -> list[str]:
    """An arm after the other: shares in percent with their 95% intervals, and how many neurons they are of."""
    lines: list[str] = []
    for arm in dict.fromkeys(row.arm for row in rows):
        some = [row for row in rows if row.arm == arm]
        title = arm[0].upper() + arm[1:] + (": no cluster is left, at most one is right" if arm == NULL else "")
        lines += ["", title, f"{'':<34}" + "".join(f"{head:>17}" for head in HEAD)]
        first = some[0]
        counts = [f"of {share.n}" if share else "" for share in first[3:9]]
        lines.append(f"{'':<34}" + "".join(f"{count:>17}" for count in counts))
        for row in some:
            shares = "".join(f"{_spelled(share):>17}" for share in row[3:9])
            ari = "" if row.ari is None else f"{row.ari:.2f} ({row.ari_from:.2f}-{row.ari_to:.2f})"
            lines.append(f"  {row.rule:<15} {row.form:<16}{shares}{ari:>17}")
    return lines[1:]


def _spelled(share: Share | None) -> str:
    return "" if share is None else f"{share.of:.0%} ({share.least:.0%}-{share.most:.0%})"
