//! No branch and no address depends on a key or on data. This also covers the kernels that valgrind
//! cannot run.
//!
//! A child process is single-stepped through a kernel with one key and plaintext, and then with
//! others. The trace has to be the same. A trace has the instruction pointer before each step, and
//! the memory addresses that the instruction uses, computed from the registers at that point. An
//! instruction that gathers from addresses in a vector register fails the test. `portable` takes
//! twice as many steps as all other kernels together, and is covered by `undefined.rs`.

#![allow(clippy::print_stderr)] // says that a machine has no ptrace
#![allow(unsafe_code)] // ptrace, and the instruction that stops for it

use std::collections::HashMap;
use std::fs::File;
use std::hint::black_box;
use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use iced_x86::{Decoder, DecoderOptions, InstructionInfoFactory, Register, UsedMemory};
use libc::user_regs_struct;
use luksmith::crypt::{IvSector, SectorCrypt};
use luksmith::secret::VolumeKey;
use luksmith::sectors::{Cipher, Plain, Sectors};
use luksmith::xts::{Kernel, TweakForm, Tweaks, Window, Windows, Xts};
use luksmith_formats::CipherSpec;

const CHILD: &str = "LUKSMITH_TEST_STEPS";
/// The value of rax at the second stop.
const END: u64 = 0x6c75_6b73_6d69_7468;
/// The bytes of memory that the work of a child shares with others.
const SHARED: usize = 9 * 512;
const NO_RANDOM_ADDRESSES: libc::c_ulong = 0x0004_0000;

/// One step: the address of the instruction, and the addresses that it reads or writes.
#[derive(PartialEq, Eq)]
struct Step {
    instruction: u64,
    addresses: Vec<u64>,
}

/// Stops this process for its parent.
fn stop(mark: u64) {
    // SAFETY: the instruction changes no memory. Without a tracer it ends the process.
    unsafe { std::arch::asm!("int3", in("rax") mark) };
}

/// Runs `work` between two stops, where the parent traces it.
fn followed<T>(work: impl FnOnce() -> T) -> T {
    stop(0);
    let done = work();
    stop(END);
    done
}

fn child(wanted: &str) {
    // Only this thread is traced; the test harness has others.
    // SAFETY: this request reads none of its arguments.
    let traced = unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) };
    assert_eq!(traced, 0, "no ptrace");
    let (what, seed) = wanted.rsplit_once(' ').unwrap();
    let seed: u8 = seed.parse().unwrap();
    let bytes = |len: u8, factor: u8| -> Vec<u8> {
        let byte = |n: u8| black_box(n.wrapping_mul(factor).wrapping_add(seed.wrapping_mul(89)));
        (0..len).map(byte).collect()
    };
    let key = bytes(64, 7);
    match what.split(' ').collect::<Vec<_>>()[..] {
        ["branch"] => {
            followed(|| {
                if black_box(key[0]) & 1 == 1 {
                    black_box(key[1]);
                }
            });
        }
        ["table"] => {
            let table = [5_u8; 256];
            followed(|| black_box(black_box(&table)[usize::from(black_box(key[0]))]));
        }
        ["expand", kernel, size] => {
            let (kernel, size): (Kernel, usize) = (kernel.parse().unwrap(), size.parse().unwrap());
            drop(followed(|| Xts::new(kernel, &key[..size]).unwrap()));
        }
        ["sector", way, cipher] => {
            let spec = CipherSpec::parse(cipher).unwrap();
            let key = VolumeKey::copy_from(&key[..spec.default_key_size()]).unwrap();
            let crypt = SectorCrypt::new(spec, 512, &key).unwrap();
            let mut plain = Sectors::<Plain>::zeroed(512);
            plain.as_mut_slice()[..255].copy_from_slice(&bytes(255, 13));
            let mut cipher = Sectors::<Cipher>::zeroed(512);
            cipher.as_mut_slice()[..255].copy_from_slice(&bytes(255, 17));
            if way == "encrypt" {
                drop(followed(|| crypt.encrypt(IvSector(3), plain)));
            } else {
                drop(followed(|| crypt.decrypt(IvSector(3), cipher)));
            }
        }
        [way @ ("encrypt-from" | "decrypt-into"), kernel, size] => {
            let (kernel, size): (Kernel, usize) = (kernel.parse().unwrap(), size.parse().unwrap());
            let xts = Xts::new(kernel, &key[..size]).unwrap();
            let (mut inner, mut outer) = (bytes(255, 13).repeat(40), bytes(255, 17).repeat(40));
            let (inner, outer) = (&mut inner[..SHARED], &mut outer[..SHARED]);
            let shared = outer.as_ptr() as u64;
            // The second window ends within a sector.
            let (first, second) = outer.split_at_mut(1024);
            let (second, third) = second.split_at_mut(1300);
            let windows = [first, second, third].map(Window::from);
            let (windows, tweaks) = (
                Windows::new(&windows),
                Tweaks::new(3, 1, TweakForm::Plain64),
            );
            stop(shared);
            if way == "encrypt-from" {
                xts.encrypt_from(tweaks, 512, windows, inner).unwrap();
            } else {
                xts.decrypt_into(tweaks, 512, inner, windows).unwrap();
            }
            stop(END);
        }
        [way, kernel, size] => {
            let (kernel, size): (Kernel, usize) = (kernel.parse().unwrap(), size.parse().unwrap());
            let xts = Xts::new(kernel, &key[..size]).unwrap();
            let mut data = bytes(255, 13).repeat(40);
            followed(|| {
                for (sector, len) in [(512, 9 * 512), (512, 2 * 512), (4096, 4096), (48, 96)] {
                    let tweaks = Tweaks::new(3, 1, TweakForm::Plain64);
                    if way == "encrypt" {
                        xts.encrypt(tweaks, sector, &mut data[..len]).unwrap();
                    } else {
                        xts.decrypt(tweaks, sector, &mut data[..len]).unwrap();
                    }
                }
            });
        }
        _ => panic!("{wanted}"),
    }
}

/// Starts a process that has the same addresses each time.
fn start(wanted: &str) -> io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["--exact", "steps::secrets_lead_nowhere", "--test-threads=1"])
        .env(CHILD, wanted)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let same_addresses = || {
        // SAFETY: the system call takes no pointers.
        match unsafe { libc::personality(NO_RANDOM_ADDRESSES) } {
            0.. => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: the closure only makes a system call, which is allowed after a fork.
    unsafe { command.pre_exec(same_addresses) };
    command.spawn()
}

/// Lets the thread execute one instruction.
fn step(tid: i32) {
    // SAFETY: this request reads no memory.
    let asked = unsafe { libc::ptrace(libc::PTRACE_SINGLESTEP, tid, 0, 0) };
    assert_eq!(asked, 0, "{}", io::Error::last_os_error());
    assert_eq!(stopped(), Some(tid), "the child has ended");
}

/// The thread of a child that has stopped. `None` if a thread has ended.
fn stopped() -> Option<i32> {
    let mut status = 0;
    // Only children and traced threads of this thread, since other tests have their own.
    let which = libc::__WALL | libc::__WNOTHREAD;
    // SAFETY: the status is a local variable.
    let tid = unsafe { libc::waitpid(-1, &raw mut status, which) };
    (tid > 0 && libc::WIFSTOPPED(status) && libc::WSTOPSIG(status) == libc::SIGTRAP).then_some(tid)
}

fn registers(tid: i32) -> user_regs_struct {
    let mut registers = std::mem::MaybeUninit::<user_regs_struct>::zeroed();
    // SAFETY: the request fills a structure of this type.
    let asked = unsafe { libc::ptrace(libc::PTRACE_GETREGS, tid, 0, registers.as_mut_ptr()) };
    assert_eq!(asked, 0, "{}", io::Error::last_os_error());
    // SAFETY: all fields are numbers, for which zero is valid.
    unsafe { registers.assume_init() }
}

/// The value of a register from which an address is computed. `None` for registers that no address
/// may depend on.
fn value(r: &user_regs_struct, register: Register) -> Option<u64> {
    Some(match register {
        Register::RAX => r.rax,
        Register::RBX => r.rbx,
        Register::RCX => r.rcx,
        Register::RDX => r.rdx,
        Register::RSI => r.rsi,
        Register::RDI => r.rdi,
        Register::RBP => r.rbp,
        Register::RSP => r.rsp,
        Register::R8 => r.r8,
        Register::R9 => r.r9,
        Register::R10 => r.r10,
        Register::R11 => r.r11,
        Register::R12 => r.r12,
        Register::R13 => r.r13,
        Register::R14 => r.r14,
        Register::R15 => r.r15,
        Register::FS => r.fs_base,
        Register::GS => r.gs_base,
        Register::DS | Register::ES | Register::SS | Register::CS => 0,
        _ => return None,
    })
}

/// The memory operands of a child's instructions. Each instruction is decoded once.
struct Code {
    memory: File,
    used: HashMap<u64, Vec<UsedMemory>>,
    factory: InstructionInfoFactory,
}

impl Code {
    fn step(&mut self, registers: &user_regs_struct) -> Step {
        let instruction = registers.rip;
        let used = self.used.entry(instruction).or_insert_with(|| {
            let mut bytes = [0; 15];
            self.memory.read_at(&mut bytes, instruction).unwrap();
            let decoded = Decoder::with_ip(64, &bytes, instruction, DecoderOptions::NONE).decode();
            assert!(!decoded.is_invalid(), "{bytes:x?}");
            let gathers = decoded.is_vsib();
            assert!(!gathers, "gathers from addresses in a vector register");
            self.factory.info(&decoded).used_memory().to_vec()
        });
        let addresses = used.iter().map(|used| {
            let address = used.virtual_address(0, |register, _, _| value(registers, register));
            address.expect("an address of general registers")
        });
        Step {
            instruction,
            addresses: addresses.collect(),
        }
    }
}

/// What a child does between its two stops.
struct Trace {
    /// The value of rax at the first stop.
    mark: u64,
    steps: Vec<Step>,
}

/// `None` if the child could not be traced.
fn trace(mut child: Child) -> Option<Trace> {
    let tid = stopped()?;
    let mut code = Code {
        memory: File::open(format!("/proc/{}/mem", child.id())).unwrap(),
        used: HashMap::new(),
        factory: InstructionInfoFactory::new(),
    };
    let mut steps = Vec::new();
    let mut now = registers(tid);
    let mark = now.rax;
    while now.rax != END {
        steps.push(code.step(&now));
        step(tid);
        now = registers(tid);
    }
    child.kill().unwrap();
    // The tracer has to wait for a traced thread, or its process does not end.
    if u32::try_from(tid) != Ok(child.id()) {
        assert_eq!(stopped(), None);
    }
    child.wait().unwrap();
    Some(Trace { mark, steps })
}

/// The number of the first step in which two traces differ, if they do.
fn parting(what: &str, addresses_too: bool) -> Option<usize> {
    let [one, other] = ["1", "2"].map(|seed| {
        trace(start(&format!("{what} {seed}")).unwrap())
            .unwrap()
            .steps
    });
    assert!(one.len() > 3, "{what}: only {} steps", one.len());
    let same = |(a, b): (&Step, &Step)| {
        a.instruction == b.instruction && (!addresses_too || a.addresses == b.addresses)
    };
    let parted = one.iter().zip(&other).position(|pair| !same(pair));
    parted.or((one.len() != other.len()).then_some(one.len()))
}

/// Each byte of memory that others may change is read or written once, and nothing is read that was
/// written there.
fn shared_memory_is_used_once(what: &str) {
    let trace = trace(start(&format!("{what} 1")).unwrap()).unwrap();
    let shared = trace.mark..trace.mark + SHARED as u64;
    let used = trace.steps.iter().flat_map(|step| &step.addresses);
    let mut used: Vec<_> = used.filter(|address| shared.contains(address)).collect();
    let all = used.len();
    used.sort();
    used.dedup();
    // One of nine sectors straddles windows, and is copied byte by byte.
    assert!(all >= 512 + 8 * 512 / 64, "{what}: {all}");
    assert_eq!(used.len(), all, "{what} uses an address again");
}

#[test]
fn secrets_lead_nowhere() {
    if let Ok(wanted) = std::env::var(CHILD) {
        return child(&wanted);
    }
    if start("branch 1").map_or(None, trace).is_none() {
        assert!(std::env::var_os("CI").is_none(), "no ptrace here");
        eprintln!("skipped: no ptrace here");
        return;
    }
    assert!(parting("branch", false).is_some(), "a branch is not seen");
    assert!(parting("table", true).is_some(), "a look-up is not seen");
    assert_eq!(parting("table", false), None, "a look-up is no branch");
    if is_x86_feature_detected!("avx2") {
        for cipher in ["serpent", "twofish", "camellia"] {
            for way in ["encrypt", "decrypt"] {
                let life = format!("sector {way} {cipher}-xts-plain64");
                assert_eq!(parting(&life, true), None, "{life}");
            }
        }
    }
    let followed = Kernel::available().into_iter();
    for kernel in followed.filter(|kernel| *kernel != Kernel::Portable) {
        for size in [32, 48, 64] {
            for work in [
                "expand",
                "encrypt",
                "decrypt",
                "encrypt-from",
                "decrypt-into",
            ] {
                let life = format!("{work} {kernel} {size}");
                assert_eq!(parting(&life, true), None, "{life}");
            }
        }
        for work in ["encrypt-from", "decrypt-into"] {
            shared_memory_is_used_once(&format!("{work} {kernel} 64"));
        }
    }
}
