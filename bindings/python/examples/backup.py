#!/usr/bin/env python3
"""Copies the plaintext of a volume into a file, and prints its SHA-256:

    backup.py IMAGE SOURCE FILE

SOURCE says where the passphrase comes from, such as file:disk.key or prompt. Holes are not made:
blocks of zeroes in the volume are holes in FILE, which is readable only by this user.
"""

import hashlib
import os
import sys

import luksmith

PIECE = 1 << 20


def backup(image: str, key: str, to: str) -> str:
    """Copies the volume, and returns the SHA-256 of its plaintext."""
    digest, buffer = hashlib.sha256(), bytearray(PIECE)
    with luksmith.open(image, key=key) as volume, open(to, "xb", opener=private) as file:
        size = volume.size or 0
        file.truncate(size)
        for at in range(0, size, PIECE):
            with memoryview(buffer)[: min(PIECE, size - at)] as piece:
                volume.preadinto(piece, at)
                digest.update(piece)
                if any(piece):
                    os.pwrite(file.fileno(), piece, at)
        os.fsync(file.fileno())
    return digest.hexdigest()


def private(path: str, flags: int) -> int:
    """Opens a file for this user only."""
    return os.open(path, flags, 0o600)


def main(arguments: list[str]) -> int:
    if len(arguments) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    luksmith.harden()
    try:
        print(backup(*arguments))
    except luksmith.Error as error:
        print(f"backup: {error}", file=sys.stderr)
        if error.hint:
            print(f"backup: {error.hint}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
