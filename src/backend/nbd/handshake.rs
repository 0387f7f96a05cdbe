//! The client's side of the handshake (`proto.md`, "Handshake"): fixed newstyle with the options that the server has, or
//! newstyle with `EXPORT_NAME` alone. Nothing that the server says makes it wait or allocate without a bound.

use std::io::{self, IoSlice};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use luksmith_formats::nbd::uri::{Transport, Uri};
use luksmith_formats::nbd::{
    BlockSizes, ClientFlags, DEFAULT_PAYLOAD, ExportNameReply, Greeting, HandshakeFlags, Info,
    InfoRequest, InfoType, OptionHeader, OptionReply, OptionReplyHeader, OptionType,
    TransmissionFlags,
};

use super::dial::dial;
use super::error::Problem;
use crate::channel::{Channel, ClientTls};

/// The longest answer to an option that is read: a string and a little more.
const LONGEST_REPLY: u32 = 8192;

/// How many answers one option may have.
const MOST_REPLIES: usize = 64;

/// The largest smallest block: `proto.md` allows no more ("Block size constraints").
const LARGEST_MINIMUM: u32 = 64 << 10;

/// The largest export: as with files, offsets have to be signed numbers of 64 bits too.
const LARGEST_EXPORT: u64 = i64::MAX as u64;

/// What the server told of the export, and what was agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Export {
    pub(super) size: u64,
    pub(super) flags: TransmissionFlags,
    /// The smallest unit of requests, in bytes, a power of two.
    pub(super) minimum: u32,
    /// The most bytes that one request carries, a multiple of `minimum`.
    pub(super) maximum: u32,
    /// Which replies come.
    pub(super) replies: Replies,
}

/// The form of the replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replies {
    /// In one piece.
    Simple,
    /// In chunks.
    Structured,
    /// In chunks, and requests too have the longer header.
    Extended,
}

/// Connects and agrees on everything.
pub(super) fn connect(uri: &Uri, within: Duration) -> Result<(Channel, Export), Problem> {
    let credentials = credentials(uri, within)?;
    let until = Instant::now() + within;
    let channel = Channel::plain(dial(uri, within)?);
    channel
        .set_timeout(Some(within))
        .map_err(Problem::Connection)?;
    let mut haggling = Haggling {
        channel,
        until,
        within,
    };
    let flags = haggling.greet()?;
    let fixed = flags.contains(HandshakeFlags::FIXED_NEWSTYLE);
    if let Some((credentials, name)) = &credentials {
        if !fixed {
            return Err(Problem::NoTls);
        }
        haggling = haggling.under_tls(credentials, name)?;
    }
    let export = haggling.haggle(&uri.export, flags)?;
    Ok((haggling.channel, export))
}

/// What TLS needs, and the name that the server has to show; read anew for each connection, as certificates are replaced.
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

/// A connection before it has an export.
struct Haggling {
    channel: Channel,
    until: Instant,
    within: Duration,
}

impl Haggling {
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

    /// Required is required: without the server's word there is no connection.
    fn under_tls(mut self, credentials: &ClientTls, name: &str) -> Result<Self, Problem> {
        match self.option(OptionType::StartTls, &[])? {
            (OptionReply::Ack, _) => {}
            _ => return Err(Problem::NoTls),
        }
        let socket = self.channel.into_socket();
        let channel = Channel::connect_tls(socket, credentials, name).map_err(Problem::Tls)?;
        channel
            .set_timeout(Some(self.within))
            .map_err(Problem::Connection)?;
        Ok(Self { channel, ..self })
    }

    fn haggle(&mut self, name: &str, flags: HandshakeFlags) -> Result<Export, Problem> {
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
        match self.go(name, replies)? {
            Some(export) => Ok(export),
            None => self.export_name(name, flags, replies),
        }
    }

    fn accepts(&mut self, option: OptionType) -> Result<bool, Problem> {
        match self.option(option, &[])? {
            (OptionReply::Ack, _) => Ok(true),
            (OptionReply::ErrTlsRequired, _) => Err(Problem::TlsRequired),
            (reply, _) if reply.is_error() => Ok(false),
            _ => Err(Problem::Violation("an option is answered by what is none")),
        }
    }

    /// `None`: the server does not know this option.
    fn go(&mut self, name: &str, replies: Replies) -> Result<Option<Export>, Problem> {
        let wanted = InfoRequest {
            name: name.to_owned(),
            wanted: vec![InfoType::BlockSize],
        };
        self.ask(OptionType::Go, &wanted.to_bytes())?;
        let (mut export, mut blocks) = (None, None);
        for _ in 0..MOST_REPLIES {
            let (reply, data) = self.answer(OptionType::Go)?;
            match reply {
                OptionReply::Info => match Info::parse(&data).map_err(Problem::Malformed)? {
                    Info::Export { size, flags } => export = Some((size, flags)),
                    Info::BlockSize(sizes) => blocks = Some(sizes),
                    _ => {}
                },
                OptionReply::Ack => {
                    let (size, flags) =
                        export.ok_or(Problem::Violation("an export without a size"))?;
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
                _ => return Err(Problem::Violation("an option is answered by what is none")),
            }
        }
        Err(Problem::Violation("an option is answered without an end"))
    }

    /// The oldest way: where the server does not like the name, it just leaves.
    fn export_name(
        &mut self,
        name: &str,
        flags: HandshakeFlags,
        replies: Replies,
    ) -> Result<Export, Problem> {
        self.ask(OptionType::ExportName, name.as_bytes())?;
        let reply = match self.read() {
            Err(Problem::Closed) => return Err(Problem::NoExport(String::new())),
            reply => ExportNameReply::parse(&reply?).map_err(Problem::Malformed)?,
        };
        if !flags.contains(HandshakeFlags::NO_ZEROES) {
            self.read::<{ ExportNameReply::ZEROES }>()?;
        }
        Export::new(reply.size, reply.flags, None, replies)
    }

    /// An option with its one answer.
    fn option(
        &mut self,
        option: OptionType,
        data: &[u8],
    ) -> Result<(OptionReply, Vec<u8>), Problem> {
        self.ask(option, data)?;
        self.answer(option)
    }

    fn ask(&mut self, option: OptionType, data: &[u8]) -> Result<(), Problem> {
        let len = u32::try_from(data.len()).unwrap_or(u32::MAX);
        self.send(&[&OptionHeader { option, len }.to_bytes(), data])
    }

    fn answer(&mut self, option: OptionType) -> Result<(OptionReply, Vec<u8>), Problem> {
        let header = OptionReplyHeader::parse(&self.read()?).map_err(Problem::Malformed)?;
        if header.option != option {
            return Err(Problem::Violation("an answer to another option"));
        }
        if header.len > LONGEST_REPLY {
            return Err(Problem::Violation("an answer of immense length"));
        }
        let mut data = vec![0; header.len as usize];
        self.fill(&mut data)?;
        Ok((header.reply, data))
    }

    fn send(&mut self, parts: &[&[u8]]) -> Result<(), Problem> {
        let mut parts: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let sent = self.channel.send(&mut parts);
        sent.map_err(|error| self.failed(error))
    }

    fn read<const N: usize>(&mut self) -> Result<[u8; N], Problem> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, mut into: &mut [u8]) -> Result<(), Problem> {
        while !into.is_empty() {
            if Instant::now() > self.until {
                return Err(Problem::Silent(self.within));
            }
            match self.channel.recv(into) {
                Ok(0) => return Err(Problem::Closed),
                Ok(received) => into = into.split_at_mut(received).1,
                Err(error) => return Err(self.failed(error)),
            }
        }
        Ok(())
    }

    fn failed(&self, error: io::Error) -> Problem {
        match error.kind() {
            io::ErrorKind::TimedOut => Problem::Silent(self.within),
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof => Problem::Closed,
            _ => Problem::Connection(error),
        }
    }
}

impl Export {
    /// What is not told has the protocol's default ("Block size constraints").
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
            return Err(Problem::Violation("an export without flags"));
        }
        if size > LARGEST_EXPORT {
            return Err(Problem::TooLarge(size));
        }
        Ok(Self {
            // What is beyond the last whole block cannot be asked for.
            size: size - size % u64::from(minimum),
            flags,
            minimum,
            maximum: maximum - maximum % minimum,
            replies,
        })
    }

    pub(super) fn has(&self, flag: TransmissionFlags) -> bool {
        self.flags.contains(flag)
    }
}

/// What a server says to people; whatever it is, it is text afterwards.
fn text(data: &[u8]) -> String {
    String::from_utf8_lossy(data).into_owned()
}
