"""The exceptions, one for each kind of failure."""

from __future__ import annotations


class Error(Exception):
    """A failure. Its text is one line; `kind` names the kind, as in the JSON of the program, and
    `hint` says what may help, or is None."""

    kind: str = "internal"
    hint: str | None = None


class ParameterError(Error, ValueError):
    """The parameters contradict each other or the image."""

    kind = "parameters"


class PermissionDenied(Error):
    """The system refuses access, or `force` has to permit it."""

    kind = "permission"


class WrongPassphrase(Error):
    """No keyslot opens with the passphrase, or a new passphrase is empty."""

    kind = "wrong-passphrase"


class OutOfMemory(Error):
    """Memory or locked memory is short, or no thread starts."""

    kind = "memory"


class OverLimit(Error):
    """A header asks for more memory or time than the limits allow."""

    kind = "over-limit"


class StorageError(Error, OSError):
    """The storage failed, is missing, or is the wrong kind of thing."""

    kind = "storage"


class NoSpace(StorageError):
    """The storage or the quota is full."""

    kind = "no-space"


class Damaged(Error):
    """A header or an image is malformed, cut off, or not in the format that was stated."""

    kind = "damaged"


class Unsupported(Error):
    """The request is valid, but this module cannot carry it out."""

    kind = "unsupported"


class Busy(Error):
    """Another program has it open, or changed it meanwhile."""

    kind = "busy"


class Exists(Error):
    """Something exists already."""

    kind = "exists"


class NotTrusted(Error):
    """A volume is not as it is pinned."""

    kind = "not-trusted"


class Interrupted(Error):
    """The work was interrupted, and left nothing half done."""

    kind = "interrupted"


class InternalError(Error):
    """A kind that this version of the module does not know."""


_CLASSES: dict[str, type[Error]] = {
    one.kind: one
    for one in (
        ParameterError,
        PermissionDenied,
        WrongPassphrase,
        OutOfMemory,
        OverLimit,
        StorageError,
        NoSpace,
        Damaged,
        Unsupported,
        Busy,
        Exists,
        NotTrusted,
        Interrupted,
    )
}

# The name by which programs know them.
for _one in (Error, InternalError, *_CLASSES.values()):
    _one.__module__ = "luksmith"


def _of(kind: str, message: str, hint: str | None) -> Error:
    """The exception of a failure."""
    error = _CLASSES.get(kind, InternalError)(message)
    error.hint = hint
    return error
