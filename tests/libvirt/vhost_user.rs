//! A domain whose disk luksmith serves by shared memory.

use std::process::Command;

use crate::daemon::Daemon;
use crate::domains::{
    assert_guest_ran, define, define_with, disks, fill, passphrase, provision, run,
};
use crate::program::{Running, SIZE};

#[test]
fn a_domain_starts_from_a_disk_of_vhost_user() {
    let Some(daemon) = Daemon::start() else {
        return;
    };
    let memory = "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>";
    let (Some(_), Some(domain)) = (
        define(&daemon, "private"),
        define_with(&daemon, "shared", memory),
    ) else {
        return;
    };
    let folder = daemon.folder();
    let user = Command::new("id").arg("-un").output().unwrap().stdout;
    let user = String::from_utf8(user).unwrap();
    let made = format!("two.img --size {SIZE} --vhost-user s/two.vhost --emulator-user {user}");
    let made = provision(&daemon, &made);
    assert_eq!(made["type"], "luks2");
    fill(&folder.join("two.img"), &passphrase(&daemon, &made));
    let xml = made["xml"].as_str().unwrap();
    assert!(!xml.contains("<encryption"), "{xml}");
    let hint = |n: usize| made["hints"][n].as_str().unwrap();
    assert!(hint(1).contains(memory), "{}", hint(1));
    let (_, serve) = hint(0)
        .split_once("before the machine starts: luksmith ")
        .unwrap();
    std::fs::create_dir(folder.join("s")).unwrap();
    let server = Running::with_socket(daemon.command(serve), &folder.join("s/two.vhost"));

    let attach = |domain: &str| format!("libvirt attach {domain} two.img --vhost-user s/two.vhost");
    let refused = daemon.run(&attach("private"));
    let why = "private: two.img needs memory that the domain shares";
    refused.is(4, &[why, memory]);
    daemon.ok(&attach("shared"));
    let again = daemon.run(&attach("shared"));
    again.is(5, &["attached already"]);
    run(&daemon, &domain);
    drop(server);
    assert_guest_ran(&daemon, "two.img", &made);
    daemon.ok("libvirt detach shared vda");
    assert!(disks(&domain, true).is_empty());
}
