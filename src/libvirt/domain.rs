//! A virtual machine.

use core::ffi::CStr;
use core::fmt;

use super::connection::Connection;
use super::error::LibvirtError;
use super::library::call::{self, Handle};
use super::library::{later_functions, qemu_functions};
use crate::sys::LoadError;

/// A virtual machine, running or shut off.
pub struct Domain(pub(super) Handle<call::Domain>);

/// Which description of a domain is requested.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DomainView {
    /// The definition with which it starts the next time, not the state of the running domain.
    pub inactive: bool,
    /// Includes the passwords of consoles. A read-only connection is denied this.
    pub secure: bool,
}

impl DomainView {
    /// The state of a running domain, or the definition of one that is shut off, without passwords.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    setters! {
        /// Requests the definition with which the domain starts the next time.
        inactive: bool,

        /// Includes the passwords of consoles.
        secure: bool,
    }
}

/// What a change of devices affects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Affect {
    /// The running domain.
    pub live: bool,
    /// The definition with which it starts the next time.
    pub config: bool,
}

impl Affect {
    /// Affects nothing yet. A change has to state at least one of the two.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    setters! {
        /// Changes the running domain.
        live: bool,

        /// Changes the definition with which the domain starts the next time.
        config: bool,
    }

    /// `VIR_DOMAIN_AFFECT_LIVE`, `VIR_DOMAIN_AFFECT_CONFIG`.
    fn flags(self) -> u32 {
        u32::from(self.live) | u32::from(self.config) << 1
    }
}

/// The sizes of a disk, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlockInfo {
    /// The size that the guest sees.
    pub capacity: u64,
    /// The space that is allocated in the storage.
    pub allocation: u64,
    /// The size of the file or device.
    pub physical: u64,
}

impl Domain {
    /// Its name.
    ///
    /// # Errors
    /// [`LibvirtError`].
    pub fn name(&self) -> Result<String, LibvirtError> {
        self.0.functions.domain_name.call(&self.0)
    }

    /// Its UUID.
    ///
    /// # Errors
    /// [`LibvirtError`].
    pub fn uuid(&self) -> Result<uuid::Uuid, LibvirtError> {
        self.0.functions.domain_uuid.call(&self.0)
    }

    /// Its description.
    ///
    /// # Errors
    /// [`LibvirtError::Denied`] for `secure` on a read-only connection, …
    pub fn xml(&self, which: DomainView) -> Result<String, LibvirtError> {
        let flags = u32::from(which.secure) | u32::from(which.inactive) << 1;
        self.0.functions.domain_xml.call(&self.0, flags)
    }

    /// Whether it runs (or is paused).
    ///
    /// # Errors
    /// [`LibvirtError`].
    pub fn is_active(&self) -> Result<bool, LibvirtError> {
        self.0.functions.domain_is_active.holds(&self.0)
    }

    /// Whether it stays defined after it shuts off.
    ///
    /// # Errors
    /// [`LibvirtError`].
    pub fn is_persistent(&self) -> Result<bool, LibvirtError> {
        self.0.functions.domain_is_persistent.holds(&self.0)
    }

    /// Whether it starts with the host.
    ///
    /// # Errors
    /// [`LibvirtError`].
    pub fn autostart(&self) -> Result<bool, LibvirtError> {
        self.0
            .functions
            .domain_autostart
            .call(&self.0)
            .map(|answer| answer != 0)
    }

    /// The sizes of a disk, named by its target (`vda`) or its path.
    ///
    /// # Errors
    /// [`LibvirtError`].
    pub fn block_info(&self, disk: &str) -> Result<BlockInfo, LibvirtError> {
        let info = self.0.functions.domain_block_info.call(&self.0, disk)?;
        Ok(BlockInfo {
            capacity: info.capacity,
            allocation: info.allocation,
            physical: info.physical,
        })
    }

    /// Adds a device.
    ///
    /// # Errors
    /// [`LibvirtError::State`] for a live change of a domain that does not run, …
    pub fn attach(&self, device: &str, affect: Affect) -> Result<(), LibvirtError> {
        self.0
            .functions
            .attach_device
            .call(&self.0, device, affect.flags())
    }

    /// Removes a device. For a running domain this only sends the request: the guest decides when
    /// it releases the device.
    ///
    /// # Errors
    /// [`LibvirtError::State`] for a live change of a domain that does not run, …
    pub fn detach(&self, device: &str, affect: Affect) -> Result<(), LibvirtError> {
        self.0
            .functions
            .detach_device
            .call(&self.0, device, affect.flags())
    }

    /// Replaces the device with the target in this XML.
    ///
    /// # Errors
    /// [`LibvirtError::Unsupported`] for a live change that libvirt cannot make, …
    pub fn update(&self, device: &str, affect: Affect) -> Result<(), LibvirtError> {
        self.0
            .functions
            .update_device
            .call(&self.0, device, affect.flags())
    }

    /// Whether a migration, a backup, or the saving of its memory is under way.
    ///
    /// # Errors
    /// [`LibvirtError::State`] when it does not run, …
    pub fn has_job(&self) -> Result<bool, LibvirtError> {
        let job = self.0.functions.domain_job.call(&self.0)?;
        Ok(job.kind != 0)
    }

    /// Whether its memory was saved (`virsh managedsave`), with the disks that it had then.
    ///
    /// # Errors
    /// [`LibvirtError`].
    pub fn is_saved(&self) -> Result<bool, LibvirtError> {
        let answer = self.0.functions.managed_save.number(&self.0, 0)?;
        Ok(answer != 0)
    }

    /// How many snapshots of it libvirt knows.
    ///
    /// # Errors
    /// [`LibvirtError`].
    pub fn snapshots(&self) -> Result<u32, LibvirtError> {
        let number = self.0.functions.snapshots.number(&self.0, 0)?;
        Ok(number.unsigned_abs())
    }

    /// How many checkpoints it has, from which incremental backups are made. A libvirt before 5.6
    /// has none.
    ///
    /// # Errors
    /// [`LibvirtError`].
    pub fn checkpoints(&self) -> Result<u32, LibvirtError> {
        let found = later_functions().and_then(|functions| functions.checkpoints.call(&self.0));
        match found {
            Ok(number) => Ok(number.unsigned_abs()),
            Err(LibvirtError::Library(LoadError::TooOld { .. }) | LibvirtError::Unsupported(_)) => {
                Ok(0)
            }
            Err(error) => Err(error),
        }
    }

    /// Starts it.
    ///
    /// # Errors
    /// [`LibvirtError`]; [`LibvirtError::NoSecret`] when a disk's secret is missing.
    pub fn start(&self) -> Result<(), LibvirtError> {
        self.0.functions.start_domain.call(&self.0).map(drop)
    }

    /// Stops it at once, without asking the guest.
    ///
    /// # Errors
    /// [`LibvirtError::State`] when it does not run, …
    pub fn destroy(&self) -> Result<(), LibvirtError> {
        self.0.functions.destroy_domain.call(&self.0).map(drop)
    }

    /// Removes its definition. A running domain stays until it shuts off.
    ///
    /// # Errors
    /// [`LibvirtError`].
    pub fn undefine(&self) -> Result<(), LibvirtError> {
        self.0.functions.undefine_domain.call(&self.0, 0)
    }

    /// Sends a QMP command (one JSON object) to the QEMU of a running domain, and returns its
    /// reply, which may be an error of QEMU. libvirt marks the domain as tainted
    /// (`custom-monitor`) from then on.
    ///
    /// The command may hold a secret: the caller wipes it.
    ///
    /// # Errors
    /// [`LibvirtError::Library`] when `libvirt-qemu.so.0` is missing, [`LibvirtError::State`]
    /// when the domain does not run, …
    pub fn monitor_command(&self, command: &CStr) -> Result<String, LibvirtError> {
        qemu_functions()?.monitor_command.call(&self.0, command, 0)
    }
}

impl Connection {
    /// All domains, running or not.
    ///
    /// # Errors
    /// [`LibvirtError`].
    pub fn domains(&self) -> Result<Vec<Domain>, LibvirtError> {
        let found = self.0.functions.domains.call(&self.0, 0)?;
        Ok(found.into_iter().map(Domain).collect())
    }

    /// The domain of this name, or else of this UUID.
    ///
    /// # Errors
    /// [`LibvirtError::NoDomain`], …
    pub fn domain(&self, name_or_uuid: &str) -> Result<Domain, LibvirtError> {
        let functions = self.0.functions;
        let by_name = functions.domain_by_name.call(&self.0, name_or_uuid);
        match by_name {
            Err(LibvirtError::NoDomain(_)) if uuid::Uuid::try_parse(name_or_uuid).is_ok() => {
                functions.domain_by_uuid.call(&self.0, name_or_uuid)
            }
            other => other,
        }
        .map(Domain)
    }

    /// Defines a domain, or changes the definition with which an existing one starts the next time.
    ///
    /// # Errors
    /// [`LibvirtError`].
    pub fn define_domain(&self, xml: &str) -> Result<Domain, LibvirtError> {
        self.0
            .functions
            .define_domain
            .call(&self.0, xml)
            .map(Domain)
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Domain")
            .field(&self.name().unwrap_or_default())
            .finish()
    }
}
