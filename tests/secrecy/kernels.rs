//! Keys vanish with every kernel of AES-XTS. This runs the tests of this binary again with each
//! kernel that is not the default.

use std::process::Command;

use luksmith::xts::Kernel;

use crate::scan::KERNEL;

#[test]
fn keys_vanish_with_every_kernel() {
    let usual = Kernel::best();
    let others = Kernel::available().into_iter();
    for kernel in others.filter(|kernel| *kernel != usual) {
        let ran = Command::new(std::env::current_exe().unwrap())
            // Without this test, and without the tests that try all kernels themselves.
            .args(
                ["kernels::", "schedules::", "steps::", "undefined::"]
                    .map(|name| format!("--skip={name}")),
            )
            .env(KERNEL, kernel.name())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ran.stdout);
        assert!(ran.status.success(), "{}: {said}", kernel.name());
    }
}
