/*
 * Reads all of disk.img with disk.key in pieces of 1 MiB, five times, and prints the best rate in
 * MiB per second of processor time. bindings/python/benches/rate.py does the same in Python.
 */
#include <luksmith.h>

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define PIECE (1 << 20)

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

int main(void) {
    luksmith_volume *volume = NULL;
    luksmith_key *key = NULL;
    unsigned char *buffer = calloc(1, PIECE);
    double best = 0;
    if (luksmith_key_source("file:disk.key", &key, NULL)
        || luksmith_open("disk.img", NULL, &volume, NULL) || luksmith_unlock(volume, NULL, key, NULL)) {
        return 1;
    }
    for (int round = 0; round < 5; round++) {
        double began = now();
        for (uint64_t at = 0; at < luksmith_size(volume); at += PIECE) {
            if (luksmith_read(volume, buffer, PIECE, at, NULL)) {
                return 1;
            }
        }
        double rate = (double)luksmith_size(volume) / PIECE / (now() - began);
        best = rate > best ? rate : best;
    }
    printf("%.0f\n", best);
    return 0;
}
