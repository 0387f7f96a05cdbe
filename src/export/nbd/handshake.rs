//! The fixed newstyle handshake, up to the choice of an export (sections "Newstyle negotiation" and
//! "Option types").
//!
//! Nothing is read ahead here, so that no byte that was sent without TLS is taken for one under
//! TLS.

use std::io::{self, IoSlice};
use std::sync::Arc;

use luksmith_formats::FormatError;
use luksmith_formats::nbd::{
    BASE_ALLOCATION, BlockSizes, ClientFlags, ExportEntry, ExportNameReply, Greeting,
    HandshakeFlags, Info, InfoRequest, InfoType, MetaContext, MetaContextRequest, OptionHeader,
    OptionReply, OptionReplyHeader, OptionType, TransmissionFlags,
};

use super::execute::{MAX_PAYLOAD, Session};
use super::peer::Client;
use super::replies::Form;
use super::shared::Shared;
use crate::channel::{Channel, Socket};
use crate::export::{Discard, Export};

/// The longest data of an option, in bytes: enough for three strings and some numbers.
const MAX_OPTION: u32 = 16 << 10;
/// The longest data, in bytes, that is skipped to reply with an error. After longer data the
/// connection is closed.
const MAX_SKIPPED: u32 = 1 << 20;
/// The most options of one connection.
const MAX_OPTIONS: usize = 256;

const ALLOCATION_ID: u32 = 1;

/// Agrees with a client on an export. `None` if the client has ended the handshake. `number` is
/// that of the connection.
pub(super) fn negotiate(
    socket: Socket,
    server: &Shared,
    number: u64,
    client: &Client,
) -> io::Result<Option<Session>> {
    let mut handshake = Handshake {
        channel: Channel::plain(socket),
        server,
        client,
        no_zeroes: false,
        form: Form::Simple,
        allocation_of: None,
    };
    handshake.greet()?;
    for _ in 0..MAX_OPTIONS {
        server.connections.is_active(number);
        match handshake.option()? {
            Next::Option => {}
            Next::Tls => handshake = handshake.under_tls()?,
            Next::Leave => return Ok(None),
            Next::Transmission(export) => return Ok(Some(handshake.agreed(export))),
        }
    }
    Err(io::Error::other(format!("more than {MAX_OPTIONS} options")))
}

/// What follows an option.
enum Next {
    Option,
    Tls,
    Leave,
    Transmission(Arc<Export>),
}

struct Handshake<'a> {
    channel: Channel,
    server: &'a Shared,
    client: &'a Client,
    no_zeroes: bool,
    form: Form,
    /// The export for which the client has chosen `base:allocation`.
    allocation_of: Option<Arc<Export>>,
}

/// The reply that refuses an option, with a message for people.
type Refused = (OptionReply, String);

fn refused<T>(reply: OptionReply, message: impl Into<String>) -> Result<T, Refused> {
    Err((reply, message.into()))
}

fn malformed(error: FormatError) -> Refused {
    (OptionReply::ErrInvalid, error.to_string())
}

impl<'a> Handshake<'a> {
    fn greet(&mut self) -> io::Result<()> {
        let flags = HandshakeFlags::FIXED_NEWSTYLE | HandshakeFlags::NO_ZEROES;
        self.send(&Greeting { flags }.to_bytes())?;
        let flags = ClientFlags::parse(&self.receive()?);
        let known = ClientFlags::FIXED_NEWSTYLE | ClientFlags::NO_ZEROES;
        if !flags.without(known).is_empty() {
            return Err(invalid("unknown client flags"));
        }
        self.no_zeroes = flags.contains(ClientFlags::NO_ZEROES);
        Ok(())
    }

    /// Receives one option and replies to it.
    fn option(&mut self) -> io::Result<Next> {
        let header = OptionHeader::parse(&self.receive()?).map_err(invalid)?;
        let option = header.option;
        if header.len > MAX_OPTION {
            if header.len > MAX_SKIPPED {
                return Err(invalid(format!("an option of {} bytes", header.len)));
            }
            self.skip(header.len)?;
            let message = format!("more than {MAX_OPTION} bytes");
            self.answer(option, Err((OptionReply::ErrTooBig, message)))?;
            return Ok(Next::Option);
        }
        let mut data = vec![0; usize::try_from(header.len).unwrap_or_default()];
        self.channel.recv_exact(&mut data)?;

        let needs_tls = self.server.options.tls.is_some() && !self.channel.is_tls();
        match option {
            OptionType::Abort => {
                // The client may have closed the connection without waiting for the reply.
                let _ = self.answer(option, Ok(vec![]));
                Ok(Next::Leave)
            }
            OptionType::StartTls => {
                let may = self.may_start_tls(&data);
                let next = may.is_ok();
                self.answer(option, may.map(|()| vec![]))?;
                Ok(if next { Next::Tls } else { Next::Option })
            }
            OptionType::ExportName if needs_tls => {
                self.warn_without_tls();
                Err(invalid("an export was chosen without TLS"))
            }
            OptionType::ExportName => self.export_name(&data),
            _ if needs_tls => {
                if option == OptionType::Go {
                    self.warn_without_tls();
                }
                let message = "the server requires TLS".to_owned();
                self.answer(option, Err((OptionReply::ErrTlsRequired, message)))?;
                Ok(Next::Option)
            }
            OptionType::Go => {
                let found = self.info(&data);
                let export = found.as_ref().ok().map(|(export, _)| export.clone());
                self.answer(option, found.map(|(_, replies)| replies))?;
                Ok(export.map_or(Next::Option, Next::Transmission))
            }
            _ => {
                let answer = self.negotiate_option(option, &data);
                self.answer(option, answer)?;
                Ok(Next::Option)
            }
        }
    }

    /// Handles the options that never end the negotiation.
    fn negotiate_option(&mut self, option: OptionType, data: &[u8]) -> Result<Vec<Reply>, Refused> {
        match option {
            OptionType::List if data.is_empty() => Ok(self.list()),
            OptionType::Info => self.info(data).map(|(_, replies)| replies),
            OptionType::ListMetaContext => {
                self.meta_context(data, false).map(|(_, replies)| replies)
            }
            OptionType::SetMetaContext => {
                self.allocation_of = None;
                let (export, replies) = self.meta_context(data, true)?;
                self.allocation_of = (!replies.is_empty()).then_some(export);
                Ok(replies)
            }
            OptionType::StructuredReply if data.is_empty() => match self.form {
                Form::Simple => {
                    self.form = Form::Structured;
                    Ok(vec![])
                }
                Form::Structured => refused(OptionReply::ErrInvalid, "agreed on already"),
                Form::Extended => refused(
                    OptionReply::ErrExtendedHeadersRequired,
                    "extended headers are agreed on already",
                ),
            },
            OptionType::ExtendedHeaders if data.is_empty() => {
                if self.form == Form::Extended {
                    return refused(OptionReply::ErrInvalid, "agreed on already");
                }
                self.form = Form::Extended;
                Ok(vec![])
            }
            OptionType::List | OptionType::StructuredReply | OptionType::ExtendedHeaders => {
                refused(OptionReply::ErrInvalid, "this option has no data")
            }
            _ => refused(OptionReply::ErrUnsupported, "unknown option"),
        }
    }

    fn may_start_tls(&self, data: &[u8]) -> Result<(), Refused> {
        if self.server.options.tls.is_none() {
            refused(OptionReply::ErrPolicy, "the server does not offer TLS")
        } else if self.channel.is_tls() {
            refused(OptionReply::ErrInvalid, "TLS is active already")
        } else if !data.is_empty() {
            refused(OptionReply::ErrInvalid, "this option has no data")
        } else {
            Ok(())
        }
    }

    /// Starts TLS. The negotiation starts again: choices made before do not count.
    fn under_tls(self) -> io::Result<Self> {
        let Some(tls) = &self.server.options.tls else {
            return Err(invalid("TLS is not configured"));
        };
        let channel =
            Channel::accept_tls(self.channel.into_socket(), tls).map_err(io::Error::other)?;
        Ok(Self {
            channel,
            server: self.server,
            client: self.client,
            no_zeroes: self.no_zeroes,
            form: Form::Simple,
            allocation_of: None,
        })
    }

    fn warn_without_tls(&self) {
        let (refusals, client) = (&self.server.refusals, self.client);
        refusals.warn(format_args!("refused a client without TLS: {client}"));
    }

    /// Handles an option that has no reply for errors: the connection is closed instead.
    fn export_name(&self, data: &[u8]) -> io::Result<Next> {
        let name = std::str::from_utf8(data).map_err(invalid)?;
        let Some(export) = self.server.find(name) else {
            return Err(invalid("there is no export of that name"));
        };
        let reply = ExportNameReply {
            size: export.size(),
            flags: self.flags(&export),
        };
        let zeroes: &[u8] = if self.no_zeroes {
            &[]
        } else {
            &[0; ExportNameReply::ZEROES]
        };
        self.send(&[&reply.to_bytes()[..], zeroes].concat())?;
        Ok(Next::Transmission(export))
    }

    fn list(&self) -> Vec<Reply> {
        let entry = |export: &Arc<Export>| {
            let entry = ExportEntry {
                name: export.name().to_owned(),
                description: export.description().to_owned(),
            };
            (OptionReply::Server, entry.to_bytes())
        };
        self.server.exports.iter().map(entry).collect()
    }

    fn info(&self, data: &[u8]) -> Result<(Arc<Export>, Vec<Reply>), Refused> {
        let request = InfoRequest::parse(data).map_err(malformed)?;
        let export = self.find(&request.name)?;
        let always = Info::Export {
            size: export.size(),
            flags: self.flags(&export),
        };
        let asked = request.wanted.iter().filter_map(|wanted| match wanted {
            InfoType::Name => Some(Info::Name(export.name().to_owned())),
            InfoType::Description => Some(Info::Description(export.description().to_owned())),
            InfoType::BlockSize => Some(Info::BlockSize(BlockSizes {
                minimum: 1,
                preferred: export.unit().max(4096),
                maximum: MAX_PAYLOAD,
            })),
            _ => None,
        });
        let mut sent: Vec<InfoType> = Vec::new();
        let replies = std::iter::once(always)
            .chain(asked)
            .filter(|info| {
                let new = !sent.contains(&info.kind());
                sent.push(info.kind());
                new
            })
            .map(|info| (OptionReply::Info, info.to_bytes()))
            .collect();
        Ok((export, replies))
    }

    fn meta_context(&self, data: &[u8], set: bool) -> Result<(Arc<Export>, Vec<Reply>), Refused> {
        let request = MetaContextRequest::parse(data).map_err(malformed)?;
        if set && self.form == Form::Simple {
            return refused(
                OptionReply::ErrInvalid,
                "structured replies have to be negotiated first",
            );
        }
        let export = self.find(&request.export)?;
        let listed = !set && request.queries.is_empty();
        let asked = |query: &String| query == BASE_ALLOCATION || (!set && query == "base:");
        let context = MetaContext {
            id: if set { ALLOCATION_ID } else { 0 },
            name: BASE_ALLOCATION.to_owned(),
        };
        let found = listed || request.queries.iter().any(asked);
        let reply = || (OptionReply::MetaContext, context.to_bytes());
        Ok((export, found.then(reply).into_iter().collect()))
    }

    fn find(&self, name: &str) -> Result<Arc<Export>, Refused> {
        match self.server.find(name) {
            Some(export) => Ok(export),
            None => refused(OptionReply::ErrUnknown, "no export of that name"),
        }
    }

    fn flags(&self, export: &Export) -> TransmissionFlags {
        let flags = TransmissionFlags::HAS_FLAGS
            | TransmissionFlags::SEND_FLUSH
            | TransmissionFlags::SEND_FUA
            | TransmissionFlags::CAN_MULTI_CONN
            | TransmissionFlags::SEND_CACHE;
        let zeroes = TransmissionFlags::SEND_WRITE_ZEROES | TransmissionFlags::SEND_FAST_ZERO;
        let discards = export.discard_policy() != Discard::Deny;
        flags
            .with_if(TransmissionFlags::SEND_DF, self.form != Form::Simple)
            .with_if(TransmissionFlags::READ_ONLY, export.is_read_only())
            .with_if(zeroes, !export.is_read_only())
            .with_if(
                TransmissionFlags::SEND_TRIM,
                discards && !export.is_read_only(),
            )
    }

    fn agreed(self, export: Arc<Export>) -> Session {
        let chosen = self
            .allocation_of
            .is_some_and(|chosen| Arc::ptr_eq(&chosen, &export));
        Session {
            channel: self.channel,
            allocation: chosen.then_some(ALLOCATION_ID),
            form: self.form,
            stopping: self.server.stopping.clone(),
            export,
        }
    }

    /// Sends all replies to one option at once: the given ones and an ACK, or an error.
    fn answer(&self, option: OptionType, answer: Result<Vec<Reply>, Refused>) -> io::Result<()> {
        let (replies, last) = match answer {
            Ok(replies) => (replies, (OptionReply::Ack, vec![])),
            Err((reply, message)) => (vec![], (reply, message.into_bytes())),
        };
        let mut bytes = Vec::new();
        for (reply, data) in replies.into_iter().chain([last]) {
            let len = u32::try_from(data.len()).unwrap_or(u32::MAX);
            let header = OptionReplyHeader { option, reply, len };
            bytes.extend_from_slice(&header.to_bytes());
            bytes.extend_from_slice(&data);
        }
        self.send(&bytes)
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        self.channel.send(&mut [IoSlice::new(bytes)])
    }

    fn receive<const N: usize>(&self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.channel.recv_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn skip(&self, len: u32) -> io::Result<()> {
        let mut left = usize::try_from(len).unwrap_or(usize::MAX);
        let mut bytes = [0; 4096];
        while left > 0 {
            let some = left.min(bytes.len());
            self.channel.recv_exact(&mut bytes[..some])?;
            left -= some;
        }
        Ok(())
    }
}

/// A reply to an option: its kind and its data.
type Reply = (OptionReply, Vec<u8>);

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
