"""The examples, and the code of docs/library.md and of README.md."""

import hashlib
import pathlib
import re
import stat
import subprocess
import sys

import luksmith
import pytest
from conftest import SIZE

HERE = pathlib.Path(__file__).parent.parent


def run(name, *arguments):
    command = [sys.executable, str(HERE / "examples" / name), *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_backup_has_the_plaintext(folder, volume):
    volume.write_zeroes(0, SIZE)
    volume.pwrite(b"data", 500_000)
    plain = volume.pread(SIZE, 0)
    volume.close()
    done = run("backup.py", "disk.img", "file:key", "plain.img")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == hashlib.sha256(plain).hexdigest()
    backup = folder / "plain.img"
    assert backup.read_bytes() == plain
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    done = run("backup.py", "disk.img", "file:other", "plain2.img")
    assert done.returncode == 1 and "no keyslot opens" in done.stderr


def test_ten_volumes_are_provisioned(folder):
    done = run("provision.py", ".", "10", str(SIZE))
    assert (done.returncode, done.stderr) == (0, "")
    assert len(set(line.split()[1] for line in done.stdout.splitlines())) == 10
    for number in range(10):
        with luksmith.open(f"vm{number}.img", key=f"file:vm{number}.key") as volume:
            assert volume.size == SIZE
    # Nothing that exists is replaced.
    key = (folder / "vm3.key").read_bytes()
    assert run("provision.py", ".", "10", str(SIZE)).returncode == 1
    assert (folder / "vm3.key").read_bytes() == key


def code():
    for path in (HERE / "README.md", HERE.parent.parent / "docs" / "library.md"):
        for block in re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL):
            yield pytest.param(block, id=f"{path.name}-{len(block)}")


@pytest.mark.parametrize("block", code())
def test_the_code_of_the_pages_works(folder, block):
    (folder / "disk.key").write_bytes(b"correct horse battery staple")
    cheap = "import functools, luksmith\n" + (
        "luksmith.create = functools.partial("
        "luksmith.create, pbkdf='pbkdf2', pbkdf_force_iterations=1000)\n"
    )
    if "luksmith.create(" not in block:
        cheap += "luksmith.create('disk.img', 1 << 20, key='file:disk.key').close()\n"
    subprocess.run([sys.executable, "-c", cheap + block], check=True)
