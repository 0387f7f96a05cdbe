use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::process::{Pid, Signal};

use super::*;
use crate::secret::run::SEARCH;

/// A folder with an executable script `program`.
fn script(text: &str) -> (tempfile::TempDir, Helper) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("program");
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    let helper = Helper::new(path);
    (folder, helper)
}

fn run(helper: &Helper) -> Result<Vec<u8>, SecretError> {
    let read = helper.run(1000, &Interrupt::new())?;
    Ok(read.to_vec())
}

#[track_caller]
fn fails(helper: &Helper) -> HelperError {
    match run(helper) {
        Err(SecretError::Helper { source, .. }) => source,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_secret_is_all_that_the_program_prints() {
    let (_folder, helper) = script("printf 'a secret'");
    assert_eq!(run(&helper).unwrap(), b"a secret");
    let (_folder, helper) = script("echo 'a secret'; exec 1>&-; echo done >&2");
    assert_eq!(run(&helper).unwrap(), b"a secret\n");
    let (_folder, helper) = script("printf %s \"$1\"");
    let helper = helper.argument("an argument; $(no shell)");
    assert_eq!(run(&helper).unwrap(), b"an argument; $(no shell)");
    let program = Helper::new("/bin/echo").argument("a program");
    assert_eq!(run(&program).unwrap(), b"a program\n");
}

#[test]
fn the_program_has_little_of_ours() {
    let (_folder, helper) = script("env | cut -d= -f1 | sort | tr '\\n' ' '; pwd; cat");
    let helper = helper.variable("OF_THE_CALLER", "1");
    let said = String::from_utf8(run(&helper).unwrap()).unwrap();
    assert!(
        said.ends_with("/\n") && said.contains("OF_THE_CALLER"),
        "{said}"
    );
    // The shell itself sets the last ones.
    let allowed = ["OF_THE_CALLER", "PATH", "PWD", "SHLVL", "OLDPWD", "_"];
    for name in said.trim_end_matches("/\n").split_whitespace() {
        assert!(allowed.contains(&name), "{name}");
    }
    let (_folder, helper) = script("printf %s \"$PATH\"");
    assert_eq!(run(&helper).unwrap(), SEARCH.as_bytes());
    let (_folder, helper) = script("tty >&2");
    assert!(
        matches!(fails(&helper), HelperError::Failed(_)),
        "it has no terminal"
    );
}

#[test]
fn failures_are_told_apart() {
    let (_folder, helper) = script("echo no >&2; printf secret; exit 7");
    assert!(matches!(fails(&helper), HelperError::Failed(7)));
    let (_folder, helper) = script("kill -9 $$");
    assert!(matches!(fails(&helper), HelperError::Killed(9)));
    let (_folder, helper) = script("yes >&2 & printf secret; kill $!; exit 4");
    assert!(matches!(fails(&helper), HelperError::Failed(4)));
    let (_folder, helper) = script("exec yes >&2");
    let helper = helper.time(Duration::from_millis(300));
    assert!(matches!(fails(&helper), HelperError::Slow(_)));
    let (_folder, helper) = script("exit 0");
    assert!(matches!(run(&helper), Err(SecretError::Nothing { .. })));
    let (_folder, helper) = script("head -c 1001 /dev/zero");
    assert!(matches!(run(&helper), Err(SecretError::TooLong { .. })));
    assert!(matches!(
        fails(&Helper::new("bin/true")),
        HelperError::Relative
    ));
    for missing in ["/no/such/program", "/", "/bin"] {
        assert!(matches!(
            fails(&Helper::new(missing)),
            HelperError::Refused(_)
        ));
    }
}

#[test]
fn a_program_that_others_can_write_does_not_run() {
    let (folder, helper) = script("printf secret");
    let path = folder.path().join("program");
    let set =
        |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    for (program, around) in [
        (0o720, 0o700),
        (0o702, 0o700),
        (0o700, 0o770),
        (0o700, 0o707),
    ] {
        set(&path, program);
        set(folder.path(), around);
        let HelperError::Refused(error) = fails(&helper) else {
            panic!("{program:o} {around:o}");
        };
        assert!(
            error.to_string().contains("other users can write"),
            "{error}"
        );
    }
    set(&path, 0o600);
    set(folder.path(), 0o700);
    assert!(matches!(fails(&helper), HelperError::Refused(_)));
    // A link to it is followed to the program that is checked.
    set(&path, 0o700);
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert_eq!(run(&Helper::new(&link)).unwrap(), b"secret");
    set(&path, 0o702);
    assert!(matches!(fails(&Helper::new(link)), HelperError::Refused(_)));
}

/// Waits until a process does not exist or is a zombie.
fn is_gone(pid: &str) -> bool {
    let stat = format!("/proc/{}/stat", pid.trim());
    for _ in 0..1000 {
        match fs::read_to_string(&stat) {
            Ok(stat) if !stat.contains(") Z ") => std::thread::sleep(Duration::from_millis(10)),
            _ => return true,
        }
    }
    false
}

#[test]
fn the_whole_process_group_ends_with_it() {
    let text = "sleep 1000 & echo $! > \"$1/pid\"";
    let (folder, helper) = script(&format!("{text}; wait"));
    let helper = helper
        .argument(folder.path())
        .time(Duration::from_millis(300));
    assert!(matches!(fails(&helper), HelperError::Slow(_)));
    let pid = fs::read_to_string(folder.path().join("pid")).unwrap();
    assert!(is_gone(&pid), "{pid}");
    // The child has our stdout too, and would hold it for longer than the program may take.
    let (folder, helper) = script(&format!("{text}; printf secret"));
    let helper = helper.argument(folder.path());
    assert_eq!(run(&helper).unwrap(), b"secret");
    let pid = fs::read_to_string(folder.path().join("pid")).unwrap();
    assert!(is_gone(&pid), "{pid}");
    // One that left the process group is not waited for either.
    let leaves = "setsid sh -c 'echo $$ > \"$0/pid\"; exec sleep 100' \"$1\" &";
    let waits = "while [ ! -s \"$1/pid\" ]; do sleep 0.01; done";
    let (folder, helper) = script(&format!("{leaves} {waits}; printf secret"));
    assert_eq!(run(&helper.argument(folder.path())).unwrap(), b"secret");
    let pid = fs::read_to_string(folder.path().join("pid")).unwrap();
    let pid = pid.trim().parse().ok().and_then(Pid::from_raw).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
    let (folder, helper) =
        script("sleep 1000 >/dev/null 2>&1 & echo $! > \"$1/pid\"; printf secret");
    assert_eq!(run(&helper.argument(folder.path())).unwrap(), b"secret");
    let pid = fs::read_to_string(folder.path().join("pid")).unwrap();
    assert!(is_gone(&pid), "{pid}");
}

#[test]
fn an_interrupt_ends_it() {
    let (folder, helper) = script("echo $$ > \"$1/pid\"; exec sleep 1000");
    let helper = helper.argument(folder.path());
    let interrupt = Interrupt::new();
    let stopped = std::thread::scope(|scope| {
        let running = scope.spawn(|| helper.run(1000, &interrupt).map(|_| ()));
        while !fs::read_to_string(folder.path().join("pid")).is_ok_and(|pid| pid.ends_with('\n')) {
            std::thread::sleep(Duration::from_millis(5));
        }
        interrupt.trigger();
        running.join().unwrap()
    });
    assert!(matches!(stopped, Err(SecretError::Interrupted)));
    let pid = fs::read_to_string(folder.path().join("pid")).unwrap();
    assert!(is_gone(&pid), "{pid}");
}
