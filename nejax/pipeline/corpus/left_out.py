"""What was left out of an atlas's corpus, by reason, in words."""

from collections.abc import Mapping
from typing import Any, NamedTuple

MOST = 0.1
"""The largest share of a corpus that may be left out without a warning."""

_NOT_LOST = "link to a folder that is read anyway"


class LeftOut(NamedTuple):
    """What was left out of a corpus."""

    left_out: list[str]  # one a reason, each with its count, which is not zero
    warnings: list[str]  # where it is much


def left_out(facts: Mapping[str, Any]) -> LeftOut:
    """What was left out while a corpus was read and cut.

    Args:
        facts: of the stage `tokens`, as the manifest has them: `skipped`, `documents_read`, `sequences`,
            `duplicate_sequences`, `short_windows`.
    """
    skipped = {reason: n for reason, n in facts.get("skipped", {}).items() if n}
    n_kept, n_copies = facts.get("sequences", 0), facts.get("duplicate_sequences", 0)
    n_short = facts.get("short_windows", 0)
    of_sequences = {"sequence that repeats another": n_copies, "end of a document, too short for a sequence": n_short}
    lines = [f"{reason}: {n:,}" for reason, n in (skipped | of_sequences).items() if n]
    n_lost = sum(n for reason, n in skipped.items() if reason != _NOT_LOST)
    shares = {
        "of the corpus's documents could not be used": (n_lost, n_lost + facts.get("documents_read", 0)),
        "of the corpus's sequences repeat others and are left out": (n_copies, n_kept + n_copies),
        "of the corpus's texts are too short for a sequence": (n_short, n_kept + n_copies + n_short),
    }
    warnings = [f"WARNING: {n / of:.0%} {what}" for what, (n, of) in shares.items() if n > MOST * of]
    return LeftOut(lines, warnings)


def told(found: LeftOut) -> list[str]:
    """As lines for a terminal, warnings first."""
    return found.warnings + [f"left out, {line}" for line in found.left_out]
