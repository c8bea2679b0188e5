"""Files from the Hugging Face Hub through its cache, and one line for a user when that fails."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from nejax.errors import UserError

_TIMEOUT = 5.0  # seconds


class NotOnHub(UserError):
    """Neither the Hub nor its cache gives what was asked for."""


def download(
    repo_id: str,
    revision: str | None,
    patterns: Sequence[str],
    *,
    kind: str,
    choices: str,
    instead: str,
    needed: str | None = None,
) -> Path:
    """The snapshot of a model repository, brought up to date if the Hub answers, else as the cache has it.

    Args:
        repo_id: `"ORGANISATION/NAME"`.
        revision: branch, tag or commit; the main branch if it is None.
        patterns: of the paths to download; the rest is left there.
        kind: what it is, for a user: `"model"` or `"SAE"`.
        choices: what names are expected, for a user.
        instead: what works without network, for the message.
        needed: a path without which a snapshot in the cache does not count.

    Returns:
        The snapshot's folder.

    Raises:
        NotOnHub: no such repository or revision, no way to reach it, or no place to write it to.
    """

    def snapshot(**options: Any) -> Path:
        return Path(snapshot_download(repo_id, revision=revision, allow_patterns=list(patterns), **options))

    try:
        # snapshot_download asks this without a time limit: for minutes, on a network that swallows packets.
        HfApi().model_info(repo_id, revision=revision, timeout=_TIMEOUT)
        return snapshot()
    except Exception as error:  # among others those of the HTTP library, which is not the same in hub 1 and 2
        failure = error
    try:
        cached = snapshot(local_files_only=True)
    except (OSError, HFValidationError):
        cached = None
    if cached is None or (needed and not (cached / needed).is_file()):
        raise NotOnHub(_explain(failure, repo_id, revision, kind, choices, instead)) from failure
    return cached


def one_line(error: Exception) -> str:
    """An exception's type and message, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _explain(failure: Exception, repo_id: str, revision: str | None, kind: str, choices: str, instead: str) -> str:
    """One line for a user on why a download failed."""
    match failure:
        case HFValidationError():
            return f"{repo_id!r} cannot be the name of a model; {choices}"
        case GatedRepoError():
            page = f"{constants.ENDPOINT}/{repo_id}"
            return f"{kind} {repo_id} is gated; accept its terms at {page} and log in with `hf auth login`"
        case RepositoryNotFoundError():
            return f"{repo_id!r} is no local directory and no (public) model on the Hub; {choices}"
        case RevisionNotFoundError():
            return f"{kind} {repo_id} has no revision {revision!r}; expected a branch, a tag or a commit of it"
        case OfflineModeIsEnabled():
            problem, remedy = "HF_HUB_OFFLINE is set", f"unset it once to download the {kind}"
        case HfHubHTTPError():
            problem, remedy = f"the Hub refuses it ({one_line(failure)})", "try again later"
        case OSError(errno=int()):
            problem = f"cannot be written to {constants.HF_HUB_CACHE} ({one_line(failure)})"
            remedy = "make room there, or set HF_HOME to another folder"
        case _:
            problem = f"the Hub at {constants.ENDPOINT} cannot be reached ({one_line(failure)})"
            remedy = f"connect to the network, or use {instead}"
    return f"{kind} {repo_id} is neither a local directory nor in the cache, and {problem}; {remedy}"
