//! Uploads and downloads of a storage volume's bytes over a connection.

use std::io::{self, Read, Write};

use super::connection::Connection;
use super::error::LibvirtError;
use super::library::call::{self, Handle};

/// Bytes for one call of libvirt, which splits them into messages itself.
const CHUNK: usize = 256 << 10;

/// A libvirt stream. It is aborted when it is dropped before it is finished.
pub(super) struct Stream {
    handle: Handle<call::Stream>,
    open: bool,
}

impl Stream {
    pub(super) fn new(connection: &Connection) -> Result<Self, LibvirtError> {
        let handle = connection.0.functions.new_stream.call(&connection.0)?;
        Ok(Self { handle, open: true })
    }

    pub(super) fn handle(&self) -> &Handle<call::Stream> {
        &self.handle
    }

    pub(super) fn send(self, data: &mut dyn Read) -> Result<(), LibvirtError> {
        let mut buffer = vec![0; CHUNK];
        loop {
            let len = match data.read(&mut buffer) {
                Ok(0) => return self.finish(),
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(LibvirtError::Local(error)),
            };
            let mut left = &buffer[..len];
            while !left.is_empty() {
                let sent = self.handle.functions.send.call(&self.handle, left)?;
                left = left.get(sent..).unwrap_or_default();
            }
        }
    }

    pub(super) fn receive(self, to: &mut dyn Write) -> Result<(), LibvirtError> {
        let mut buffer = vec![0; CHUNK];
        loop {
            let came = self
                .handle
                .functions
                .receive
                .call(&self.handle, &mut buffer)?;
            if came == 0 {
                return self.finish();
            }
            to.write_all(&buffer[..came]).map_err(LibvirtError::Local)?;
        }
    }

    fn finish(mut self) -> Result<(), LibvirtError> {
        self.open = false;
        self.handle
            .functions
            .finish_stream
            .call(&self.handle)
            .map(drop)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.open {
            // The error that led here is the one that the caller gets.
            let _ = self.handle.functions.abort_stream.call(&self.handle);
        }
    }
}
