/*
 * Writes bytes of the plaintext of a volume to standard output:
 *
 *     read IMAGE SOURCE OFFSET LENGTH
 *
 * SOURCE says where the passphrase comes from, such as file:disk.key or prompt.
 *
 *     cc read.c -o read $(pkg-config --cflags --libs luksmith)
 */
#include <luksmith.h>

#include <stdio.h>
#include <stdlib.h>

/* Ends the program if a function has failed. */
static void need(int kind, luksmith_error **error) {
    if (kind != LUKSMITH_OK) {
        fprintf(stderr, "read: %s\n", luksmith_error_message(*error));
        if (luksmith_error_hint(*error) != NULL) {
            fprintf(stderr, "read: %s\n", luksmith_error_hint(*error));
        }
        exit(1);
    }
}

int main(int argc, char **argv) {
    luksmith_error *error = NULL;
    if (argc != 5) {
        fprintf(stderr, "usage: read IMAGE SOURCE OFFSET LENGTH\n");
        return 2;
    }
    need(luksmith_harden(&error), &error);
    uint64_t at = strtoull(argv[3], NULL, 10), left = strtoull(argv[4], NULL, 10);

    luksmith_options *options = luksmith_options_new();
    need(luksmith_options_set(options, "read-only", "true", &error), &error);
    luksmith_volume *volume = NULL;
    need(luksmith_open(argv[1], options, &volume, &error), &error);
    luksmith_options_free(options);

    luksmith_key *key = NULL;
    need(luksmith_key_source(argv[2], &key, &error), &error);
    need(luksmith_unlock(volume, NULL, key, &error), &error);
    luksmith_key_free(key);

    static unsigned char buffer[1 << 16];
    while (left > 0) {
        size_t length = left < sizeof buffer ? (size_t)left : sizeof buffer;
        need(luksmith_read(volume, buffer, length, at, &error), &error);
        if (fwrite(buffer, 1, length, stdout) != length) {
            perror("read");
            return 1;
        }
        at += length;
        left -= length;
    }
    luksmith_close(volume);
    return fflush(stdout) == 0 ? 0 : 1;
}
