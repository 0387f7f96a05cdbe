//! Groups of arguments that subcommands share, one group in each file.

mod image;
mod key;
mod limits;
mod local;
mod location;
mod new_volume;
mod pbkdf;
mod remote;

pub(crate) use image::{CompressedArgs, ImageArgs, ImageFormat, SourceFormat, UndoArgs};
pub(crate) use key::{KeyArgs, NewKeyArgs, UnlockArgs};
pub(crate) use limits::LimitArgs;
pub(crate) use local::LocalFile;
pub(crate) use location::{FORMS, LocationParser};
pub(crate) use new_volume::{
    FreshKeyArgs, NewVolumeArgs, VersionName, parse_cipher, parse_hash, parse_label,
};
pub(crate) use pbkdf::PbkdfArgs;
pub(crate) use remote::RemoteArgs;
