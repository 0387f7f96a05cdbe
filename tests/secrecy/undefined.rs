//! No branch and no address depends on a key or on data. Under valgrind both are marked as
//! undefined, as ctgrind does, and memcheck counts the decisions that depend on them.
//!
//! valgrind has no AVX-512 and no VAES, so this covers the kernels `portable` and `aesni`. `steps`
//! covers the others.

#![allow(clippy::print_stderr)] // says that valgrind is missing
#![allow(unsafe_code)] // a request to valgrind is a special sequence of instructions

use std::hint::black_box;
use std::process::Command;

use luksmith::xts::{Kernel, TweakForm, Tweaks, Xts};
use subtle::ConstantTimeEq;

const CHILD: &str = "LUKSMITH_TEST_UNDEFINED";

const RUNNING_ON_VALGRIND: u64 = 0x1001;
const COUNT_ERRORS: u64 = 0x1201;
const MAKE_MEM_UNDEFINED: u64 = 0x4d43_0001;
const MAKE_MEM_DEFINED: u64 = 0x4d43_0002;

/// Makes a client request (valgrind.h, amd64). Returns 0 without valgrind.
fn request(what: u64, bytes: &[u8]) -> u64 {
    let arguments = [what, bytes.as_ptr() as u64, bytes.len() as u64, 0, 0, 0];
    let mut answer = 0_u64;
    // SAFETY: the rotations add up to full turns, and the exchange is of a register with itself.
    unsafe {
        std::arch::asm!(
            "rol rdi, 3",
            "rol rdi, 13",
            "rol rdi, 61",
            "rol rdi, 51",
            "xchg rbx, rbx",
            in("rax") arguments.as_ptr(),
            inout("rdx") answer,
            inout("rdi") 0_u64 => _,
        );
    }
    answer
}

/// The number of decisions in `work` that depend on undefined bytes.
fn decisions(work: impl FnOnce()) -> u64 {
    let before = request(COUNT_ERRORS, &[]);
    work();
    request(COUNT_ERRORS, &[]) - before
}

fn secret(bytes: &[u8]) {
    request(MAKE_MEM_UNDEFINED, bytes);
}

fn public(bytes: &[u8]) {
    request(MAKE_MEM_DEFINED, bytes);
}

/// Everything that is done with a key: expansion, encryption, decryption, wiping.
fn live(kernel: Kernel, key_size: usize) {
    let key = vec![7; key_size];
    let mut data = vec![9; 20 * 512];
    secret(&key);
    secret(&data);
    let xts = Xts::new(kernel, &key).unwrap();
    for (sector, len) in [(512, 20 * 512), (4096, 8192), (512, 512), (48, 96)] {
        let tweaks = Tweaks::new(3, 1, TweakForm::Plain64);
        xts.encrypt(tweaks, sector, &mut data[..len]).unwrap();
        xts.decrypt(tweaks, sector, &mut data[..len]).unwrap();
    }
    drop(xts);
    public(&key);
    public(&data);
}

fn under_valgrind() {
    assert_eq!(request(RUNNING_ON_VALGRIND, &[]), 1);
    for kernel in Kernel::available() {
        for key_size in [32, 64] {
            let decided = decisions(|| live(kernel, key_size));
            assert_eq!(decided, 0, "{kernel} decides by secrets");
        }
    }
    let (one, other) = ([1_u8; 64], [1_u8; 64]);
    secret(&one);
    // The comparison of digests in `unlock`. Its result is not secret.
    let decided = decisions(|| {
        let same = [black_box(one[..].ct_eq(&other)).unwrap_u8()];
        public(&same);
    });
    assert_eq!(decided, 0, "the comparison of digests decides by them");

    // Positive controls: a comparison that ends early, and a table lookup.
    let naive = decisions(|| {
        black_box(
            black_box(&one)
                .iter()
                .zip(black_box(&other))
                .all(|(a, b)| a == b),
        );
    });
    assert!(naive > 0, "an early end is not seen");
    let table = [5_u8; 256];
    let looked_up = decisions(|| {
        black_box(black_box(&table)[usize::from(black_box(&one)[0])]);
    });
    assert!(looked_up > 0, "a look-up is not seen");
    public(&one);
}

#[test]
fn nothing_is_decided_by_secrets() {
    if std::env::var_os(CHILD).is_some() {
        return under_valgrind();
    }
    let ran = Command::new("valgrind")
        .args(["--quiet", "--leak-check=no"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "undefined::nothing_is_decided_by_secrets"])
        .env(CHILD, "1")
        .output();
    let Ok(ran) = ran else {
        assert!(std::env::var_os("CI").is_none(), "valgrind is missing");
        eprintln!("skipped: valgrind is missing");
        return;
    };
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success() && said.contains("1 passed"), "{said}");
}
