//! Groups of arguments that subcommands share, one group in each file.

mod choice;
mod image;
mod key;
mod limits;
mod local;
mod location;
mod new_volume;
mod pbkdf;
mod remote;
mod token;
mod trust;

pub(crate) use choice::{Choice, choice};
pub(crate) use image::{CompressedArgs, IMAGE_FORMATS, ImageArgs, UndoArgs};
pub(crate) use key::{KeyArgs, KeysArgs, NewKeyArgs, UnlockArgs};
pub(crate) use limits::LimitArgs;
pub(crate) use local::LocalFile;
pub(crate) use location::{FORMS, LocationParser};
pub(crate) use new_volume::{
    FreshKeyArgs, NewVolumeArgs, VERSIONS, parse_cipher, parse_hash, parse_key_bits, parse_label,
    parse_sector_size,
};
pub(crate) use pbkdf::PbkdfArgs;
pub(crate) use remote::RemoteArgs;
pub(crate) use token::TokenArgs;
pub(crate) use trust::TrustArgs;
