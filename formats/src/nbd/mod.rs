//! The messages of the NBD protocol, for server and client alike (*The NBD protocol*, `doc/proto.md` of the NBD
//! project: fixed newstyle handshake, simple and structured replies, extended headers).
//!
//! Every message is a type that parses and writes itself; all numbers are big-endian. A number that the
//! protocol leaves open comes in as `Unknown`, and goes out as it came: whether it may be ignored is the
//! reader's matter. Headers have fixed lengths (`LEN`), so that a reader knows how much to wait for; what
//! follows a header is bounded by who reads it, before it is read, and never trusted to be as long as it says.
//!
//! ```
//! use luksmith_formats::nbd::{Command, CommandFlags, Request};
//!
//! let read = Request { flags: CommandFlags::DF, command: Command::Read, cookie: 7, offset: 4096, len: 512 };
//! assert_eq!(Request::parse_compact(&read.to_compact())?, read);
//! # Ok::<(), luksmith_formats::FormatError>(())
//! ```

mod chunk;
mod fields;
mod handshake;
mod numbers;
mod option;
mod reply;
mod request;
mod string;
pub mod uri;

pub use chunk::{BlockStatus, ErrorChunk, Extent, OffsetHole, offset_of_data, offset_to_bytes};
pub use handshake::{
    ClientFlags, ExportNameReply, Greeting, HandshakeFlags, OptionHeader, OptionReplyHeader,
};
pub use numbers::{
    ChunkFlags, ChunkType, Command, CommandFlags, ErrorNumber, ExtentFlags, InfoType, OptionReply,
    OptionType, TransmissionFlags,
};
pub use option::{BlockSizes, ExportEntry, Info, InfoRequest, MetaContext, MetaContextRequest};
pub use reply::{ChunkHeader, ReplyForm, ReplyHeader, SimpleReply};
pub use request::Request;
pub use string::{MAX_STRING, check_string};

/// The only metadata context that the protocol itself defines.
pub const BASE_ALLOCATION: &str = "base:allocation";

/// What every server takes in one request without having said so, in bytes.
pub const DEFAULT_PAYLOAD: u32 = 32 << 20;

/// The registered TCP port.
pub const PORT: u16 = 10809;
