"""Volumes: made, opened, read and written, from several threads too."""

import array
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

import luksmith
import pytest
from conftest import CHEAP, SIZE


def test_a_volume_is_made_and_cryptsetup_opens_it(folder):
    with luksmith.create("a.img", SIZE, key="file:key", label="from Python", **CHEAP) as volume:
        assert (volume.size, volume.sector_size) == (SIZE, 4096)
        assert not volume.locked and not volume.read_only
        assert volume.pwrite(b"hello", 4711) == 5
    assert volume.closed
    with pytest.raises(ValueError, match="closed"):
        volume.pread(5, 4711)
    with luksmith.open("a.img", key="file:key") as volume:
        assert volume.pread(5, 4711) == b"hello"
        assert volume.read_only
        with pytest.raises(luksmith.PermissionDenied):
            volume.pwrite(b"x", 0)
    command = ["/usr/sbin/cryptsetup", "open", "--test-passphrase", "a.img", "--key-file"]
    if os.path.exists(command[0]) or os.environ.get("CI") == "true":
        assert subprocess.run([*command, "key"]).returncode == 0
        assert subprocess.run([*command, "other"], capture_output=True).returncode == 2
    info = luksmith.info(pathlib.Path("a.img"))
    assert (info["label"], info["type"], len(info["keyslots"])) == ("from Python", "luks2", 1)


def test_keys_come_from_text_bytes_and_functions(folder, volume):
    volume.close()
    asked = []

    def ask(what, is_new):
        asked.append((what, is_new))
        return bytearray(b"correct horse battery staple")

    for key in ["file:key", b"correct horse battery staple", ask]:
        luksmith.open("disk.img", key=key).close()
    assert asked == [("disk.img", False)]
    for key in ["file:other", b"no", lambda what, is_new: b"no"]:
        with pytest.raises(luksmith.WrongPassphrase) as caught:
            luksmith.open("disk.img", key=key)
        assert caught.value.kind == "wrong-passphrase"

    def fail(what, is_new):
        raise KeyError("no such key")

    with pytest.raises(KeyError, match="no such key"):
        luksmith.open("disk.img", key=fail)
    with pytest.raises(TypeError):
        luksmith.open("disk.img", key=lambda what, is_new: "text")
    with pytest.raises(TypeError):
        luksmith.open("disk.img", key=5)
    with pytest.raises(luksmith.ParameterError) as caught:
        luksmith.open("disk.img", key="correct horse")
    assert "horse" not in str(caught.value)
    # It stays locked until a key opens it.
    with luksmith.open("disk.img") as locked:
        assert locked.locked and locked.size == SIZE
        with pytest.raises(luksmith.ParameterError, match="not unlocked"):
            locked.pread(1, 0)
        assert locked.unlock("file:key") == 0
        assert not locked.locked


def test_failures_have_their_classes(folder, volume):
    with pytest.raises(luksmith.Busy):
        luksmith.open("disk.img", key="file:key", write=True)
    pathlib.Path("there.img").write_bytes(b"data")
    with pytest.raises(luksmith.Exists) as caught:
        luksmith.create("there.img", SIZE, key="file:key", **CHEAP)
    assert "overwrite" in caught.value.hint
    with pytest.raises(luksmith.StorageError) as caught:
        luksmith.open("no.img", key="file:key")
    assert isinstance(caught.value, OSError)
    with pytest.raises(luksmith.ParameterError) as caught:
        luksmith.create("b.img", SIZE, key="file:key", lable="x")
    assert isinstance(caught.value, ValueError) and "lable" in str(caught.value)
    with pytest.raises(TypeError):
        luksmith.create("b.img", SIZE, key="file:key", label=["x"])
    pathlib.Path("none.img").write_bytes(bytes(1 << 16))
    with pytest.raises(luksmith.Damaged):
        luksmith.open("none.img")
    assert all(issubclass(one, luksmith.Error) for one in [luksmith.Busy, luksmith.NoSpace])


def test_buffers_are_filled_and_written(volume):
    buffer = bytearray(b"." * 10000)
    assert volume.pwrite(bytes(range(200)), 1000) == 200
    assert volume.preadinto(memoryview(buffer)[100:300], 1000) == 200
    assert buffer == b"." * 100 + bytes(range(200)) + b"." * 9700
    assert volume.preadinto(bytearray(), 0) == 0
    with pytest.raises(BufferError):
        volume.preadinto(b"only read", 0)
    with pytest.raises(BufferError):
        volume.pwrite(memoryview(buffer)[::2], 0)
    words = array.array("I", [0] * 4)
    with pytest.raises(BufferError):
        volume.preadinto(words, 0)
    assert volume.preadinto(memoryview(words).cast("B"), 1000) == len(words) * words.itemsize
    assert words.tobytes() == bytes(range(16))
    with pytest.raises(luksmith.StorageError):
        volume.preadinto(buffer, SIZE - 9999)
    with pytest.raises(OverflowError):
        volume.pread(1, -1)
    volume.write_zeroes(1100, 100)
    assert volume.pread(200, 1000) == bytes(range(100)) + bytes(100)
    volume.discard(0, 4096)


def test_threads_share_a_volume_and_a_buffer(volume):
    shared = bytearray(1 << 16)

    def work(own):
        block = bytes([own]) * len(shared)
        for _ in range(30):
            volume.pwrite(block, 777)
            # Another thread fills the same buffer.
            volume.preadinto(shared, 777)
            read = volume.pread(len(block), 777)
            assert read.count(read[0]) == len(read), "a write is seen as a whole"
            volume.pwrite(shared, 200_000)

    failed = []

    def caught(own):
        try:
            work(own)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=caught, args=(own,)) for own in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


def test_keyslots_change(folder, volume):
    assert volume.add_key("file:other", keyslot=3, **CHEAP) == 3
    assert volume.change_key("file:other", b"third", keyslot=3, **CHEAP) == 3
    with pytest.raises(luksmith.WrongPassphrase):
        volume.change_key("file:other", b"third", **CHEAP)
    with pytest.raises(luksmith.PermissionDenied) as caught:
        volume.remove_keyslot(0)
    assert "unproven" in caught.value.hint
    assert volume.remove_keyslot(3) == 1
    with pytest.raises(luksmith.PermissionDenied) as caught:
        volume.remove_keyslot(0)
    assert "last-keyslot" in caught.value.hint
    assert [slot["keyslot"] for slot in volume.info()["keyslots"]] == [0]


def test_the_size_changes(volume):
    volume.resize(2 * SIZE)
    volume.pwrite(b"end", 2 * SIZE - 3)
    with pytest.raises(luksmith.PermissionDenied):
        volume.resize(SIZE)
    volume.resize(SIZE, shrink=True)
    assert volume.size == SIZE


def test_progress_is_reported_and_can_end_the_work(folder):
    told = []
    luksmith.create("a.img", SIZE, key="file:key", progress=lambda *it: told.append(it), **CHEAP)
    assert ("deriving the key", 0, None) in told

    def stop(work, done, total):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        luksmith.create("b.img", SIZE, key="file:key", progress=stop, **CHEAP)
    assert not os.path.exists("b.img")


def test_a_callback_uses_the_volume_while_its_keyslots_change(folder):
    # A lock that is never released would let the test wait without end.
    code = """
import threading, luksmith
cheap = {"pbkdf": "pbkdf2", "pbkdf_force_iterations": 3000000}
volume = luksmith.create("a.img", 1 << 20, key="file:key", **cheap)
seen = []

def look(*what):
    seen.append((what, volume.size, volume.sector_size, volume.locked, volume.closed))
    assert volume.info()["keyslots"]
    assert volume.pread(1, 0)

running = True

def others():
    while running:
        assert volume.info()["keyslots"] and volume.size == 1 << 20

thread = threading.Thread(target=others)
thread.start()
assert volume.add_key("file:other", progress=look, **cheap) == 1
assert volume.change_key("file:other", b"third", progress=look, **cheap) > 0
volume.unlock(b"third", progress=lambda *what: volume.resize(2 << 20))
running = False
thread.join()
assert len(seen) >= 3, seen
assert volume.size == 2 << 20
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_what_is_raised_after_success_says_so(folder, volume):
    def stop(work, done, total):
        # By then the key derivation, which takes less than a millisecond, has ended.
        time.sleep(1)
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough") as caught:
        volume.add_key("file:other", progress=stop, **CHEAP)
    assert ["luksmith had succeeded" in note for note in caught.value.__notes__] == [True]
    assert len(volume.info()["keyslots"]) == 2


def test_options_that_contradict_are_refused(folder, volume):
    volume.close()
    for options in [
        {"write": True, "read_only": True},
        {"write": False, "read_only": False},
        {"write": True, "force_share": True},
    ]:
        with pytest.raises(ValueError, match="read.only|force.share"):
            luksmith.open("disk.img", key="file:key", **options)
    luksmith.open("disk.img", key="file:key", read_only=True, force_share=True).close()


def test_a_range_outside_of_the_volume_takes_no_memory(volume):
    with pytest.raises(luksmith.StorageError):
        volume.pread(1 << 40, 0)
    with pytest.raises(luksmith.StorageError):
        volume.pread(1, (1 << 64) - 1)
    assert volume.pread(0, SIZE) == b""


def test_an_interrupt_ends_a_key_derivation(folder, volume):
    volume.close()
    # Python does not handle a signal that was ignored when it started, as in a job of a shell.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with luksmith.open("disk.img", key="file:key", write=True) as opened:
        # It takes many seconds to its end.
        slow = {"pbkdf": "pbkdf2", "pbkdf_force_iterations": 100_000_000}
        timer = threading.Timer(0.5, signal.raise_signal, [signal.SIGINT])
        timer.start()
        began = time.monotonic()
        try:
            with pytest.raises(KeyboardInterrupt):
                opened.add_key("file:other", **slow)
        finally:
            timer.cancel()
        assert time.monotonic() - began < 10
        # The volume can still be used.
        assert opened.add_key("file:other", **CHEAP) == 1


def test_a_volume_is_served(folder, volume):
    volume.pwrite(b"served", 0)
    with volume.serve(folder / "run" / "nbd.sock", name="disk") as server:
        assert server.uri.startswith("nbd+unix:///disk?socket=/")
        nbdinfo = shutil.which("nbdinfo")
        assert nbdinfo or os.environ.get("CI") != "true"
        if nbdinfo:
            assert int(subprocess.check_output([nbdinfo, "--size", server.uri])) == SIZE
    assert not (folder / "run" / "nbd.sock").exists()
    server.stop()


def receive(client, length):
    received = bytearray()
    while len(received) < length:
        received += client.recv(length - len(received)) or pytest.fail("the server hung up")
    return bytes(received)


def test_a_server_that_is_dropped_lets_other_threads_run(folder, volume):
    server = volume.serve(folder / "run" / "nbd.sock")
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(folder / "run" / "nbd.sock"))
    receive(client, 18)
    # The client takes the default export, without the zeroes behind its size.
    client.sendall(struct.pack(">I8sII", 3, b"IHAVEOPT", 1, 0))
    receive(client, 10)
    client.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 0, 7, 0, SIZE))
    reply = [receive(client, 16)]
    # The rest of the reply does not fit the socket. The server waits for the client to take it.
    thread = threading.Thread(target=lambda: time.sleep(0.5) or reply.append(receive(client, SIZE)))
    thread.start()
    began = time.monotonic()
    del server
    thread.join()
    assert len(reply) == 2 and len(reply[1]) == SIZE
    assert time.monotonic() - began < 4
    client.close()


def test_the_process_is_hardened():
    code = (
        "import luksmith, resource; luksmith.harden();"
        "assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
