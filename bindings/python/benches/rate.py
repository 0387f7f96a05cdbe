"""Reads all of disk.img with disk.key in pieces of 1 MiB, five times, and prints the best rate in MiB
per second of processor time. bindings/c/benches/rate.c does the same in C."""

import time

import luksmith

PIECE = 1 << 20
best, buffer = 0.0, bytearray(PIECE)
with luksmith.open("disk.img", key="file:disk.key") as volume:
    size = volume.size
    for _ in range(5):
        began = time.process_time()
        for at in range(0, size, PIECE):
            volume.preadinto(buffer, at)
        best = max(best, size / PIECE / (time.process_time() - began))
print(f"{best:.0f}")
