"""A volume as a file object."""

import io
import random

import luksmith
import pytest
from conftest import CHEAP, SIZE


def test_a_file_seeks_reads_and_writes(volume):
    file = volume.file()
    assert isinstance(file, io.RawIOBase) and isinstance(file, luksmith.VolumeFile)
    assert file.readable() and file.writable() and file.seekable()
    assert file.write(b"0123456789") == 10 and file.tell() == 10
    assert file.seek(3) == 3 and file.read(4) == b"3456"
    assert file.seek(-2, io.SEEK_CUR) == 5 and file.read(1) == b"5"
    assert file.read(0) == b"" and file.write(b"") == 0
    assert file.seek(-4, io.SEEK_END) == SIZE - 4
    assert len(file.read(100)) == 4 and file.read(1) == b""
    with pytest.raises(OSError, match="end of the volume"):
        file.write(b"x")
    assert file.seek(-2, io.SEEK_END) and file.write(b"abcd") == 2
    for behind in (1, 5000, 1 << 70):
        assert file.seek(behind, io.SEEK_END) == SIZE + behind
        assert file.read() == b"" and file.read(10) == b"" and file.readinto(bytearray(9)) == 0
    with pytest.raises(ValueError):
        file.seek(-1)
    file.close()
    with pytest.raises(ValueError):
        file.tell()
    assert not volume.closed and volume.pread(2, SIZE - 2) == b"ab"


def test_a_buffered_file_is_like_bytes(volume):
    volume.write_zeroes(0, SIZE)
    model, choose = io.BytesIO(bytes(SIZE)), random.Random(1)
    with io.BufferedRandom(volume.file(), 5000) as file:
        for _ in range(500):
            at, length = choose.randrange(SIZE), choose.randrange(20_000)
            for one in (file, model):
                one.seek(at)
            if choose.random() < 0.5:
                piece = choose.randbytes(min(length, SIZE - at))
                assert file.write(piece) == model.write(piece)
            else:
                assert file.read(length) == model.read(length)
    assert volume.pread(SIZE, 0) == model.getvalue()


def test_a_file_of_a_read_only_volume_is_only_read(folder, volume):
    volume.close()
    with luksmith.open("disk.img", key="file:key") as opened:
        file = io.BufferedReader(opened.file())
        assert len(file.read()) == SIZE
        with pytest.raises(io.UnsupportedOperation):
            opened.file().write(b"x")


def test_a_file_outlives_its_volume(folder):
    with luksmith.create("a.img", SIZE, key="file:key", **CHEAP) as volume:
        file = volume.file()
    with pytest.raises(ValueError, match="closed"):
        file.read(1)
    file.close()
