//! Keys vanish whichever kernel of AES-XTS had them: this binary runs its tests again with each that is not the default.

use std::process::Command;

use luksmith::xts::{KERNEL_VARIABLE, Kernel};

#[test]
fn keys_vanish_with_every_kernel() {
    let usual = Kernel::best().unwrap();
    let others = Kernel::available().into_iter();
    for kernel in others.filter(|kernel| *kernel != usual) {
        let ran = Command::new(std::env::current_exe().unwrap())
            // Not this one again, and not those that try all kernels by themselves.
            .args(["kernels::", "steps::", "undefined::"].map(|name| format!("--skip={name}")))
            .env(KERNEL_VARIABLE, kernel.name())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ran.stdout);
        assert!(ran.status.success(), "{}: {said}", kernel.name());
    }
}
