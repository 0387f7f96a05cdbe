//! The handshake of the client (`proto.md`, "Handshake"): fixed newstyle with the options that the
//! server offers, or newstyle with only `EXPORT_NAME`. The server cannot make it wait or allocate
//! memory without a limit.

use std::io::{self, IoSlice};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use luksmith_formats::nbd::uri::{Transport, Uri};
use luksmith_formats::nbd::{
    BlockSizes, ClientFlags, DEFAULT_PAYLOAD, ExportNameReply, Greeting, HandshakeFlags, Info,
    InfoRequest, InfoType, MetaContext, MetaContextRequest, OptionHeader, OptionReply,
    OptionReplyHeader, OptionType, TransmissionFlags,
};

use super::dial::dial;
use super::error::Problem;
use super::patience::{Deadline, Patience};
use crate::channel::{Channel, ClientTls};

/// The longest reply to an option, in bytes: a string of the protocol and a little more.
const MAX_REPLY_LEN: u32 = 8192;

/// The most replies to one option.
const MAX_REPLIES: usize = 64;

/// The largest value of the minimum block size that `proto.md` allows ("Block size constraints").
const LARGEST_MINIMUM: u32 = 64 << 10;

/// The largest export. Offsets have to fit into 64-bit signed numbers, as those of files do.
const LARGEST_EXPORT: u64 = i64::MAX as u64;

/// Properties of the export, and the form of replies that was negotiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Export {
    pub(super) size: u64,
    pub(super) flags: TransmissionFlags,
    /// The smallest unit of requests, in bytes, a power of two.
    pub(super) minimum: u32,
    /// The most bytes of one read or write, a multiple of `minimum`.
    pub(super) maximum: u32,
    /// The form of the replies.
    pub(super) replies: Replies,
    /// The number of the context `base:allocation`, if it was negotiated.
    pub(super) allocation: Option<u32>,
}

/// The name of the context that says which parts of an export hold data.
const ALLOCATION: &str = "base:allocation";

/// The form of the replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replies {
    /// Each reply is one piece.
    Simple,
    /// Replies to reads are chunks.
    Structured,
    /// All replies are chunks, and the headers of requests are longer too.
    Extended,
}

/// Connects and negotiates, all within this time. `extents` asks for `base:allocation`.
pub(super) fn connect(
    uri: &Uri,
    extents: bool,
    within: Duration,
    patience: &Patience,
) -> Result<(Channel, Export), Problem> {
    let credentials = credentials(uri, within)?;
    let deadline = patience.deadline(within);
    let channel = Channel::plain(dial(uri, &deadline)?);
    let mut negotiation = Negotiation { channel, deadline };
    negotiation.look_often()?;
    let flags = negotiation.greet()?;
    let fixed = flags.contains(HandshakeFlags::FIXED_NEWSTYLE);
    if let Some((credentials, name)) = &credentials {
        if !fixed {
            return Err(Problem::NoTls);
        }
        negotiation = negotiation.under_tls(credentials, name)?;
    }
    let export = negotiation.negotiate(&uri.export, flags, extents)?;
    Ok((negotiation.channel, export))
}

/// The credentials for TLS, and the name that the certificate of the server has to be for. They are
/// read for each connection, because certificates are replaced from time to time.
fn credentials(uri: &Uri, within: Duration) -> Result<Option<(ClientTls, String)>, Problem> {
    let Some(tls) = &uri.tls else {
        return Ok(None);
    };
    let directory = tls.certificates.as_ref().ok_or(Problem::NoCertificates)?;
    let directory = Path::new(std::ffi::OsStr::from_bytes(directory));
    let credentials = ClientTls::from_directory(directory)
        .map_err(Problem::Tls)?
        .handshake_within(within);
    let name = match (&tls.hostname, &uri.transport) {
        (Some(name), _) => name.clone(),
        (None, Transport::Tcp { host, .. }) => host.clone(),
        (None, Transport::Unix(_)) => "localhost".to_owned(),
    };
    Ok(Some((credentials, name)))
}

/// A connection during the handshake.
struct Negotiation {
    channel: Channel,
    deadline: Deadline,
}

impl Negotiation {
    /// Ends each wait of the channel after a short time, to look at the deadline.
    fn look_often(&self) -> Result<(), Problem> {
        let step = self.deadline.step();
        self.channel
            .set_timeout(Some(step))
            .map_err(Problem::Connection)
    }

    fn greet(&mut self) -> Result<HandshakeFlags, Problem> {
        let greeting = Greeting::parse(&self.read()?).map_err(Problem::Malformed)?;
        let offered = |flag| greeting.flags.contains(flag);
        let flags = ClientFlags::NONE
            .with_if(
                ClientFlags::FIXED_NEWSTYLE,
                offered(HandshakeFlags::FIXED_NEWSTYLE),
            )
            .with_if(ClientFlags::NO_ZEROES, offered(HandshakeFlags::NO_ZEROES));
        self.send(&[&flags.to_bytes()])?;
        Ok(greeting.flags)
    }

    /// Starts TLS. If the server does not offer it, the connection fails.
    fn under_tls(mut self, credentials: &ClientTls, name: &str) -> Result<Self, Problem> {
        match self.option(OptionType::StartTls, &[])? {
            (OptionReply::Ack, _) => {}
            _ => return Err(Problem::NoTls),
        }
        let (socket, deadline) = (self.channel.into_socket(), self.deadline);
        let go_on = || deadline.go_on();
        let channel = Channel::connect_tls_while(socket, credentials, name, &go_on);
        let channel = channel.map_err(|error| match deadline.check() {
            Err(problem) => problem,
            Ok(()) => Problem::Tls(error),
        })?;
        let negotiation = Self { channel, deadline };
        negotiation.look_often()?;
        Ok(negotiation)
    }

    fn negotiate(
        &mut self,
        name: &str,
        flags: HandshakeFlags,
        extents: bool,
    ) -> Result<Export, Problem> {
        if !flags.contains(HandshakeFlags::FIXED_NEWSTYLE) {
            return self.export_name(name, flags, Replies::Simple);
        }
        let replies = if self.accepts(OptionType::ExtendedHeaders)? {
            Replies::Extended
        } else if self.accepts(OptionType::StructuredReply)? {
            Replies::Structured
        } else {
            Replies::Simple
        };
        let allocation = match extents && replies != Replies::Simple {
            true => self.allocation(name)?,
            false => None,
        };
        match self.go(name, replies)? {
            Some(export) => Ok(Export {
                allocation,
                ..export
            }),
            None => self.export_name(name, flags, replies),
        }
    }

    fn accepts(&mut self, option: OptionType) -> Result<bool, Problem> {
        match self.option(option, &[])? {
            (OptionReply::Ack, _) => Ok(true),
            (OptionReply::ErrTlsRequired, _) => Err(Problem::TlsRequired),
            (reply, _) if reply.is_error() => Ok(false),
            _ => Err(Problem::Violation(
                "a reply to an option has an invalid type",
            )),
        }
    }

    /// Chooses the context `base:allocation` with SET_META_CONTEXT, and returns its number. `None`
    /// if the server does not have it.
    fn allocation(&mut self, name: &str) -> Result<Option<u32>, Problem> {
        let wanted = MetaContextRequest {
            export: name.to_owned(),
            queries: vec![ALLOCATION.to_owned()],
        };
        self.send_option(OptionType::SetMetaContext, &wanted.to_bytes())?;
        let mut chosen = None;
        for _ in 0..MAX_REPLIES {
            let (reply, data) = self.receive_reply(OptionType::SetMetaContext)?;
            match reply {
                OptionReply::MetaContext => {
                    let context = MetaContext::parse(&data).map_err(Problem::Malformed)?;
                    if context.name != ALLOCATION || chosen.is_some() {
                        return Err(Problem::Violation("a context was not asked for"));
                    }
                    chosen = Some(context.id);
                }
                OptionReply::Ack => return Ok(chosen),
                OptionReply::ErrTlsRequired => return Err(Problem::TlsRequired),
                reply if reply.is_error() => return Ok(None),
                _ => {
                    return Err(Problem::Violation(
                        "a reply to an option has an invalid type",
                    ));
                }
            }
        }
        Err(Problem::Violation(
            "there are too many replies to an option",
        ))
    }

    /// Chooses the export with GO. `None` if the server does not support this option.
    fn go(&mut self, name: &str, replies: Replies) -> Result<Option<Export>, Problem> {
        let wanted = InfoRequest {
            name: name.to_owned(),
            wanted: vec![InfoType::BlockSize],
        };
        self.send_option(OptionType::Go, &wanted.to_bytes())?;
        let (mut export, mut blocks) = (None, None);
        for _ in 0..MAX_REPLIES {
            let (reply, data) = self.receive_reply(OptionType::Go)?;
            match reply {
                OptionReply::Info => match Info::parse(&data).map_err(Problem::Malformed)? {
                    Info::Export { size, flags } => export = Some((size, flags)),
                    Info::BlockSize(sizes) => blocks = Some(sizes),
                    _ => {}
                },
                OptionReply::Ack => {
                    let (size, flags) =
                        export.ok_or(Problem::Violation("the export has no size"))?;
                    return Export::new(size, flags, blocks, replies).map(Some);
                }
                OptionReply::ErrUnsupported => return Ok(None),
                OptionReply::ErrUnknown => return Err(Problem::NoExport(text(&data))),
                OptionReply::ErrTlsRequired => return Err(Problem::TlsRequired),
                reply if reply.is_error() => {
                    return Err(Problem::Refused {
                        what: "the export",
                        message: text(&data),
                    });
                }
                _ => {
                    return Err(Problem::Violation(
                        "a reply to an option has an invalid type",
                    ));
                }
            }
        }
        Err(Problem::Violation(
            "there are too many replies to an option",
        ))
    }

    /// Chooses the export with EXPORT_NAME, the oldest option. If the server does not have the
    /// export, it closes the connection.
    fn export_name(
        &mut self,
        name: &str,
        flags: HandshakeFlags,
        replies: Replies,
    ) -> Result<Export, Problem> {
        self.send_option(OptionType::ExportName, name.as_bytes())?;
        let reply = match self.read() {
            Err(Problem::Closed) => return Err(Problem::NoExport(String::new())),
            reply => ExportNameReply::parse(&reply?).map_err(Problem::Malformed)?,
        };
        if !flags.contains(HandshakeFlags::NO_ZEROES) {
            self.read::<{ ExportNameReply::ZEROES }>()?;
        }
        Export::new(reply.size, reply.flags, None, replies)
    }

    /// Sends an option that has one reply, and receives that.
    fn option(
        &mut self,
        option: OptionType,
        data: &[u8],
    ) -> Result<(OptionReply, Vec<u8>), Problem> {
        self.send_option(option, data)?;
        self.receive_reply(option)
    }

    fn send_option(&mut self, option: OptionType, data: &[u8]) -> Result<(), Problem> {
        let len = u32::try_from(data.len()).unwrap_or(u32::MAX);
        self.send(&[&OptionHeader { option, len }.to_bytes(), data])
    }

    fn receive_reply(&mut self, option: OptionType) -> Result<(OptionReply, Vec<u8>), Problem> {
        let header = OptionReplyHeader::parse(&self.read()?).map_err(Problem::Malformed)?;
        if header.option != option {
            return Err(Problem::Violation("a reply belongs to another option"));
        }
        if header.len > MAX_REPLY_LEN {
            return Err(Problem::Violation("a reply to an option is too long"));
        }
        let mut data = vec![0; header.len as usize];
        self.fill(&mut data)?;
        Ok((header.reply, data))
    }

    fn send(&mut self, parts: &[&[u8]]) -> Result<(), Problem> {
        let mut parts: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let deadline = &self.deadline;
        let sent = self
            .channel
            .send_while(&mut parts, &mut |_| deadline.go_on());
        sent.map_err(|error| self.failed(error))
    }

    fn read<const N: usize>(&mut self) -> Result<[u8; N], Problem> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, mut into: &mut [u8]) -> Result<(), Problem> {
        while !into.is_empty() {
            self.deadline.check()?;
            match self.channel.recv(into) {
                Ok(0) => return Err(Problem::Closed),
                Ok(received) => into = into.split_at_mut(received).1,
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
        Ok(())
    }

    fn failed(&self, error: io::Error) -> Problem {
        if let Err(problem) = self.deadline.check() {
            return problem;
        }
        match error.kind() {
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof => Problem::Closed,
            _ => Problem::Connection(error),
        }
    }
}

impl Export {
    /// Without block sizes from the server, the defaults of the protocol apply ("Block size
    /// constraints").
    fn new(
        size: u64,
        flags: TransmissionFlags,
        blocks: Option<BlockSizes>,
        replies: Replies,
    ) -> Result<Self, Problem> {
        let (minimum, maximum) = match blocks {
            Some(blocks) => (blocks.minimum, blocks.maximum.min(DEFAULT_PAYLOAD)),
            None => (1, DEFAULT_PAYLOAD),
        };
        if !minimum.is_power_of_two() || minimum > LARGEST_MINIMUM || maximum < minimum {
            return Err(Problem::BlockSizes { minimum, maximum });
        }
        if !flags.contains(TransmissionFlags::HAS_FLAGS) {
            return Err(Problem::Violation("the export has no flags"));
        }
        if size > LARGEST_EXPORT {
            return Err(Problem::TooLarge(size));
        }
        Ok(Self {
            // Bytes beyond the last whole block cannot be accessed.
            size: size - size % u64::from(minimum),
            flags,
            minimum,
            maximum: maximum - maximum % minimum,
            replies,
            allocation: None,
        })
    }

    /// Whether it is the same export for a client that uses several connections. The numbers of
    /// contexts are those of each connection.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let unnumbered = |export: &Self| Self {
            allocation: export.allocation.map(|_| 0),
            ..*export
        };
        unnumbered(self) == unnumbered(other)
    }

    pub(super) fn has(&self, flag: TransmissionFlags) -> bool {
        self.flags.contains(flag)
    }
}

/// A message of the server for people. Invalid UTF-8 is replaced.
fn text(data: &[u8]) -> String {
    String::from_utf8_lossy(data).into_owned()
}
