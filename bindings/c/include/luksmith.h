/*
 * luksmith: LUKS1 and LUKS2 volumes without root, device-mapper or mounting, for programs in C and
 * C++. Link with -lluksmith; pkg-config knows it as `luksmith`. docs/library.md introduces it.
 *
 * Functions that can fail return an enum luksmith_kind as an int, which is LUKSMITH_OK or what went
 * wrong. Their last parameter is where the error goes: NULL, or a pointer that is set to NULL after
 * success and to a new error after a failure, to be freed with luksmith_error_free. Nothing else is
 * stored after a failure.
 *
 * Strings end with a zero byte and are UTF-8, except for paths, which are bytes. All parameters but
 * `error`, `options`, and those for which this header says so, must not be NULL:
 * LUKSMITH_PARAMETERS is returned then. A function that frees a handle takes NULL, and does nothing
 * with it. After a defect of the library, a function that returns no kind returns 0, "" or NULL,
 * and luksmith_error_kind returns LUKSMITH_INTERNAL.
 *
 * Threads. Every function may be called from any thread. Several threads may use one handle at the
 * same time, but not while another one frees it. Reads and writes of overlapping bytes are atomic
 * with respect to each other. While a thread adds or changes a keyslot, which takes as long as the
 * key derivations, others read and write the plaintext, but wait for it before they use the header:
 * in luksmith_unlock, luksmith_info, luksmith_resize, the functions for keyslots, and luksmith_size
 * of a locked volume. A process that has forked uses no handle of its parent, and calls exec or
 * _exit.
 *
 * Process. The library sets no allocator, signal handler, umask, limit or environment variable. It
 * reads the environment only for the sources credential: and command:, and for the number of
 * threads (RAYON_NUM_THREADS). It prints nothing, unless a defect of the library makes it fail with
 * LUKSMITH_INTERNAL. It starts threads for key derivations, which wait afterwards, for prompts, for
 * connections to NBD exports, and for servers. Only luksmith_harden changes the process.
 *
 * Secrets. Passphrases and keys are in locked memory (RLIMIT_MEMLOCK limits it) and are wiped. The
 * program `luksmith` also wipes all memory that it frees, by its allocator, and calls what is
 * luksmith_harden here before it reads the first secret. In a program that uses this library,
 * - copies of plaintext stay on the heap after it is freed, as in any other program;
 * - without luksmith_harden, core dumps contain plaintext, and other processes of the same user can
 *   read the memory of the process, with its passphrases and keys.
 */
#ifndef LUKSMITH_H
#define LUKSMITH_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What went wrong. The numbers never change, and later versions may add some. */
enum luksmith_kind {
    LUKSMITH_OK = 0,
    LUKSMITH_PARAMETERS = 1,       /* the parameters contradict each other or the image */
    LUKSMITH_PERMISSION = 2,       /* the system refuses access, or an option has to permit it */
    LUKSMITH_WRONG_PASSPHRASE = 3, /* no keyslot opens, or a new passphrase is empty */
    LUKSMITH_MEMORY = 4,           /* memory or locked memory is short, or no thread starts */
    LUKSMITH_OVER_LIMIT = 5,       /* a header asks for more memory or time than is allowed */
    LUKSMITH_STORAGE = 6,          /* the storage failed, is missing, or is of the wrong kind */
    LUKSMITH_NO_SPACE = 7,         /* the storage or the quota is full */
    LUKSMITH_DAMAGED = 8,          /* a header or an image is malformed or cut off */
    LUKSMITH_UNSUPPORTED = 9,      /* a valid request that this library cannot carry out */
    LUKSMITH_BUSY = 10,            /* another program has it open, or changed it meanwhile */
    LUKSMITH_EXISTS = 11,          /* something exists already */
    LUKSMITH_INTERRUPTED = 12,     /* luksmith_interrupt, or a callback that gave no passphrase */
    LUKSMITH_NOT_TRUSTED = 13,     /* a volume is not as it is pinned */
    LUKSMITH_INTERNAL = 100        /* a defect of the library */
};

typedef struct luksmith_error luksmith_error;
typedef struct luksmith_options luksmith_options;
typedef struct luksmith_key luksmith_key;
typedef struct luksmith_volume luksmith_volume;
typedef struct luksmith_server luksmith_server;

/* --- the library and the process ------------------------------------------------------------- */

/* The version, such as "0.1.0". */
const char *luksmith_version(void);

/*
 * Makes the process undumpable: no core dumps, and no access to its memory for other processes of
 * the same user. To be called before the first secret is read. The library never calls it.
 */
int luksmith_harden(luksmith_error **error);

/* --- errors ---------------------------------------------------------------------------------- */

/* The kind. LUKSMITH_OK for NULL. */
int luksmith_error_kind(const luksmith_error *error);

/* What happened, in one line that is safe to show on a terminal. "" for NULL. */
const char *luksmith_error_message(const luksmith_error *error);

/* What may help, or NULL. */
const char *luksmith_error_hint(const luksmith_error *error);

void luksmith_error_free(luksmith_error *error);

/* The name of a kind, such as "wrong-passphrase": as in the JSON of the program. */
const char *luksmith_kind_name(int kind);

/* Frees a string that a function has stored. */
void luksmith_string_free(char *string);

/* --- options --------------------------------------------------------------------------------- */

/*
 * Options have the names that they have on the command line, without the dashes: luksmith --help
 * explains them. Values are text. Sizes are in bytes, times in milliseconds. A flag is "true" or
 * "false". Each function below names its options, and refuses others.
 */
luksmith_options *luksmith_options_new(void);

/* Sets an option. A later value replaces an earlier one. */
int luksmith_options_set(luksmith_options *options, const char *name, const char *value,
                         luksmith_error **error);

void luksmith_options_free(luksmith_options *options);

/* --- passphrases ----------------------------------------------------------------------------- */

/*
 * A passphrase from a SOURCE: "file:PATH", "fd:N", "prompt", "stdin", "credential:NAME",
 * "command:/PROGRAM", "helper:NAME:REFERENCE", as for --key of the program. For a new passphrase
 * also "generate:helper:NAME:REFERENCE". It is read when it is needed, each time.
 */
int luksmith_key_source(const char *source, luksmith_key **key, luksmith_error **error);

/*
 * A function that gives a passphrase. It is called in the thread of the function that needs the
 * passphrase. `what` says for a person what the passphrase opens, and `is_new` whether it is being
 * set. The function writes at most `size` bytes (4096) to `buffer`, which is locked memory, and
 * returns their number. A negative number ends the call with LUKSMITH_INTERRUPTED. The function
 * must not throw an exception, jump out of the call, or free a handle that is in use. Threads that
 * use the key at the same time call it at the same time.
 */
typedef ptrdiff_t (*luksmith_key_function)(void *data, const char *what, int is_new,
                                           unsigned char *buffer, size_t size);

/* `data` is passed to the function, and may be NULL. */
int luksmith_key_callback(luksmith_key_function function, void *data, luksmith_key **key,
                          luksmith_error **error);

void luksmith_key_free(luksmith_key *key);

/* --- volumes --------------------------------------------------------------------------------- */

/*
 * Makes a volume of `size` bytes of plaintext in a new file, on a device or on an NBD export; 0 is
 * the size of the device or export. `volume` may be NULL: then the new volume is closed again, and
 * otherwise it is unlocked. If something would be overwritten, that fails with LUKSMITH_EXISTS
 * unless the option "force" is "overwrite".
 *
 * Options: cipher, cluster-size, force, format, hash, header, iter-time, key-size, keyslot, label,
 * pbkdf, pbkdf-force-iterations, pbkdf-memory, pbkdf-parallel, preallocate, sector-size, subsystem,
 * type, uuid.
 */
int luksmith_create(const char *image, uint64_t size, const luksmith_options *options,
                    const luksmith_key *key, luksmith_volume **volume, luksmith_error **error);

/*
 * Opens the volume in a file, on a device or on an NBD export, for writing unless "read-only" is
 * "true". It is locked: luksmith_unlock opens its plaintext. No other program may have it open,
 * unless all only read it. "force-share" takes no lock, and is only for reading. "trust" is the
 * folder of the pin with which the header is compared, and which its changes keep up to date.
 *
 * Options: force-share, format, header, read-only, trust.
 */
int luksmith_open(const char *image, const luksmith_options *options, luksmith_volume **volume,
                  luksmith_error **error);

/*
 * Unlocks the volume. This takes as long as the key derivation, usually two seconds.
 *
 * Options: keyslot.
 */
int luksmith_unlock(luksmith_volume *volume, const luksmith_options *options,
                    const luksmith_key *key, luksmith_error **error);

/*
 * Ends key derivations and prompts for this volume in other threads, and all later ones, with
 * LUKSMITH_INTERRUPTED. May be called by a signal handler.
 */
void luksmith_interrupt(const luksmith_volume *volume);

/*
 * Stores what the header says as JSON, with the keyslots: the document of `luksmith info --json`
 * (docs/programs.md). To be freed with luksmith_string_free.
 */
int luksmith_info(const luksmith_volume *volume, char **json, luksmith_error **error);

/*
 * Closes the volume. What was written and not flushed may be lost if the machine fails. A server
 * goes on.
 */
void luksmith_close(luksmith_volume *volume);

/* --- the plaintext --------------------------------------------------------------------------- */

/* The size in bytes. 0 if it is not known, as for a detached header whose volume is locked. */
uint64_t luksmith_size(const luksmith_volume *volume);

/* The size of a sector in bytes. 0 if the volume is locked. */
uint32_t luksmith_sector_size(const luksmith_volume *volume);

/* Reads all of `size` bytes at any offset. `buffer` may be NULL if there are none. */
int luksmith_read(const luksmith_volume *volume, void *buffer, size_t size, uint64_t offset,
                  luksmith_error **error);

/* Writes all of `size` bytes at any offset. */
int luksmith_write(luksmith_volume *volume, const void *buffer, size_t size, uint64_t offset,
                   luksmith_error **error);

/* Makes everything durable that was written before this call. */
int luksmith_flush(luksmith_volume *volume, luksmith_error **error);

/* Makes the bytes read as zeroes. Encrypted zeroes are stored. */
int luksmith_write_zeroes(luksmith_volume *volume, uint64_t offset, uint64_t size,
                          luksmith_error **error);

/*
 * Lets the storage free whole sectors in this range, which then read as random bytes, or in a qcow2
 * image as zeroes. The storage sees which sectors are free.
 */
int luksmith_discard(luksmith_volume *volume, uint64_t offset, uint64_t size,
                     luksmith_error **error);

/*
 * Changes the size to `size` bytes. Cutting off the end fails with LUKSMITH_PERMISSION unless the
 * option "force" is "shrink".
 *
 * Options: force.
 */
int luksmith_resize(luksmith_volume *volume, uint64_t size, const luksmith_options *options,
                    luksmith_error **error);

/* --- keyslots -------------------------------------------------------------------------------- */

/*
 * Adds a keyslot to an unlocked volume. `keyslot` gets its number, and may be NULL.
 *
 * Options: iter-time, keyslot, pbkdf, pbkdf-force-iterations, pbkdf-memory, pbkdf-parallel.
 */
int luksmith_keyslot_add(luksmith_volume *volume, const luksmith_options *options,
                         const luksmith_key *new_key, uint32_t *keyslot, luksmith_error **error);

/*
 * Replaces a passphrase. The volume need not be unlocked. The new keyslot is durable before the old
 * one is removed. `keyslot` gets the number of the new one, and may be NULL.
 *
 * Options: as luksmith_keyslot_add; "keyslot" is that of the old passphrase.
 */
int luksmith_keyslot_change(luksmith_volume *volume, const luksmith_options *options,
                            const luksmith_key *old_key, const luksmith_key *new_key,
                            uint32_t *keyslot, luksmith_error **error);

/*
 * Removes a keyslot. The last one that opens the volume is only removed if the option "force" is
 * "last-keyslot". If the volume is locked, or was unlocked by this keyslot, nothing shows that
 * another one opens it: then "force" has to be "unproven".
 *
 * Options: force.
 */
int luksmith_keyslot_remove(luksmith_volume *volume, uint32_t keyslot,
                            const luksmith_options *options, luksmith_error **error);

/* --- an NBD server --------------------------------------------------------------------------- */

/*
 * Serves an unlocked volume on a new Unix socket, in threads of its own, until
 * luksmith_server_stop. By default only this user can connect, and the directory of the socket has
 * to be closed to others.
 *
 * Options: description, discard, max-connections, name, read-only, socket-group (a number),
 * socket-mode.
 */
int luksmith_serve(luksmith_volume *volume, const char *socket, const luksmith_options *options,
                   luksmith_server **server, luksmith_error **error);

/* The URI by which clients reach the server. */
const char *luksmith_server_uri(const luksmith_server *server);

/*
 * Stops the server: clients get their last replies, and everything is flushed. Frees the handle,
 * also after a failure.
 */
int luksmith_server_stop(luksmith_server *server, luksmith_error **error);

/* --- images of unknown origin ---------------------------------------------------------------- */

/*
 * Checks an image in its declared format ("qcow2", "raw", "luks", ...), without a key, and stores
 * the findings as JSON: the document of `luksmith inspect --json`. The member "verdict" is
 * "accept", "reject" or "policy". Also succeeds if the image is rejected.
 *
 * Options: follow-symlinks, force-share, max-size, policy.
 */
int luksmith_inspect(const char *image, const char *format, const luksmith_options *options,
                     char **json, luksmith_error **error);

#ifdef __cplusplus
}
#endif

#endif
