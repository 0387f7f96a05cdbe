//! The places where unsafe code, printing, and converting between plaintext and ciphertext are
//! allowed. There are no skipped tests and no unfinished code.

use crate::assert_none;
use crate::tree::{self, File, lines_with};

/// The kernels, the inner loops of KDFs, locked memory, aligned allocation, raw system calls,
/// functions of libvirt and Ceph; the functions for C, buffers of Python; and the tests that count
/// or scan memory.
const UNSAFE: &[&str] = &[
    "bindings/c/src/",
    "bindings/python/src/buffer.rs",
    "src/xts/",
    "src/crypt/wide/",
    "src/kdf/x86_64/",
    "src/trust/tags/x86_64.rs",
    "src/secret/",
    "src/sectors",
    "src/backend/",
    "src/export/vhost_user/memory.rs",
    "src/sys/",
    "src/libvirt/library/",
    "benches/kernels/linux.rs",
    "benches/libraries/",
    "benches/rbd.rs",
    "tests/support/src/allocation.rs",
    "tests/secrecy/",
];

const LINES: usize = 600;

/// Words of the code, the places where they are allowed, and the complaint about other places.
struct Rule {
    words: &'static [&'static str],
    within: &'static [&'static str],
    places: &'static [&'static str],
    /// Unit tests, at the end of a file or in a `tests.rs` of their own, may have them too.
    tests_may: bool,
    because: &'static str,
}

const RULES: &[Rule] = &[
    Rule {
        words: &["unsafe", "allow(unsafe_code)"],
        within: &[""],
        places: UNSAFE,
        tests_may: false,
        because: "unsafe has its places",
    },
    Rule {
        words: &["#[ignore", "#[cfg(any())]"],
        within: &[""],
        places: &[],
        tests_may: false,
        because: "a test that does not run is none",
    },
    Rule {
        words: &["#[path"],
        within: &["tests/"],
        // Sources of the program itself and of examples, which no library has.
        places: &[
            "tests/examples/",
            "tests/libvirt/examples.rs",
            "tests/secrecy/source.rs",
        ],
        tests_may: false,
        because: "what test binaries share is in tests/support",
    },
    Rule {
        words: &[
            "env::var",
            "env::var_os",
            "env::vars",
            "env::vars_os",
            "env::home_dir",
            "env::temp_dir",
            "from_env",
        ],
        within: &["src/", "formats/src/"],
        // systemd names the directory of its credentials there, and AWS's programs their keys.
        places: &[
            "src/cli/",
            "src/secret/source.rs",
            "src/objects/s3/account.rs",
        ],
        tests_may: true,
        because: "the program reads the environment, and the library takes arguments",
    },
    Rule {
        words: &["todo!", "unimplemented!"],
        within: &[""],
        places: &[],
        tests_may: false,
        because: "nothing unfinished lands",
    },
    Rule {
        words: &[
            "println!",
            "print!",
            "eprintln!",
            "eprint!",
            "stdout()",
            "stderr()",
        ],
        within: &["src/", "formats/src/"],
        places: &["src/cli/", "src/main.rs", "src/secret/terminal.rs"],
        tests_may: false,
        because: "only the command line prints",
    },
    Rule {
        words: &[".encrypted(", ".decrypted(", "::encrypted", "::decrypted"],
        within: &["src/"],
        places: &["src/crypt.rs", "src/sectors.rs"],
        tests_may: true,
        because: "only crypt.rs turns one side into the other",
    },
    Rule {
        words: &[".stored_plaintext("],
        within: &["src/"],
        places: &["src/door.rs"],
        tests_may: true,
        because: "plaintext that is stored enters by one door",
    },
    Rule {
        words: &["read_unencrypted("],
        within: &["src/"],
        places: &[
            "src/door.rs",
            "src/layout/side.rs",
            "src/reencrypt/room.rs",
            "src/reencrypt/zone.rs",
        ],
        tests_may: true,
        because: "only data that is encrypted in place is read as plaintext",
    },
    Rule {
        words: &["Sectors::metadata", "Sectors::<Cipher>::metadata"],
        within: &["src/"],
        places: &["src/door.rs", "src/sectors.rs"],
        tests_may: true,
        because: "metadata enters by one door",
    },
    Rule {
        words: &[
            "File::create",
            "File::create_new",
            "create(true)",
            "create_new(true)",
            "DirBuilder",
            "UnixListener::bind",
            "chmod",
            "chown",
            "lchown",
            "fs::copy",
            "fs::create_dir",
            "fs::create_dir_all",
            "fs::hard_link",
            "fs::remove_dir",
            "fs::remove_dir_all",
            "fs::remove_file",
            "fs::rename",
            "fs::set_permissions",
            "fs::write",
        ],
        within: &["src/"],
        places: &[
            "src/sys/folder",
            // cryptsetup's lock files, in a folder that belongs to root.
            "src/backend/lock.rs",
            // Manual pages, for those who package the program.
            "src/cli/man.rs",
            // Unit tests only.
            "src/secret/source_tests.rs",
        ],
        tests_may: true,
        because: "another user may write to the folder: sys/folder.rs opens it once",
    },
];

fn misplaced(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        let code = file.code();
        let here = |places: &[&str]| places.iter().any(|place| file.path.starts_with(place));
        for rule in RULES
            .iter()
            .filter(|rule| here(rule.within) && !here(rule.places))
        {
            let end = if file.path.ends_with("/tests.rs") {
                Some(0)
            } else {
                code.find("#[cfg(test)]\nmod tests")
            };
            let end = end.filter(|_| rule.tests_may);
            let code = &code[..end.unwrap_or(code.len())];
            for word in rule.words {
                for line in lines_with(code, word) {
                    complaints.push(format!("{}:{line}: {word}: {}", file.path, rule.because));
                }
            }
        }
        let lines = file.text.lines().count();
        if lines > LINES {
            complaints.push(format!(
                "{}: {lines} lines: over {LINES} it is two ideas",
                file.path
            ));
        }
    }
    complaints
}

#[test]
fn everything_is_in_its_place() {
    assert_none(&misplaced(&tree::files()));
}

#[test]
fn what_is_out_of_place_is_found() {
    let found = misplaced(&[
        File::new(
            "src/volume/mod.rs",
            "// unsafe\nunsafe { x() }\nsectors.decrypted(turn)",
        ),
        File::new("src/sys/memory.rs", "unsafe { x() }"),
        File::new(
            "formats/src/lib.rs",
            "#![allow(unsafe_code)]\nprintln!(\"print!\");",
        ),
        File::new("src/cli/mod.rs", "println!();\ntodo!()"),
        File::new(
            "tests/cli/main.rs",
            "#[test]\n#[ignore]\nfn f() { println!(); unimplemented!() }",
        ),
        File::new(
            "src/backend/file.rs",
            "Sectors::metadata(bytes); file.metadata()",
        ),
        File::new("src/door.rs", "Sectors::metadata(bytes)"),
        File::new("src/backend/file/tests.rs", "Sectors::metadata(bytes)"),
        File::new(
            "src/backend/memory.rs",
            "#[cfg(test)]\nmod tests { Sectors::metadata(bytes) }",
        ),
        File::new(
            "tests/nbd/main.rs",
            "#[path = \"../cli/session.rs\"]\nmod session;",
        ),
        File::new("src/kdf/mod.rs", "std::env::var_os(name)"),
        File::new(
            "src/task/new_file.rs",
            "std::fs::rename(a, b); rustix::fs::chown(a); fchown(fd); chownat(folder, name)",
        ),
        File::new("src/sys/folder.rs", "std::fs::rename(a, b)"),
        File::new("benches/a.rs", &"\n".repeat(601)),
    ]);
    let expected = [
        "src/volume/mod.rs:2: unsafe: unsafe has its places",
        "src/volume/mod.rs:3: .decrypted(: only crypt.rs turns one side into the other",
        "formats/src/lib.rs:1: allow(unsafe_code): unsafe has its places",
        "formats/src/lib.rs:2: println!: only the command line prints",
        "src/cli/mod.rs:2: todo!: nothing unfinished lands",
        "tests/cli/main.rs:2: #[ignore: a test that does not run is none",
        "tests/cli/main.rs:3: unimplemented!: nothing unfinished lands",
        "src/backend/file.rs:1: Sectors::metadata: metadata enters by one door",
        "tests/nbd/main.rs:1: #[path: what test binaries share is in tests/support",
        "src/kdf/mod.rs:1: env::var_os: the program reads the environment, and the library takes arguments",
        "src/task/new_file.rs:1: chown: another user may write to the folder: sys/folder.rs opens it once",
        "src/task/new_file.rs:1: fs::rename: another user may write to the folder: sys/folder.rs opens it once",
        "benches/a.rs: 601 lines: over 600 it is two ideas",
    ];
    assert_eq!(found, expected);
}
