"""LUKS1 and LUKS2 volumes without root, device-mapper or mounting.

    with luksmith.open("disk.img", key="file:disk.key", write=True) as volume:
        volume.pwrite(b"any bytes, at any offset", 4711)
        volume.flush()

`open` and `create` give a `Volume`: a plaintext disk of bytes. `info`, `inspect` and `audit` return
the documents that the program prints with --json, as dicts.

A key is a SOURCE as text, in the language of the option --key ("file:PATH", "fd:N", "prompt",
"credential:NAME", "command:/PROGRAM", "helper:NAME:REFERENCE"), the passphrase itself as bytes, or
a function. The function gets what the passphrase opens, as a text for a person, and whether the
passphrase is new, and returns bytes. Python keeps copies of bytes in ordinary memory, which is not
wiped: a SOURCE is safer.

Options have the names of the command line, with underscores: `luksmith create --help` explains
them. Sizes are in bytes.

`progress`, where a function takes it, is a function of the name of the work, how much is done, and
how much there is in all, or None if that is not known. An exception that it raises ends the work.
It is called in the thread that has called luksmith, and may use the volume. It then waits for work
that has locked the volume.

An exception of such a function, or of a signal (Ctrl-C), may come when the work is already done:
then it has a note (`__notes__`) that luksmith had succeeded.

Failures raise an `Error`, whose class says the kind: `WrongPassphrase`, `Busy`, and so on. Notes
go to the logger "luksmith".

Threads can use a volume at the same time. The GIL is released meanwhile. A process that has forked
uses no volume of its parent.

Nothing changes the process but `harden`, which a program calls before it reads the first secret.
Without it, core dumps contain plaintext, and other processes of the same user can read its memory.
"""

from ._errors import (
    Busy,
    Damaged,
    Error,
    Exists,
    InternalError,
    Interrupted,
    NoSpace,
    NotTrusted,
    OutOfMemory,
    OverLimit,
    ParameterError,
    PermissionDenied,
    StorageError,
    Unsupported,
    WrongPassphrase,
)
from ._file import VolumeFile
from ._luksmith import (
    Server,
    Volume,
    __version__,
    audit,
    create,
    harden,
    info,
    inspect,
    open,
)

__all__ = [
    "Busy",
    "Damaged",
    "Error",
    "Exists",
    "InternalError",
    "Interrupted",
    "NoSpace",
    "NotTrusted",
    "OutOfMemory",
    "OverLimit",
    "ParameterError",
    "PermissionDenied",
    "Server",
    "StorageError",
    "Unsupported",
    "Volume",
    "VolumeFile",
    "WrongPassphrase",
    "__version__",
    "audit",
    "create",
    "harden",
    "info",
    "inspect",
    "open",
]
