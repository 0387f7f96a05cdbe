//! libgcrypt and nettle, if they are installed.

use std::ffi::{c_char, c_int, c_void};
use std::ptr::{null, null_mut};

use libloading::Library;

use crate::Encrypt;

/// The library stays loaded until the program ends.
fn library(name: &str) -> Option<&'static Library> {
    let library = unsafe { Library::new(name) }.ok()?;
    Some(Box::leak(Box::new(library)))
}

pub(crate) fn libgcrypt(key: &[u8]) -> Option<Encrypt> {
    const AES128: c_int = 7;
    const AES256: c_int = 9;
    const MODE_XTS: c_int = 13;
    type Check = unsafe extern "C" fn(*const c_char) -> *const c_char;
    type Open = unsafe extern "C" fn(*mut *mut c_void, c_int, c_int, u32) -> u32;
    type Set = unsafe extern "C" fn(*mut c_void, *const u8, usize) -> u32;
    type Turn = unsafe extern "C" fn(*mut c_void, *mut u8, usize, *const u8, usize) -> u32;
    let library = library("libgcrypt.so.20")?;
    let (check, open, set_key, set_iv, encrypt): (Check, Open, Set, Set, Turn) = unsafe {
        (
            *library.get(b"gcry_check_version").ok()?,
            *library.get(b"gcry_cipher_open").ok()?,
            *library.get(b"gcry_cipher_setkey").ok()?,
            *library.get(b"gcry_cipher_setiv").ok()?,
            *library.get(b"gcry_cipher_encrypt").ok()?,
        )
    };
    let algorithm = if key.len() == 32 { AES128 } else { AES256 };
    let mut handle = null_mut();
    unsafe {
        check(null());
        assert_eq!(open(&raw mut handle, algorithm, MODE_XTS, 0), 0);
        assert_eq!(set_key(handle, key.as_ptr(), key.len()), 0);
    }
    Some(Box::new(move |size, data| {
        for (sector, number) in data.chunks_exact_mut(size).zip(0_u128..) {
            let iv = number.to_le_bytes();
            unsafe {
                set_iv(handle, iv.as_ptr(), iv.len());
                encrypt(handle, sector.as_mut_ptr(), size, null(), 0);
            }
        }
    }))
}

pub(crate) fn nettle(key: &[u8]) -> Option<Encrypt> {
    type SetKey = unsafe extern "C" fn(*mut c_void, *const u8);
    type Turn = unsafe extern "C" fn(*const c_void, *const u8, usize, *mut u8, *const u8);
    let library = library("libnettle.so.8")?;
    let names: [&[u8]; 2] = if key.len() == 32 {
        [
            b"nettle_xts_aes128_set_encrypt_key",
            b"nettle_xts_aes128_encrypt_message",
        ]
    } else {
        [
            b"nettle_xts_aes256_set_encrypt_key",
            b"nettle_xts_aes256_encrypt_message",
        ]
    };
    let (set_key, encrypt): (SetKey, Turn) =
        unsafe { (*library.get(names[0]).ok()?, *library.get(names[1]).ok()?) };
    // Two contexts of AES-256 take 480 bytes.
    let mut context = vec![0_u64; 512];
    unsafe { set_key(context.as_mut_ptr().cast(), key.as_ptr()) };
    Some(Box::new(move |size, data| {
        for (sector, number) in data.chunks_exact_mut(size).zip(0_u128..) {
            let iv = number.to_le_bytes();
            let at = sector.as_mut_ptr();
            unsafe { encrypt(context.as_ptr().cast(), iv.as_ptr(), size, at, at) };
        }
    }))
}
