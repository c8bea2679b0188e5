"""The figures of a collection benchmark, and how they are shown as text."""

from typing import NamedTuple


class Speed(NamedTuple):
    """What was measured of one contender."""

    by: str
    tokens_per_second: float
    """The median of the rounds; 0 for the matrix product, which has no tokens."""
    slowest: float
    fastest: float
    gflops: float
    """Billions of the model's own matrix-product operations a second."""
    share: float
    """Of what the machine's matrix product reaches in the same turns."""
    peak_mib: float
    """Of the process, in main memory."""
    device_mib: float | None
    """The most taken of an accelerator."""
    times_nejax: float
    """nejax's tokens a second over this contender's; 0 for the matrix product."""
    note: str


class Growth(NamedTuple):
    """One collection by nejax, in a fresh process, compiled before."""

    varied: str
    """Which of the three sizes differs from the first row; "" in the first row."""
    n_sequences: int
    seq_len: int
    keep: int
    seconds: float
    tokens_per_second: float
    peak_mib: float
    device_mib: float | None


class Missing(NamedTuple):
    """A peer that is not there."""

    by: str
    note: str


def table(group: list[Speed] | list[Growth] | list[Missing]) -> list[str]:
    """A line a figure."""
    if isinstance(group[0], Missing):
        head = []
    elif isinstance(group[0], Speed):
        columns = f"{'tokens/s':>9}{'slowest':>9}{'fastest':>9}{'GFLOP/s':>10}{'share':>7}{'peak MiB':>10}"
        head = [f"{'':<30}{columns}{'nejax / it':>12}"]
    else:
        columns = f"{'sequences':>11}{'seq_len':>9}{'keep':>6}{'seconds':>9}{'tokens/s':>10}{'peak MiB':>10}"
        head = [f"{'nejax in a fresh process':<26}{columns}"]
    return head + [_line(figure) for figure in group]


def _line(figure: Speed | Growth | Missing) -> str:
    if isinstance(figure, Missing):
        return f"{figure.by}: {figure.note}"
    return _speed_line(figure) if isinstance(figure, Speed) else _growth_line(figure)


def _speed_line(s: Speed) -> str:
    rates = "".join(f"{rate:>9,.0f}" if rate else f"{'':>9}" for rate in s[1:4])
    ratio = f"{s.times_nejax:.2f}" if s.times_nejax else ""
    line = f"{s.by:<30}{rates}{s.gflops:>10,.0f}{s.share:>7.2f}{s.peak_mib:>10,.0f}{ratio:>12}  {s.note}"
    return line.rstrip() + _on_device(s.device_mib)


def _growth_line(g: Growth) -> str:
    sizes = f"{g.n_sequences:>11,}{g.seq_len:>9,}{g.keep:>6,}"
    figures = f"{g.seconds:>9.2f}{g.tokens_per_second:>10,.0f}{g.peak_mib:>10,.0f}"
    return f"{g.varied and f'  other {g.varied}':<26}{sizes}{figures}{_on_device(g.device_mib)}"


def _on_device(mib: float | None) -> str:
    return "" if mib is None else f"  {mib:,.0f} MiB of the accelerator"
