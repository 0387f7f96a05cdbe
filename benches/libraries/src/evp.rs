//! OpenSSL's EVP interface: of the OpenSSL that is built with this program, of AWS-LC, and of the
//! installed OpenSSL.

use std::ffi::{c_int, c_void};
use std::ptr::null_mut;

use libloading::Library;

use crate::Encrypt;

type Pointer = *mut c_void;
type InitEx = unsafe extern "C" fn(Pointer, *const c_void, Pointer, *const u8, *const u8) -> c_int;
type Update = unsafe extern "C" fn(Pointer, *mut u8, *mut c_int, *const u8, c_int) -> c_int;

/// The functions of the interface that are used.
struct Evp {
    new: unsafe extern "C" fn() -> Pointer,
    xts_128: unsafe extern "C" fn() -> *const c_void,
    xts_256: unsafe extern "C" fn() -> *const c_void,
    encrypt_init: InitEx,
    update: Update,
}

mod built {
    use super::{Pointer, c_int, c_void};

    unsafe extern "C" {
        pub(super) fn EVP_CIPHER_CTX_new() -> Pointer;
        pub(super) fn EVP_aes_128_xts() -> *const c_void;
        pub(super) fn EVP_aes_256_xts() -> *const c_void;
        pub(super) fn EVP_EncryptInit_ex(
            context: Pointer,
            cipher: *const c_void,
            engine: Pointer,
            key: *const u8,
            iv: *const u8,
        ) -> c_int;
        pub(super) fn EVP_EncryptUpdate(
            context: Pointer,
            out: *mut u8,
            out_len: *mut c_int,
            data: *const u8,
            len: c_int,
        ) -> c_int;
    }
}

pub(crate) fn openssl4(key: &[u8]) -> Encrypt {
    keyed(
        &Evp {
            new: built::EVP_CIPHER_CTX_new,
            xts_128: built::EVP_aes_128_xts,
            xts_256: built::EVP_aes_256_xts,
            encrypt_init: built::EVP_EncryptInit_ex,
            update: built::EVP_EncryptUpdate,
        },
        key,
    )
}

/// AWS-LC has no AES-128 in XTS mode.
pub(crate) fn aws_lc(key: &[u8]) -> Option<Encrypt> {
    if key.len() == 32 {
        return None;
    }
    use aws_lc_sys as lc;
    unsafe extern "C" fn new() -> Pointer {
        unsafe { lc::EVP_CIPHER_CTX_new().cast() }
    }
    unsafe extern "C" fn xts_256() -> *const c_void {
        unsafe { lc::EVP_aes_256_xts().cast() }
    }
    unsafe extern "C" fn init(
        context: Pointer,
        cipher: *const c_void,
        _: Pointer,
        key: *const u8,
        iv: *const u8,
    ) -> c_int {
        unsafe { lc::EVP_EncryptInit_ex(context.cast(), cipher.cast(), null_mut(), key, iv) }
    }
    unsafe extern "C" fn update(
        context: Pointer,
        out: *mut u8,
        out_len: *mut c_int,
        data: *const u8,
        len: c_int,
    ) -> c_int {
        unsafe { lc::EVP_EncryptUpdate(context.cast(), out, out_len, data, len) }
    }
    let keyed = keyed(
        &Evp {
            new,
            xts_128: xts_256,
            xts_256,
            encrypt_init: init,
            update,
        },
        key,
    );
    Some(keyed)
}

pub(crate) fn installed_openssl(key: &[u8]) -> Option<Encrypt> {
    // The library stays loaded until the program ends.
    let library: &Library = Box::leak(Box::new(unsafe { Library::new("libcrypto.so.3") }.ok()?));
    unsafe {
        let evp = Evp {
            new: *library.get(b"EVP_CIPHER_CTX_new").ok()?,
            xts_128: *library.get(b"EVP_aes_128_xts").ok()?,
            xts_256: *library.get(b"EVP_aes_256_xts").ok()?,
            encrypt_init: *library.get(b"EVP_EncryptInit_ex").ok()?,
            update: *library.get(b"EVP_EncryptUpdate").ok()?,
        };
        Some(keyed(&evp, key))
    }
}

fn keyed(evp: &Evp, key: &[u8]) -> Encrypt {
    let (init, update) = (evp.encrypt_init, evp.update);
    let context = unsafe { (evp.new)() };
    let cipher = unsafe {
        if key.len() == 32 {
            (evp.xts_128)()
        } else {
            (evp.xts_256)()
        }
    };
    let iv = [0; 16];
    let made = unsafe { init(context, cipher, null_mut(), key.as_ptr(), iv.as_ptr()) };
    assert_eq!(made, 1);
    Box::new(move |size, data| {
        for (sector, number) in data.chunks_exact_mut(size).zip(0_u128..) {
            let iv = number.to_le_bytes();
            let at = sector.as_mut_ptr();
            let mut written = 0;
            let len = c_int::try_from(size).expect("a small sector");
            unsafe {
                init(
                    context,
                    std::ptr::null(),
                    null_mut(),
                    std::ptr::null(),
                    iv.as_ptr(),
                );
                update(context, at, &raw mut written, at, len);
            }
        }
    })
}
