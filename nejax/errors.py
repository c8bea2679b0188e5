"""The one kind of error that a user can cause."""


class UserError(ValueError):
    """An error that a user can fix: one line that says what was wrong, what was expected, and how to fix it.

    Example:
        >>> nejax.silhouette(1 - np.eye(6), labels=[0, 0, 1])
        Traceback (most recent call last):
        nejax.errors.UserError: labels have shape (3,); expected [n] with n = 6, as in distances
    """


def refuse_undecodable(what: str, value: object) -> None:
    """Refuse a name that is not UTF-8: it cannot be shown, nor do all libraries find such a file.

    Raises:
        UserError: it is one; `what` says of what it is the name.
    """
    try:
        str(value).encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{what}{str(value)!a} is not UTF-8; rename it, or name a folder or a link that is") from error
