//! Serves an unlocked volume over NBD, in a thread of its own.

use std::ffi::{CString, c_char, c_int};

use luksmith::task::Silent;
use luksmith::task::open_volume::{Task, VolumeServer};

use crate::error::{ErrorOut, Out, caught, give, run};
use crate::options::{LuksmithOptions, named};
use crate::text::{Text, c_string};
use crate::volume::LuksmithVolume;

/// `luksmith_server`.
pub struct LuksmithServer {
    server: VolumeServer,
    uri: CString,
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn luksmith_serve(
    volume: Option<&LuksmithVolume>,
    socket: *const c_char,
    options: Option<&LuksmithOptions>,
    server: Out<'_, *mut LuksmithServer>,
    error: ErrorOut<'_>,
) -> c_int {
    run(error, || {
        let open = &LuksmithVolume::at(volume)?.open;
        // SAFETY: the header says that it is text.
        let socket = unsafe { Text::at(socket, "socket") }?.os();
        let named = named(options, Task::Serve)?;
        let started = VolumeServer::start(open, socket, &named, Silent::default())?;
        let uri = c_string(started.uri().to_owned());
        let started = LuksmithServer {
            server: started,
            uri,
        };
        give(server, started)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn luksmith_server_uri(server: Option<&LuksmithServer>) -> *const c_char {
    caught(c"".as_ptr(), || {
        server.map_or(c"".as_ptr(), |server| server.uri.as_ptr())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn luksmith_server_stop(
    server: Option<Box<LuksmithServer>>,
    error: ErrorOut<'_>,
) -> c_int {
    run(error, || match server {
        Some(server) => server.server.stop(),
        None => Ok(()),
    })
}
