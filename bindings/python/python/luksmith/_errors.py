"""The exceptions, one for each kind of failure."""

from __future__ import annotations

_CLASSES: dict[str, type[Error]] = {}


class Error(Exception):
    """A failure. Its text is one line; `kind` names the kind, as in the JSON of the program, and
    `hint` says what may help, or is None."""

    __module__ = "luksmith"
    kind: str = "internal"
    hint: str | None = None

    def __init_subclass__(cls, *, kind: str | None = None) -> None:
        """Makes a class with a kind the exception of that kind."""
        super().__init_subclass__()
        if kind is not None:
            # The name by which programs know it.
            cls.__module__ = "luksmith"
            cls.kind = kind
            _CLASSES[kind] = cls


class ParameterError(Error, ValueError, kind="parameters"):
    """The parameters contradict each other or the image."""


class PermissionDenied(Error, kind="permission"):
    """The system refuses access, or `force` has to permit it."""


class WrongPassphrase(Error, kind="wrong-passphrase"):
    """No keyslot opens with the passphrase, or a new passphrase is empty."""


class OutOfMemory(Error, kind="memory"):
    """Memory or locked memory is short, or no thread starts."""


class OverLimit(Error, kind="over-limit"):
    """A header asks for more memory or time than the limits allow."""


class StorageError(Error, OSError, kind="storage"):
    """The storage failed, is missing, or is the wrong kind of thing."""


class NoSpace(StorageError, kind="no-space"):
    """The storage or the quota is full."""


class Damaged(Error, kind="damaged"):
    """A header or an image is malformed, cut off, or not in the format that was stated."""


class Unsupported(Error, kind="unsupported"):
    """The request is valid, but this module cannot carry it out."""


class Busy(Error, kind="busy"):
    """Another program has it open, or changed it meanwhile."""


class Exists(Error, kind="exists"):
    """Something exists already."""


class NotTrusted(Error, kind="not-trusted"):
    """A volume is not as it is pinned."""


class Interrupted(Error, kind="interrupted"):
    """The work was interrupted, and left nothing half done."""


class InternalError(Error, kind="internal"):
    """A kind that this version of the module does not know."""


def _of(kind: str, message: str, hint: str | None) -> Error:
    """The exception of a failure."""
    error = _CLASSES.get(kind, InternalError)(message)
    error.hint = hint
    return error
