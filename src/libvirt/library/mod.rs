//! The functions of `libvirt.so.0` that this crate calls, looked up when they are first needed.
//!
//! `shape` has a type for each signature, and [`call`] a safe method that calls a function of this
//! signature. This file has the table of functions and their signatures, as libvirt's headers
//! declare them. No file outside of this module handles libvirt's raw pointers.
#![allow(unsafe_code)] // functions of a library in C

mod apart;
pub(super) mod call;
mod shape;

use core::ffi::{c_int, c_void};
use core::ptr::null_mut;

use self::shape::*;
use super::error::LibvirtError;
use crate::sys::library::functions as table;

/// The main library.
const LIBVIRT: &str = "libvirt.so.0";

/// The library with the functions that are for QEMU only.
const LIBVIRT_QEMU: &str = "libvirt-qemu.so.0";

table! {
    /// The functions of `libvirt.so.0`.
    pub(in crate::libvirt) struct Functions of LIBVIRT {
        initialize: Initialize = "virInitialize",
        set_error_function: SetErrorFunction = "virSetErrorFunc",
        last_error: LastError = "virGetLastError",

        open: Open = "virConnectOpenAuth",
        close: Act<Connect> = "virConnectClose",
        uri: Owned<Connect> = "virConnectGetURI",
        driver: Borrowed<Connect> = "virConnectGetType",
        library_version: Read<Connect, core::ffi::c_ulong> = "virConnectGetLibVersion",
        capabilities: Owned<Connect> = "virConnectGetCapabilities",

        domains: List<Connect, Domain> = "virConnectListAllDomains",
        domain_by_name: Find<Connect, Domain> = "virDomainLookupByName",
        domain_by_uuid: Find<Connect, Domain> = "virDomainLookupByUUIDString",
        define_domain: Find<Connect, Domain> = "virDomainDefineXML",
        free_domain: Act<Domain> = "virDomainFree",
        domain_name: Borrowed<Domain> = "virDomainGetName",
        domain_uuid: Uuid<Domain> = "virDomainGetUUIDString",
        domain_xml: Xml<Domain> = "virDomainGetXMLDesc",
        domain_is_active: Act<Domain> = "virDomainIsActive",
        domain_is_persistent: Act<Domain> = "virDomainIsPersistent",
        domain_autostart: Read<Domain, c_int> = "virDomainGetAutostart",
        domain_block_info: BlockInfo = "virDomainGetBlockInfo",
        attach_device: Tell<Domain> = "virDomainAttachDeviceFlags",
        detach_device: Tell<Domain> = "virDomainDetachDeviceFlags",
        update_device: Tell<Domain> = "virDomainUpdateDeviceFlags",
        start_domain: Act<Domain> = "virDomainCreate",
        destroy_domain: Act<Domain> = "virDomainDestroy",
        undefine_domain: ActWith<Domain> = "virDomainUndefineFlags",
        domain_job: Read<Domain, RawJobInfo> = "virDomainGetJobInfo",
        managed_save: ActWith<Domain> = "virDomainHasManagedSaveImage",
        snapshots: ActWith<Domain> = "virDomainSnapshotNum",
        block_copy: BlockCopy = "virDomainBlockCopy",
        block_job: BlockJob = "virDomainGetBlockJobInfo",
        abort_block_job: Tell<Domain> = "virDomainBlockJobAbort",

        pools: List<Connect, Pool> = "virConnectListAllStoragePools",
        pool_by_name: Find<Connect, Pool> = "virStoragePoolLookupByName",
        pool_by_uuid: Find<Connect, Pool> = "virStoragePoolLookupByUUIDString",
        pool_of_volume: Parent<Volume, Pool> = "virStoragePoolLookupByVolume",
        define_pool: Make<Connect, Pool> = "virStoragePoolDefineXML",
        free_pool: Act<Pool> = "virStoragePoolFree",
        pool_name: Borrowed<Pool> = "virStoragePoolGetName",
        pool_uuid: Uuid<Pool> = "virStoragePoolGetUUIDString",
        pool_xml: Xml<Pool> = "virStoragePoolGetXMLDesc",
        pool_is_active: Act<Pool> = "virStoragePoolIsActive",
        pool_info: Read<Pool, RawPoolInfo> = "virStoragePoolGetInfo",
        refresh_pool: ActWith<Pool> = "virStoragePoolRefresh",
        start_pool: ActWith<Pool> = "virStoragePoolCreate",
        stop_pool: Act<Pool> = "virStoragePoolDestroy",
        undefine_pool: Act<Pool> = "virStoragePoolUndefine",

        volumes: List<Pool, Volume> = "virStoragePoolListAllVolumes",
        volume_by_name: Find<Pool, Volume> = "virStorageVolLookupByName",
        volume_by_path: Find<Connect, Volume> = "virStorageVolLookupByPath",
        create_volume: Make<Pool, Volume> = "virStorageVolCreateXML",
        free_volume: Act<Volume> = "virStorageVolFree",
        volume_name: Borrowed<Volume> = "virStorageVolGetName",
        volume_path: Owned<Volume> = "virStorageVolGetPath",
        volume_xml: Xml<Volume> = "virStorageVolGetXMLDesc",
        volume_info: Read<Volume, RawVolumeInfo> = "virStorageVolGetInfo",
        delete_volume: ActWith<Volume> = "virStorageVolDelete",
        resize_volume: Resize = "virStorageVolResize",
        upload: Transfer = "virStorageVolUpload",
        download: Transfer = "virStorageVolDownload",

        new_stream: NewStream = "virStreamNew",
        free_stream: Act<Stream> = "virStreamFree",
        send: Send_ = "virStreamSend",
        receive: Receive = "virStreamRecv",
        finish_stream: Act<Stream> = "virStreamFinish",
        abort_stream: Act<Stream> = "virStreamAbort",

        secrets: List<Connect, Secret> = "virConnectListAllSecrets",
        secret_by_uuid: Find<Connect, Secret> = "virSecretLookupByUUIDString",
        secret_by_usage: FindUsage = "virSecretLookupByUsage",
        define_secret: Make<Connect, Secret> = "virSecretDefineXML",
        undefine_secret: Act<Secret> = "virSecretUndefine",
        free_secret: Act<Secret> = "virSecretFree",
        secret_uuid: Uuid<Secret> = "virSecretGetUUIDString",
        secret_usage_type: Act<Secret> = "virSecretGetUsageType",
        secret_usage: Borrowed<Secret> = "virSecretGetUsageID",
        secret_xml: Xml<Secret> = "virSecretGetXMLDesc",
        secret_value: Value = "virSecretGetValue",
        set_secret_value: SetValue = "virSecretSetValue",
    }
}

table! {
    /// Functions that libvirt has since 5.6.
    pub(in crate::libvirt) struct LaterFunctions of LIBVIRT {
        checkpoints: CountOf<Domain> = "virDomainListAllCheckpoints",
    }
}

table! {
    /// The functions of `libvirt-qemu.so.0`.
    pub(in crate::libvirt) struct QemuFunctions of LIBVIRT_QEMU {
        monitor_command: Ask<Domain> = "virDomainQemuMonitorCommand",
    }
}

impl Functions {
    /// Initializes libvirt, and keeps it from printing its errors.
    fn start(&'static self) -> Result<(), LibvirtError> {
        self.set_error_function.silence();
        self.initialize.call(self)
    }
}

/// The functions, loaded at the first call.
pub(super) fn functions() -> Result<&'static Functions, LibvirtError> {
    Functions::get(Functions::start)
}

/// The functions since 5.6, loaded at the first call.
pub(super) fn later_functions() -> Result<&'static LaterFunctions, LibvirtError> {
    LaterFunctions::get(|_| Ok(()))
}

/// The functions for QEMU, loaded at the first call.
pub(super) fn qemu_functions() -> Result<&'static QemuFunctions, LibvirtError> {
    QemuFunctions::get(|_| Ok(()))
}

/// Ignores an error: the caller of the failed function reads it afterwards.
unsafe extern "C" fn silent(_: *mut c_void, _: *mut RawError) {}

impl SetErrorFunction {
    fn silence(self) {
        self.call(null_mut(), Some(silent));
    }
}
