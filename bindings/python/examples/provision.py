#!/usr/bin/env python3
"""Makes volumes for virtual machines, each with a key file of its own:

    provision.py FOLDER COUNT SIZE

FOLDER gets vm0.img, vm0.key, vm1.img and so on. SIZE is in bytes. What exists already is an error,
and stays as it is.
"""

import concurrent.futures
import os
import secrets
import sys

import luksmith


def provision(folder: str, name: str, size: int, **options) -> str:
    """Makes a volume and its key file, and returns the volume's UUID."""
    image, key = (os.path.join(folder, f"{name}.{end}") for end in ("img", "key"))
    # A new file, for this user only: 256 random bits need no slow key derivation.
    with open(key, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
        file.write(secrets.token_bytes(32))
        file.flush()
        os.fsync(file.fileno())
    try:
        options = {"pbkdf": "pbkdf2", "pbkdf_force_iterations": 1000, **options}
        with luksmith.create(image, size, key=f"file:{key}", label=name, **options) as volume:
            return volume.info()["uuid"]
    except BaseException:
        os.remove(key)
        raise


def main(arguments: list[str]) -> int:
    if len(arguments) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    luksmith.harden()
    folder, count, size = arguments[0], int(arguments[1]), int(arguments[2])
    names = [f"vm{number}" for number in range(count)]
    failed = 0
    with concurrent.futures.ThreadPoolExecutor() as pool:
        made = {name: pool.submit(provision, folder, name, size) for name in names}
        for name, future in made.items():
            try:
                print(name, future.result())
            except (luksmith.Error, OSError) as error:
                print(f"provision: {name}: {error}", file=sys.stderr)
                failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
