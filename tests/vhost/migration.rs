//! QEMU does not migrate a machine with a disk of vhost-user to another host, since the server does
//! not record which pages of the memory it has written.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::program::Folder;
use support::peers::find;

/// A machine, which is killed when this is dropped.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn qemu_refuses_to_migrate_the_machine() {
    let Some(qemu) = find("qemu-system-x86_64") else {
        return;
    };
    let folder = Folder::new();
    let served = folder.serve(&[]);
    let mut machine = Command::new(qemu);
    machine.current_dir(folder.path("."));
    machine.args(["-accel", "tcg", "-m", "64", "-nodefaults", "-S"]);
    machine.args(["-object", "memory-backend-memfd,id=m,size=64M,share=on"]);
    machine.args(["-numa", "node,memdev=m", "-display", "none"]);
    machine.args(["-chardev", "socket,id=c,path=v.sock,reconnect=1"]);
    machine.args(["-device", "vhost-user-blk-pci,chardev=c,num-queues=1"]);
    machine.args(["-qmp", "stdio"]);
    machine.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut machine = Machine(machine.spawn().unwrap());
    let mut commands = machine.0.stdin.take().unwrap();
    let mut answers = BufReader::new(machine.0.stdout.take().unwrap());
    let mut ask = |command: Value| -> Value {
        writeln!(commands, "{command}").unwrap();
        loop {
            let mut line = String::new();
            assert!(answers.read_line(&mut line).unwrap() > 0, "QEMU has ended");
            let answer: Value = serde_json::from_str(&line).unwrap();
            // Neither the greeting nor an event.
            if answer.get("return").is_some() || answer.get("error").is_some() {
                return answer;
            }
        }
    };
    ask(json!({"execute": "qmp_capabilities"}));
    let uri = json!({"uri": "exec:cat >/dev/null"});
    let refused = ask(json!({"execute": "migrate", "arguments": uri}));
    let why = refused["error"]["desc"].as_str();
    assert!(
        why.is_some_and(|why| why.contains("Migration disabled: vhost")),
        "{refused}"
    );
    // The machine goes on as before.
    let status = ask(json!({"execute": "query-status"}));
    assert_eq!(status["return"]["status"], "prelaunch", "{status}");
    ask(json!({"execute": "quit"}));
    assert!(machine.0.wait().unwrap().success());
    served.stop();
}
