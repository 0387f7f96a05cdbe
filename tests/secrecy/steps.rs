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
use luksmith::xts::{Kernel, TweakForm, Tweaks, Xts};

const CHILD: &str = "LUKSMITH_TEST_STEPS";
/// The value of rax at the second stop.
const END: u64 = 0x6c75_6b73_6d69_7468;
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
        [way, kernel, size] => {
            let (kernel, size): (Kernel, usize) = (kernel.parse().unwrap(), size.parse().unwrap());
            let xts = Xts::new(kernel, &key[..size]).unwrap();
            let mut data = bytes(255, 13).repeat(40);
            followed(|| {
                for (sector, len) in [(512, 9 * 512), (4096, 4096), (48, 96)] {
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

/// All steps of a child between its two stops. `None` if it could not be traced.
fn steps(mut child: Child) -> Option<Vec<Step>> {
    let tid = stopped()?;
    let mut code = Code {
        memory: File::open(format!("/proc/{}/mem", child.id())).unwrap(),
        used: HashMap::new(),
        factory: InstructionInfoFactory::new(),
    };
    let mut steps = Vec::new();
    let mut now = registers(tid);
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
    Some(steps)
}

/// The number of the first step in which two traces differ, if they do.
fn parting(what: &str, addresses_too: bool) -> Option<usize> {
    let [one, other] =
        ["1", "2"].map(|seed| steps(start(&format!("{what} {seed}")).unwrap()).unwrap());
    assert!(one.len() > 3, "{what}: only {} steps", one.len());
    let same = |(a, b): (&Step, &Step)| {
        a.instruction == b.instruction && (!addresses_too || a.addresses == b.addresses)
    };
    let parted = one.iter().zip(&other).position(|pair| !same(pair));
    parted.or((one.len() != other.len()).then_some(one.len()))
}

#[test]
fn secrets_lead_nowhere() {
    if let Ok(wanted) = std::env::var(CHILD) {
        return child(&wanted);
    }
    if start("branch 1").map_or(None, steps).is_none() {
        assert!(std::env::var_os("CI").is_none(), "no ptrace here");
        eprintln!("skipped: no ptrace here");
        return;
    }
    assert!(parting("branch", false).is_some(), "a branch is not seen");
    assert!(parting("table", true).is_some(), "a look-up is not seen");
    assert_eq!(parting("table", false), None, "a look-up is no branch");
    let followed = Kernel::available().into_iter();
    for kernel in followed.filter(|kernel| *kernel != Kernel::Portable) {
        for size in [32, 48, 64] {
            for work in ["expand", "encrypt", "decrypt"] {
                let life = format!("{work} {kernel} {size}");
                assert_eq!(parting(&life, true), None, "{life}");
            }
        }
    }
}
