//! A domain and a host without findings.

use luksmith::audit::{Document, Host, SocketUnit};

/// A domain as printed by `virsh dumpxml --inactive`: LUKS on a block device, an overlay over a
/// shared image, an installation disc, and a disk that `luksmith serve` exports over a Unix socket.
pub(crate) const DOMAIN: &str = r#"<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>vm1</name>
  <uuid>3c0b8a3e-9d6f-4c57-8e0c-2a1d6fb0c3f1</uuid>
  <memory unit='KiB'>4194304</memory>
  <currentMemory unit='KiB'>4194304</currentMemory>
  <memoryBacking>
    <source type='memfd'/>
  </memoryBacking>
  <vcpu placement='static'>2</vcpu>
  <os>
    <type arch='x86_64' machine='pc-q35-7.2'>hvm</type>
  </os>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='block' device='disk'>
      <driver name='qemu' type='raw' cache='none' discard='unmap'/>
      <source dev='/dev/vg/vm1'>
        <encryption format='luks'>
          <secret type='passphrase' uuid='0a81f5b2-8403-7b23-c8d6-21ccc2f80d6f'/>
        </encryption>
      </source>
      <target dev='vda' bus='virtio'/>
    </disk>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/>
      <source file='/var/lib/libvirt/images/vm1.qcow2'/>
      <backingStore type='file'>
        <format type='raw'/>
        <source file='/var/lib/libvirt/images/base.img'/>
        <backingStore/>
      </backingStore>
      <target dev='vdb' bus='virtio'/>
    </disk>
    <disk type='network' device='disk'>
      <driver name='qemu' type='raw'/>
      <source protocol='nbd' name='vm1'>
        <host transport='unix' socket='/run/luksmith/vm1.sock'/>
      </source>
      <target dev='vdc' bus='virtio'/>
    </disk>
    <disk type='network' device='disk'>
      <driver name='qemu' type='raw'/>
      <source protocol='rbd' name='pool/vm1'>
        <host name='10.0.0.1' port='6789'/>
        <encryption format='luks2' engine='librbd'>
          <secret type='passphrase' uuid='7d3f2a10-51c2-4f7e-9b11-5a0e0b8f9b02'/>
        </encryption>
      </source>
      <target dev='vdd' bus='virtio'/>
    </disk>
    <disk type='file' device='cdrom'>
      <driver name='qemu' type='raw'/>
      <source file='/var/lib/libvirt/images/install.iso'/>
      <target dev='sda' bus='sata'/>
      <readonly/>
    </disk>
    <disk type='file' device='cdrom'>
      <target dev='sdb' bus='sata'/>
      <readonly/>
    </disk>
    <serial type='pty'>
      <target port='0'/>
    </serial>
    <channel type='unix'>
      <source mode='bind'/>
      <target type='virtio' name='org.qemu.guest_agent.0'/>
    </channel>
    <graphics type='vnc' port='-1' autoport='yes' listen='127.0.0.1'>
      <listen type='address' address='127.0.0.1'/>
    </graphics>
    <graphics type='spice'>
      <listen type='socket'/>
    </graphics>
    <watchdog model='itco' action='reset'/>
  </devices>
  <seclabel type='dynamic' model='apparmor' relabel='yes'/>
  <seclabel type='dynamic' model='dac' relabel='yes'/>
</domain>
"#;

pub(crate) const POOL: &str = "<pool type='dir'>
  <name>images</name>
  <capacity unit='bytes'>107374182400</capacity>
  <allocation unit='bytes'>53687091200</allocation>
  <available unit='bytes'>53687091200</available>
  <target><path>/srv/images</path></target>
</pool>
";

pub(crate) const VOLUME: &str = "<volume type='file'>
  <name>vm2.luks</name>
  <key>/srv/images/vm2.luks</key>
  <capacity unit='bytes'>10737418240</capacity>
  <allocation unit='bytes'>0</allocation>
  <target>
    <path>/srv/images/vm2.luks</path>
    <format type='raw'/>
    <encryption format='luks'/>
  </target>
</volume>
";

pub(crate) const SECRET: &str = "<secret ephemeral='yes' private='yes'>
  <uuid>0a81f5b2-8403-7b23-c8d6-21ccc2f80d6f</uuid>
  <usage type='volume'><volume>/dev/vg/vm1</volume></usage>
</secret>
";

const QEMU: &str = r#"# Master configuration file for the QEMU driver.
security_require_confined = 1
migration_address = "10.1.0.5"
migration_host = "host1.migration.example"
migrate_tls_force = 1
nbd_tls = 1
vnc_listen = "127.0.0.1"
cgroup_device_acl = [
    "/dev/null", "/dev/full", "/dev/zero",
    "/dev/urandom", "/dev/kvm",
]
"#;

const LIBVIRTD: &str = r#"listen_tls = 0
access_drivers = [ "polkit" ]
unix_sock_rw_perms = "0770"
"#;

const SOCKET: &str = "[Socket]
ListenStream=/run/libvirt/libvirt-sock
SocketMode=0666
";

const ADMIN: &str = "[Socket]
ListenStream=/run/libvirt/libvirt-admin-sock
SocketMode=0600
";

const MOUNTINFO: &str = "22 1 253:0 / / rw,relatime shared:1 - ext4 /dev/mapper/vg-root rw
30 22 0:25 / /dev/shm rw - tmpfs tmpfs rw
41 22 0:40 / /srv/nfs\\040share rw - nfs4 filer:/vm rw
";

const LVM: &str = "# This is a comment: {
devices {
\tscan_lvs = 0   # not in volumes
\tglobal_filter = [ \"a|^/dev/nvme0n1p3$|\",
\t\t\"r|.*|\" ]
}
global { umask = 63 }
";

const RULES: &str = "// org.libvirt.unix.manage is answered by the action's default
polkit.addRule(function(action, subject) {
    if (action.id == \"org.freedesktop.login1.reboot\") { return polkit.Result.YES; }
});
";

const ACTIONS: &str = "<!DOCTYPE policyconfig PUBLIC \"-//freedesktop//DTD PolicyKit Policy Configuration 1.0//EN\" \"x\">
<policyconfig>
  <action id=\"org.libvirt.unix.monitor\">
    <defaults>
      <allow_any>yes</allow_any>
    </defaults>
  </action>
  <action id=\"org.libvirt.unix.manage\">
    <defaults>
      <allow_any>auth_admin_keep</allow_any>
    </defaults>
  </action>
</policyconfig>
";

pub(crate) fn unit(name: &str, text: &str) -> SocketUnit {
    SocketUnit::new(
        name.to_owned(),
        vec![Document::file(format!("/lib/systemd/system/{name}"), text)],
    )
}

pub(crate) fn host() -> Host {
    let mut host = Host::default();
    host.files = vec![
        Document::file("/etc/libvirt/qemu.conf", QEMU),
        Document::file("/etc/libvirt/libvirtd.conf", LIBVIRTD),
        Document::file("/etc/default/libvirtd", "#LIBVIRTD_ARGS=\"--listen\"\n"),
        Document::file("/etc/default/libvirt-guests", "ON_SHUTDOWN=shutdown\n"),
        Document::file("/etc/lvm/lvm.conf", LVM),
        Document::file("/usr/share/polkit-1/rules.d/50-default.rules", RULES),
        Document::file(
            "/usr/share/polkit-1/actions/org.libvirt.unix.policy",
            ACTIONS,
        ),
    ];
    host.sockets = vec![
        unit("libvirtd.socket", SOCKET),
        unit("libvirtd-admin.socket", ADMIN),
        unit("libvirtd-tls.socket", "[Socket]\nListenStream=16514\n"),
        unit("libvirtd-tcp.socket", "[Socket]\nListenStream=16509\n"),
    ];
    host.mountinfo = Some(Document::file("/proc/self/mountinfo", MOUNTINFO));
    host
}
