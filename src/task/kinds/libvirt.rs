//! Errors of libvirt and of QEMU's monitor.

use std::io;

use super::kinds;
use crate::libvirt::LibvirtError;
use crate::libvirt::xml::{ReadError, WriteError};
use crate::qemu::{AmendError, QmpError};
use crate::task::Kind;

kinds! {
    LibvirtError => libvirt,
    QmpError => qmp,
    AmendError => amend,
    ReadError => read,
    WriteError => write,
}

fn read(_: &ReadError) -> Kind {
    Kind::Storage
}

fn write(_: &WriteError) -> Kind {
    Kind::Parameters
}

pub(super) fn libvirt(error: &LibvirtError) -> Kind {
    match error {
        LibvirtError::Denied(_) | LibvirtError::Private(_) | LibvirtError::NoValue(_) => {
            Kind::Permission
        }
        LibvirtError::DuplicateUsage(_) | LibvirtError::Exists(_) => Kind::Exists,
        LibvirtError::Busy(_) => Kind::Busy,
        LibvirtError::Invalid(_) | LibvirtError::Nul(_) | LibvirtError::TooLong { .. } => {
            Kind::Parameters
        }
        LibvirtError::Lock(_) => Kind::Memory,
        LibvirtError::Library(_) | LibvirtError::Unsupported(_) => Kind::Unsupported,
        _ => Kind::Storage,
    }
}

fn qmp(error: &QmpError) -> Kind {
    match error {
        QmpError::Connect { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            Kind::Permission
        }
        QmpError::Silent(_) | QmpError::Occupied(_) => Kind::Busy,
        QmpError::Refused { .. } | QmpError::Job { .. } => Kind::Parameters,
        QmpError::NoCommand(_) | QmpError::Aborts(_) => Kind::Unsupported,
        _ => Kind::Storage,
    }
}

fn amend(error: &AmendError) -> Kind {
    match error {
        AmendError::Qmp(error) => qmp(error),
        AmendError::NotLuks(_) => Kind::Parameters,
    }
}
