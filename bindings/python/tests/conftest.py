"""What the tests share: a folder with a key file and a volume in it, with cheap key derivations."""

import pathlib

import luksmith
import pytest

SIZE = 1 << 20
CHEAP = {"pbkdf": "pbkdf2", "pbkdf_force_iterations": 1000}


@pytest.fixture
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "key").write_bytes(b"correct horse battery staple")
    (tmp_path / "other").write_bytes(b"another passphrase")
    return tmp_path


@pytest.fixture
def volume(folder):
    with luksmith.create("disk.img", SIZE, key="file:key", **CHEAP) as made:
        yield made
