/*
 * The whole interface, on volumes in the directory that the first argument names. It leaves
 * `two.img` for other programs: its passphrases are in `key` and `other`.
 */
#include <luksmith.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define SIZE (1 << 20)

/* Fails with the line and what is false. */
#define CHECK(true_) check((true_) != 0, __LINE__, #true_)

static void check(int is_true, int line, const char *what) {
    if (!is_true) {
        fprintf(stderr, "line %d: not %s\n", line, what);
        exit(1);
    }
}

/* Expects success, and shows the error of a failure. */
#define WORKS(call) works((call), &error, __LINE__, #call)

static void works(int kind, luksmith_error **error, int line, const char *call) {
    if (kind != LUKSMITH_OK || *error != NULL) {
        const char *hint = luksmith_error_hint(*error);
        fprintf(stderr, "line %d: %s: %s: %s (%s)\n", line, call, luksmith_kind_name(kind),
                luksmith_error_message(*error), hint ? hint : "no hint");
        exit(1);
    }
}

/* Expects a failure of this kind, whose error is in `error`. */
#define FAILS(expected, call) fails((expected), (call), &error, __LINE__, #call)

static void fails(int expected, int kind, luksmith_error **error, int line, const char *call) {
    if (kind != expected || luksmith_error_kind(*error) != expected
        || strlen(luksmith_error_message(*error)) == 0) {
        fprintf(stderr, "line %d: %s: %s: %s\n", line, call, luksmith_kind_name(kind),
                luksmith_error_message(*error));
        exit(1);
    }
    luksmith_error_free(*error);
    *error = NULL;
}

static luksmith_options *cheap(void) {
    luksmith_error *error = NULL;
    luksmith_options *options = luksmith_options_new();
    WORKS(luksmith_options_set(options, "pbkdf", "pbkdf2", &error));
    WORKS(luksmith_options_set(options, "pbkdf-force-iterations", "1000", &error));
    return options;
}

static luksmith_options *forced(const char *what) {
    luksmith_error *error = NULL;
    luksmith_options *options = luksmith_options_new();
    WORKS(luksmith_options_set(options, "force", what, &error));
    return options;
}

static luksmith_key *source(const char *text) {
    luksmith_error *error = NULL;
    luksmith_key *key = NULL;
    WORKS(luksmith_key_source(text, &key, &error));
    return key;
}

/* A passphrase that the program gives: `data` is it, and its call is counted. */
struct given {
    const char *passphrase;
    int calls;
};

static ptrdiff_t give(void *data, const char *what, int is_new, unsigned char *buffer, size_t size) {
    struct given *given = data;
    given->calls++;
    CHECK(strlen(what) > 0 && !is_new && size == 4096);
    if (given->passphrase == NULL) {
        return -1;
    }
    memcpy(buffer, given->passphrase, strlen(given->passphrase));
    return (ptrdiff_t)strlen(given->passphrase);
}

/* Each thread writes and reads blocks of its own, and one that both share. */
struct worker {
    luksmith_volume *volume;
    unsigned char own;
};

static void *work(void *data) {
    struct worker *worker = data;
    luksmith_error *error = NULL;
    unsigned char block[5000], back[5000];
    memset(block, worker->own, sizeof block);
    for (int round = 0; round < 20; round++) {
        uint64_t at = (uint64_t)(2 * round + worker->own % 2) * sizeof block + 100;
        WORKS(luksmith_write(worker->volume, block, sizeof block, at, &error));
        WORKS(luksmith_read(worker->volume, back, sizeof back, at, &error));
        CHECK(memcmp(block, back, sizeof block) == 0);
        WORKS(luksmith_write(worker->volume, block, sizeof block, SIZE - sizeof block, &error));
        WORKS(luksmith_read(worker->volume, back, sizeof back, SIZE - sizeof back, &error));
        /* A write is seen as a whole. */
        for (size_t n = 1; n < sizeof back; n++) {
            CHECK(back[n] == back[0]);
        }
    }
    return NULL;
}

static void makes_and_opens(void) {
    luksmith_error *error = NULL;
    luksmith_volume *volume = NULL;
    luksmith_key *key = source("file:key"), *wrong = source("file:other");
    luksmith_options *options = cheap();
    WORKS(luksmith_options_set(options, "label", "from C", &error));
    WORKS(luksmith_create("one.img", SIZE, options, key, NULL, &error));
    FAILS(LUKSMITH_EXISTS, luksmith_create("one.img", SIZE, options, key, NULL, &error));
    WORKS(luksmith_options_set(options, "force", "overwrite", &error));
    WORKS(luksmith_create("one.img", SIZE, options, key, &volume, &error));
    WORKS(luksmith_write(volume, "hello", 5, 4711, &error));
    WORKS(luksmith_flush(volume, &error));
    luksmith_close(volume);

    volume = NULL;
    WORKS(luksmith_open("one.img", NULL, &volume, &error));
    CHECK(luksmith_size(volume) == SIZE && luksmith_sector_size(volume) == 0);
    unsigned char buffer[5];
    FAILS(LUKSMITH_PARAMETERS, luksmith_read(volume, buffer, 5, 4711, &error));
    FAILS(LUKSMITH_WRONG_PASSPHRASE, luksmith_unlock(volume, NULL, wrong, &error));
    WORKS(luksmith_unlock(volume, NULL, key, &error));
    CHECK(luksmith_sector_size(volume) == 4096);
    WORKS(luksmith_read(volume, buffer, 5, 4711, &error));
    CHECK(memcmp(buffer, "hello", 5) == 0);
    FAILS(LUKSMITH_STORAGE, luksmith_read(volume, buffer, 5, SIZE - 4, &error));
    FAILS(LUKSMITH_PARAMETERS, luksmith_discard(volume, 4096, UINT64_MAX, &error));
    WORKS(luksmith_read(volume, NULL, 0, 0, &error));

    /* The error is not wanted. */
    CHECK(luksmith_read(volume, buffer, 5, SIZE, NULL) == LUKSMITH_STORAGE);

    /* The volume is open for writing. */
    luksmith_volume *second = NULL;
    FAILS(LUKSMITH_BUSY, luksmith_open("one.img", NULL, &second, &error));
    CHECK(second == NULL);

    WORKS(luksmith_write_zeroes(volume, 4712, 3, &error));
    WORKS(luksmith_read(volume, buffer, 5, 4711, &error));
    CHECK(memcmp(buffer, "h\0\0\0o", 5) == 0);
    WORKS(luksmith_discard(volume, 8192, 8192, &error));

    char *json = NULL;
    WORKS(luksmith_info(volume, &json, &error));
    CHECK(strstr(json, "\"label\":\"from C\"") && strstr(json, "\"keyslots\":[{"));
    luksmith_string_free(json);

    WORKS(luksmith_resize(volume, 2 * SIZE, NULL, &error));
    CHECK(luksmith_size(volume) == 2 * SIZE);
    WORKS(luksmith_write(volume, "end", 3, 2 * SIZE - 3, &error));
    FAILS(LUKSMITH_PERMISSION, luksmith_resize(volume, SIZE, NULL, &error));
    luksmith_options *shrink = forced("shrink");
    WORKS(luksmith_resize(volume, SIZE, shrink, &error));
    CHECK(luksmith_size(volume) == SIZE);
    luksmith_options_free(shrink);
    luksmith_close(volume);

    volume = NULL;
    WORKS(luksmith_options_set(options, "read-only", "true", &error));
    FAILS(LUKSMITH_PARAMETERS, luksmith_open("one.img", options, &volume, &error));
    luksmith_options_free(options);
    options = luksmith_options_new();
    WORKS(luksmith_options_set(options, "read-only", "true", &error));
    WORKS(luksmith_options_set(options, "force-share", "true", &error));
    WORKS(luksmith_open("one.img", options, &volume, &error));
    luksmith_close(volume);
    volume = NULL;
    WORKS(luksmith_options_set(options, "read-only", "false", &error));
    FAILS(LUKSMITH_PARAMETERS, luksmith_open("one.img", options, &volume, &error));
    WORKS(luksmith_options_set(options, "read-only", "true", &error));
    WORKS(luksmith_options_set(options, "force-share", "false", &error));
    WORKS(luksmith_open("one.img", options, &volume, &error));
    WORKS(luksmith_unlock(volume, NULL, key, &error));
    FAILS(LUKSMITH_PERMISSION, luksmith_write(volume, "x", 1, 0, &error));
    FAILS(LUKSMITH_PERMISSION, luksmith_resize(volume, 2 * SIZE, NULL, &error));
    luksmith_close(volume);
    luksmith_options_free(options);
    luksmith_key_free(key);
    luksmith_key_free(wrong);
}

static void asks_the_program(void) {
    luksmith_error *error = NULL;
    luksmith_volume *volume = NULL;
    WORKS(luksmith_open("one.img", NULL, &volume, &error));
    struct given given = {NULL, 0};
    luksmith_key *key = NULL;
    WORKS(luksmith_key_callback(give, &given, &key, &error));
    FAILS(LUKSMITH_INTERRUPTED, luksmith_unlock(volume, NULL, key, &error));
    given.passphrase = "not the passphrase";
    FAILS(LUKSMITH_WRONG_PASSPHRASE, luksmith_unlock(volume, NULL, key, &error));
    given.passphrase = "correct horse battery staple";
    WORKS(luksmith_unlock(volume, NULL, key, &error));
    CHECK(given.calls == 3);
    luksmith_interrupt(volume);
    FAILS(LUKSMITH_INTERRUPTED, luksmith_unlock(volume, NULL, key, &error));
    luksmith_key_free(key);
    luksmith_close(volume);
    FAILS(LUKSMITH_PARAMETERS, luksmith_key_source("correct horse", &key, &error));
}

static void changes_keyslots(luksmith_volume *volume) {
    luksmith_error *error = NULL;
    luksmith_key *key = source("file:key"), *other = source("file:other");
    luksmith_options *options = cheap();
    uint32_t slot = 99;
    WORKS(luksmith_options_set(options, "keyslot", "3", &error));
    WORKS(luksmith_keyslot_add(volume, options, other, &slot, &error));
    CHECK(slot == 3);
    WORKS(luksmith_keyslot_change(volume, options, other, key, &slot, &error));
    CHECK(slot == 3);
    FAILS(LUKSMITH_WRONG_PASSPHRASE,
          luksmith_keyslot_change(volume, options, other, key, NULL, &error));
    WORKS(luksmith_keyslot_change(volume, options, key, other, NULL, &error));
    /* The passphrase of keyslot 0 has unlocked the volume. */
    FAILS(LUKSMITH_PERMISSION, luksmith_keyslot_remove(volume, 0, NULL, &error));
    WORKS(luksmith_keyslot_remove(volume, 3, NULL, &error));
    luksmith_error *last = NULL;
    CHECK(luksmith_keyslot_remove(volume, 0, NULL, &last) == LUKSMITH_PERMISSION);
    CHECK(strstr(luksmith_error_hint(last), "last-keyslot") != NULL);
    luksmith_error_free(last);
    FAILS(LUKSMITH_PARAMETERS, luksmith_keyslot_remove(volume, 3, NULL, &error));
    WORKS(luksmith_keyslot_add(volume, options, other, NULL, &error));
    luksmith_options_free(options);
    luksmith_key_free(key);
    luksmith_key_free(other);
}

static void works_in_threads(luksmith_volume *volume) {
    struct worker workers[] = {{volume, 1}, {volume, 2}};
    pthread_t threads[2];
    for (int n = 0; n < 2; n++) {
        CHECK(pthread_create(&threads[n], NULL, work, &workers[n]) == 0);
    }
    for (int n = 0; n < 2; n++) {
        CHECK(pthread_join(threads[n], NULL) == 0);
    }
}

static void serves(luksmith_volume *volume) {
    luksmith_error *error = NULL;
    luksmith_server *server = NULL, *second = NULL;
    WORKS(luksmith_serve(volume, "run/nbd.sock", NULL, &server, &error));
    CHECK(strncmp(luksmith_server_uri(server), "nbd+unix:///?socket=/", 21) == 0);
    FAILS(LUKSMITH_BUSY, luksmith_serve(volume, "run/nbd.sock", NULL, &second, &error));
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "run/nbd.sock"};
    int client = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK(connect(client, (struct sockaddr *)&address, sizeof address) == 0);
    char greeting[8];
    CHECK(read(client, greeting, sizeof greeting) == sizeof greeting);
    CHECK(memcmp(greeting, "NBDMAGIC", sizeof greeting) == 0);
    /* The server writes to a client that has left, which must not end the process. */
    CHECK(write(client, "\0\0\0\3IHAVEOPT\0\0\0\3\0\0\0\0", 20) == 20);
    close(client);
    WORKS(luksmith_server_stop(server, &error));
    CHECK(access("run/nbd.sock", F_OK) != 0);
}

static void inspects(void) {
    luksmith_error *error = NULL;
    char *json = NULL;
    WORKS(luksmith_inspect("one.img", "luks2", NULL, &json, &error));
    CHECK(strstr(json, "\"verdict\":\"accept\"") != NULL);
    luksmith_string_free(json);
    WORKS(luksmith_inspect("hostile.img", "luks2", NULL, &json, &error));
    CHECK(strstr(json, "\"verdict\":\"reject\"") && strstr(json, "\"findings\":[{"));
    luksmith_string_free(json);
    FAILS(LUKSMITH_PARAMETERS, luksmith_inspect("one.img", "vmkd", NULL, &json, &error));
    FAILS(LUKSMITH_STORAGE, luksmith_inspect("no.img", "raw", NULL, &json, &error));
    luksmith_volume *volume = NULL;
    FAILS(LUKSMITH_DAMAGED, luksmith_open("hostile.img", NULL, &volume, &error));
}

static void refuses_null(void) {
    luksmith_error *error = NULL;
    FAILS(LUKSMITH_PARAMETERS, luksmith_open(NULL, NULL, NULL, &error));
    FAILS(LUKSMITH_PARAMETERS, luksmith_open("one.img", NULL, NULL, &error));
    FAILS(LUKSMITH_PARAMETERS, luksmith_unlock(NULL, NULL, NULL, &error));
    FAILS(LUKSMITH_PARAMETERS, luksmith_flush(NULL, &error));
    FAILS(LUKSMITH_PARAMETERS, luksmith_options_set(NULL, "a", "b", &error));
    FAILS(LUKSMITH_PARAMETERS, luksmith_key_callback(NULL, NULL, NULL, &error));
    FAILS(LUKSMITH_PARAMETERS, luksmith_info(NULL, NULL, &error));
    WORKS(luksmith_server_stop(NULL, &error));
    luksmith_close(NULL);
    luksmith_error_free(NULL);
    luksmith_options_free(NULL);
    luksmith_key_free(NULL);
    luksmith_string_free(NULL);
    luksmith_interrupt(NULL);
    CHECK(luksmith_size(NULL) == 0 && luksmith_error_hint(NULL) == NULL);
    CHECK(strcmp(luksmith_kind_name(LUKSMITH_BUSY), "busy") == 0);
    CHECK(strcmp(luksmith_kind_name(-5), "internal") == 0);
}

int main(int argc, char **argv) {
    luksmith_error *error = NULL;
    CHECK(argc == 2 && chdir(argv[1]) == 0);
    WORKS(luksmith_harden(&error));
    CHECK(strlen(luksmith_version()) > 0);
    makes_and_opens();
    asks_the_program();
    luksmith_volume *volume = NULL;
    luksmith_key *key = source("file:key");
    luksmith_options *options = cheap();
    WORKS(luksmith_create("two.img", SIZE, options, key, &volume, &error));
    changes_keyslots(volume);
    works_in_threads(volume);
    serves(volume);
    WORKS(luksmith_write(volume, "the last bytes", 14, 0, &error));
    luksmith_close(volume);
    luksmith_options_free(options);
    luksmith_key_free(key);
    inspects();
    refuses_null();
    return 0;
}
