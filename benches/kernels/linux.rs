//! Linux' assembly for AES-XTS, in the shared object that `benches/linux-xts` builds.
//!
//! A sector costs what it costs Linux in `xts_crypt` of `aesni-intel_glue.c`: one function encrypts
//! its tweak, and another one the sector.

#![allow(unsafe_code)] // functions of that object, and of the dynamic linker

use std::ffi::{CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;

use luksmith::xts::Kernel;

type SetKey = unsafe extern "C" fn(*mut Schedule, *const u8, u32);
type EncryptTweak = unsafe extern "C" fn(*const Schedule, *mut u8);
type Crypt = unsafe extern "C" fn(*const Schedule, *const u8, *mut u8, u32, *mut u8);

unsafe extern "C" {
    fn dlopen(path: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
}

const RTLD_NOW: c_int = 2;

/// The size of a block in bytes.
const BLOCK: usize = 16;

/// `struct crypto_aes_ctx` of Linux. Its functions need the alignment.
#[repr(C, align(64))]
struct Schedule {
    encrypt: [[u8; BLOCK]; 15],
    decrypt: [[u8; BLOCK]; 15],
    key_size: u32,
}

/// One implementation of Linux.
#[derive(Clone, Copy)]
pub(crate) struct Assembly {
    /// The end of the names of its functions.
    pub(crate) name: &'static str,
    /// The kernel of luksmith for the same width.
    pub(crate) kernel: Kernel,
    set_key: SetKey,
    encrypt_tweak: EncryptTweak,
    encrypt: Crypt,
    decrypt: Crypt,
}

/// The implementations, the kernels of the same width, and what they need of the CPU.
const ALL: [(&str, Kernel, &str); 4] = [
    (
        "vaes_avx10_512",
        Kernel::Vaes512,
        "vaes vpclmulqdq avx512bw avx512vl bmi2",
    ),
    (
        "vaes_avx10_256",
        Kernel::Vaes256,
        "vaes vpclmulqdq avx512bw avx512vl bmi2",
    ),
    ("vaes_avx2", Kernel::Vaes256, "vaes vpclmulqdq avx2"),
    ("aesni_avx", Kernel::Aesni, "aes avx"),
];

impl Assembly {
    /// The implementations that this CPU can run, or why there are none.
    pub(crate) fn available() -> Result<Vec<Self>, String> {
        let info = std::fs::read_to_string("/proc/cpuinfo").map_err(|error| error.to_string())?;
        let flags = info.lines().find(|line| line.starts_with("flags"));
        let flags: Vec<_> = flags.unwrap_or_default().split_whitespace().collect();
        let mut runs = ALL.to_vec();
        runs.retain(|(_, kernel, needs)| {
            Kernel::available().contains(kernel)
                && needs.split_whitespace().all(|need| flags.contains(&need))
        });
        if runs.is_empty() {
            return Err("this CPU cannot run it".into());
        }
        let path = object()?;
        let name = CString::new(path.as_os_str().as_encoded_bytes());
        let name = name.map_err(|error| error.to_string())?;
        // SAFETY: the name ends in NUL, and the object has no constructors.
        let library = unsafe { dlopen(name.as_ptr(), RTLD_NOW) };
        if library.is_null() {
            return Err(format!("{} cannot be loaded", path.display()));
        }
        runs.into_iter()
            .map(|(name, kernel, _)| Self::find(library, name, kernel))
            .collect()
    }

    fn find(library: *mut c_void, name: &'static str, kernel: Kernel) -> Result<Self, String> {
        let set_key = symbol(library, "aesni_set_key")?;
        let encrypt_tweak = symbol(library, "aes_xts_encrypt_iv")?;
        let encrypt = symbol(library, &format!("aes_xts_encrypt_{name}"))?;
        let decrypt = symbol(library, &format!("aes_xts_decrypt_{name}"))?;
        Ok(Self {
            name,
            kernel,
            // SAFETY: its declaration in Linux has this signature.
            set_key: unsafe { std::mem::transmute::<*mut c_void, SetKey>(set_key) },
            // SAFETY: as above.
            encrypt_tweak: unsafe {
                std::mem::transmute::<*mut c_void, EncryptTweak>(encrypt_tweak)
            },
            // SAFETY: as above.
            encrypt: unsafe { std::mem::transmute::<*mut c_void, Crypt>(encrypt) },
            // SAFETY: as above.
            decrypt: unsafe { std::mem::transmute::<*mut c_void, Crypt>(decrypt) },
        })
    }

    /// This implementation with a key: the data key, then the tweak key.
    pub(crate) fn keyed(self, key: &[u8]) -> Keyed {
        let (data, tweak) = key.split_at(key.len() / 2);
        Keyed {
            assembly: self,
            data: self.expand(data),
            tweak: self.expand(tweak),
        }
    }

    fn expand(self, key: &[u8]) -> Box<Schedule> {
        let mut schedule = Box::new(Schedule {
            encrypt: [[0; BLOCK]; 15],
            decrypt: [[0; BLOCK]; 15],
            key_size: 0,
        });
        let key_size = u32::try_from(key.len()).expect("the size of a key");
        // SAFETY: the schedule is aligned, and the key is as long as the function is told.
        unsafe { (self.set_key)(&raw mut *schedule, key.as_ptr(), key_size) };
        schedule
    }
}

/// The object, which is built if it is not there.
fn object() -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os("LUKSMITH_LINUX_XTS") {
        return Ok(path.into());
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("target/linux-xts/linux-xts.so");
    if !path.exists() {
        let output = Command::new(root.join("benches/linux-xts")).output();
        let output = output.map_err(|error| format!("benches/linux-xts: {error}"))?;
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            return Err(errors.lines().last().unwrap_or_default().to_owned());
        }
    }
    Ok(path)
}

fn symbol(library: *mut c_void, name: &str) -> Result<*mut c_void, String> {
    let text = CString::new(name).map_err(|error| error.to_string())?;
    // SAFETY: the library is loaded, and the name ends in NUL.
    let symbol = unsafe { dlsym(library, text.as_ptr()) };
    match symbol.is_null() {
        true => Err(format!("the object has no {name}")),
        false => Ok(symbol),
    }
}

/// An implementation of Linux with its key schedules.
pub(crate) struct Keyed {
    assembly: Assembly,
    data: Box<Schedule>,
    tweak: Box<Schedule>,
}

impl Keyed {
    /// Encrypts or decrypts the sectors of `data`. `first` is the number of the first one, in units
    /// of 512 bytes (`plain64` of dm-crypt).
    pub(crate) fn crypt(&self, first: u64, sector_size: usize, data: &mut [u8], encrypt: bool) {
        let crypt = if encrypt {
            self.assembly.encrypt
        } else {
            self.assembly.decrypt
        };
        let len = u32::try_from(sector_size).expect("the size of a sector");
        let mut number = first;
        for sector in data.chunks_exact_mut(sector_size) {
            let mut tweak = u128::from(number).to_le_bytes();
            // SAFETY: the schedule has a key, and a tweak is one block.
            unsafe { (self.assembly.encrypt_tweak)(&raw const *self.tweak, tweak.as_mut_ptr()) };
            let place = sector.as_mut_ptr();
            // SAFETY: as above, and the sector has `len` bytes, which may be replaced in place.
            unsafe { crypt(&raw const *self.data, place, place, len, tweak.as_mut_ptr()) };
            number = number.wrapping_add(u64::from(len / 512));
        }
    }
}
