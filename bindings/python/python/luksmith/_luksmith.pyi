from collections.abc import Callable
from os import PathLike
from typing import Any, Literal, TypeAlias, TypedDict, Unpack, final

from typing_extensions import Buffer

from ._file import VolumeFile

Path: TypeAlias = str | PathLike[str]
Key: TypeAlias = str | bytes | bytearray | Callable[[str, bool], bytes | bytearray]
Progress: TypeAlias = Callable[[str, int, int | None], object]
Format: TypeAlias = Literal["raw", "qcow2"]
Pbkdf: TypeAlias = Literal["argon2id", "argon2i", "pbkdf2"]

class _OpenOptions(TypedDict, total=False):
    format: Format | None
    header: str | PathLike[str] | None
    force_share: bool | None
    trust: str | PathLike[str] | None

class _CostOptions(TypedDict, total=False):
    iter_time: int | None
    pbkdf: Pbkdf | None
    pbkdf_force_iterations: int | None
    pbkdf_memory: int | None
    pbkdf_parallel: int | None

class _CreateOptions(_CostOptions, total=False):
    cipher: str | None
    cluster_size: int | None
    force: str | None
    format: Format | None
    hash: str | None
    header: str | PathLike[str] | None
    key_size: int | None
    keyslot: int | None
    label: str | None
    preallocate: bool | None
    sector_size: int | None
    subsystem: str | None
    type: Literal["luks1", "luks2"] | None
    uuid: str | None

class _ServeOptions(TypedDict, total=False):
    description: str | None
    discard: Literal["deny", "pass", "zeroes"] | None
    max_connections: int | None
    name: str | None
    read_only: bool | None
    socket_group: int | None
    socket_mode: str | None

class _InspectOptions(TypedDict, total=False):
    follow_symlinks: bool | None
    force_share: bool | None
    max_size: int | None
    policy: str | PathLike[str] | None

__version__: str

def harden() -> None: ...
def open(
    image: Path,
    *,
    key: Key | None = None,
    write: bool = False,
    keyslot: int | None = None,
    progress: Progress | None = None,
    **options: Unpack[_OpenOptions],
) -> Volume: ...
def create(
    image: Path,
    size: int | None = None,
    *,
    key: Key,
    progress: Progress | None = None,
    **options: Unpack[_CreateOptions],
) -> Volume: ...
def info(image: Path, **options: Unpack[_OpenOptions]) -> dict[str, Any]: ...
def inspect(image: Path, format: str, **options: Unpack[_InspectOptions]) -> dict[str, Any]: ...
def audit(
    documents: list[Path],
    *,
    host: bool = False,
    root: Path = "/",
    images: bool = True,
    policy: Path | None = None,
) -> dict[str, Any]: ...

@final
class Volume:
    @property
    def size(self) -> int | None: ...
    @property
    def sector_size(self) -> int: ...
    @property
    def read_only(self) -> bool: ...
    @property
    def locked(self) -> bool: ...
    @property
    def closed(self) -> bool: ...
    def unlock(
        self, key: Key, *, keyslot: int | None = None, progress: Progress | None = None
    ) -> int | None: ...
    def pread(self, size: int, offset: int) -> bytes: ...
    def preadinto(self, buffer: Buffer, offset: int) -> int: ...
    def pwrite(self, buffer: Buffer, offset: int) -> int: ...
    def flush(self) -> None: ...
    def discard(self, offset: int, size: int) -> None: ...
    def write_zeroes(self, offset: int, size: int) -> None: ...
    def resize(self, size: int, *, shrink: bool = False) -> None: ...
    def info(self) -> dict[str, Any]: ...
    def file(self) -> VolumeFile: ...
    def add_key(
        self,
        new_key: Key,
        *,
        keyslot: int | None = None,
        progress: Progress | None = None,
        **options: Unpack[_CostOptions],
    ) -> int: ...
    def change_key(
        self,
        old_key: Key,
        new_key: Key,
        *,
        keyslot: int | None = None,
        progress: Progress | None = None,
        **options: Unpack[_CostOptions],
    ) -> int: ...
    def remove_keyslot(
        self, keyslot: int, *, last: bool = False, unproven: bool = False
    ) -> int: ...
    def serve(self, socket: Path, **options: Unpack[_ServeOptions]) -> Server: ...
    def close(self) -> None: ...
    def __enter__(self) -> Volume: ...
    def __exit__(self, *_exception: object) -> None: ...

@final
class Server:
    @property
    def uri(self) -> str: ...
    def stop(self) -> None: ...
    def __enter__(self) -> Server: ...
    def __exit__(self, *_exception: object) -> None: ...
