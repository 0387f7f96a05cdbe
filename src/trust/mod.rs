//! State of this host that tells whether a storage is honest.
//!
//! XTS hides data, and does not authenticate it. A storage can swap the header of a volume, or hand
//! out an old one. The host of the volume has the passphrase anyway, so it can also keep a little
//! state that no storage can change: a folder, [`TrustDir`], with what the header of each volume
//! says ([`Pinned`]).
//!
//! A volume is known by the place that its user names, and by the UUID of its header. A pin is
//! compared before any key derivation runs.

mod derive;
mod dir;
mod error;
mod pin;
pub mod tags;

pub(crate) use derive::derive;
pub(crate) use dir::check;
pub use dir::{Entry, Lock, TrustDir};
pub use error::TrustError;
pub(crate) use pin::{Changing, Checked, Refused, fingerprint};
pub use pin::{PinStore, Pinned, Trust};
