//! The messages of the NBD protocol, for servers and clients (*The NBD protocol*, `doc/proto.md` of
//! the NBD project): the fixed newstyle handshake, simple and structured replies, extended headers.
//!
//! Every message is a type with functions to parse and to write it. All numbers are big-endian. A
//! number without a name here is parsed as `Unknown` and written unchanged; the caller decides
//! whether to ignore it. Headers have fixed lengths (`LEN`), so the caller knows how many bytes to
//! receive. The caller has to limit the length of the data after a header before it receives that
//! data.
//!
//! ```
//! use luksmith_formats::nbd::{Command, CommandFlags, Request};
//!
//! let read = Request {
//!     flags: CommandFlags::DF,
//!     command: Command::Read,
//!     cookie: 7,
//!     offset: 4096,
//!     len: 512,
//! };
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

/// The most bytes of a request that every server accepts without stating a limit.
pub const DEFAULT_PAYLOAD: u32 = 32 << 20;

/// The registered TCP port.
pub const PORT: u16 = 10809;
