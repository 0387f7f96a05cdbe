//! Notes that several commands print.

use luksmith_formats::cipher::{BlockCipher, CipherSpec};

use super::output;

/// Prints a note if this cipher is much slower than all others.
pub(crate) fn note_slow(spec: CipherSpec) {
    if spec.cipher == BlockCipher::Twofish {
        output::note(format_args!(
            "twofish is far slower here than any other cipher; `luksmith benchmark --cipher \
             {spec}` measures it"
        ));
    }
}
