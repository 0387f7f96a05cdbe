"""A volume as a file object."""

from __future__ import annotations

import errno
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from ._luksmith import Volume


class VolumeFile(io.RawIOBase):
    """The plaintext of a volume as a seekable file without a buffer. `io.BufferedReader` and
    `io.BufferedRandom` add one. Its size is that of the volume: what would be written behind the
    end is not, as on a disk. Closing it flushes, and leaves the volume open."""

    def __init__(self, volume: Volume) -> None:
        super().__init__()
        self._volume = volume
        self._at = 0

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return not self._volume.read_only

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        self._check()
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._check()
        if whence == io.SEEK_SET:
            at = offset
        elif whence == io.SEEK_CUR:
            at = self._at + offset
        elif whence == io.SEEK_END:
            at = self._volume.size + offset
        else:
            raise ValueError(f"whence: {whence}")
        if at < 0:
            raise ValueError(f"a negative position: {at}")
        self._at = at
        return at

    def readinto(self, buffer: Buffer, /) -> int:
        self._check()
        with memoryview(buffer) as view:
            if view.nbytes == 0:
                return 0
            left = self._left(view.nbytes)
            if left == 0:
                return 0
            with view.cast("B") as whole, whole[:left] as part:
                count = self._volume.preadinto(part, self._at)
        self._at += count
        return count

    def write(self, buffer: Buffer, /) -> int:
        self._check()
        if not self.writable():
            raise io.UnsupportedOperation("the volume is only read")
        with memoryview(buffer) as view:
            left = self._left(view.nbytes)
            if view.nbytes == 0:
                return 0
            if left == 0:
                raise OSError(errno.ENOSPC, "the end of the volume")
            with view.cast("B") as whole, whole[:left] as part:
                count = self._volume.pwrite(part, self._at)
        self._at += count
        return count

    def flush(self) -> None:
        if not self.closed and not self._volume.closed and self.writable():
            self._volume.flush()
        super().flush()

    def _left(self, wanted: int) -> int:
        return max(0, min(wanted, self._volume.size - self._at))

    def _check(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")
