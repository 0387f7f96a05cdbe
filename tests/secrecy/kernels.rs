//! Keys vanish with every kernel of AES-XTS. This runs the tests that encrypt or decrypt again with
//! each kernel that is not the default.

use std::process::Command;

use luksmith::xts::Kernel;

use crate::scan::KERNEL;

#[test]
fn keys_vanish_with_every_kernel() {
    let usual = Kernel::best();
    let others = Kernel::available().into_iter();
    for kernel in others.filter(|kernel| *kernel != usual) {
        let ran = Command::new(std::env::current_exe().unwrap())
            // The others use no kernel, or try all kernels themselves.
            .args(["disk::", "serve::", "storage::", "unlock::"])
            .env(KERNEL, kernel.name())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ran.stdout);
        assert!(ran.status.success(), "{}: {said}", kernel.name());
    }
}
