//! A user who may lock only 64 KiB of memory, the default of Linux before 5.16.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use support::peers::{find, run};

use crate::session::{CHEAP, Session};

/// The user that has no privileges.
const OTHER_USER: &str = "65534";

#[test]
fn sixty_four_kibibytes_of_locked_memory_are_enough() {
    let (Some(prlimit), Some(setpriv)) = (find("prlimit"), find("setpriv")) else {
        return;
    };
    let session = Session::new();
    // Root may lock any amount.
    let root = rustix::process::geteuid().is_root();
    let folder = session.path("theirs");
    fs::create_dir(&folder).unwrap();
    if root {
        fs::set_permissions(session.folder(), Permissions::from_mode(0o711)).unwrap();
        std::os::unix::fs::chown(&folder, Some(65534), Some(65534)).unwrap();
    }
    for name in ["key", "other"] {
        fs::copy(session.path(name), folder.join(name)).unwrap();
        fs::set_permissions(folder.join(name), Permissions::from_mode(0o644)).unwrap();
    }
    // The program may be in a folder that only its builder can enter.
    let program = folder.join("luksmith");
    fs::copy(env!("CARGO_BIN_EXE_luksmith"), &program).unwrap();
    let limited = |args: &str| {
        let mut command = std::process::Command::new(&prlimit);
        command.arg("--memlock=65536:65536").current_dir(&folder);
        if root {
            command
                .arg(&setpriv)
                .args(["--reuid", OTHER_USER, "--regid", OTHER_USER]);
            command.args(["--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]);
        }
        run(command.arg(&program).args(args.split(' ')));
    };
    let cheap = CHEAP.join(" ");
    for kind in ["luks1", "luks2"] {
        limited(&format!(
            "create {kind} --type {kind} --size 1M --key-file key {cheap}"
        ));
        limited(&format!(
            "key add {kind} --key-file key --new-key-file other {cheap}"
        ));
        limited(&format!(
            "key change {kind} --key-file other --new-key-file other {cheap}"
        ));
        limited(&format!("key test {kind} --key-file other"));
        limited(&format!("decrypt {kind} {kind}.plain --key-file key"));
    }
}
