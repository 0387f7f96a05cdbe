//! A client that sends single messages and checks each reply. It waits at most half a minute for a
//! reply.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use luksmith_formats::nbd::{
    BlockStatus, ChunkFlags, ChunkType, ClientFlags, Command, CommandFlags, ErrorChunk,
    ErrorNumber, ExportNameReply, Greeting, Info, InfoRequest, InfoType, OptionHeader, OptionReply,
    OptionReplyHeader, OptionType, ReplyForm, ReplyHeader, Request, SimpleReply, TransmissionFlags,
};

/// A connection in the handshake, after the greeting.
pub(crate) struct Handshake(pub(crate) UnixStream);

impl Handshake {
    pub(crate) fn greeted(stream: UnixStream) -> Self {
        let flags = ClientFlags::FIXED_NEWSTYLE | ClientFlags::NO_ZEROES;
        Self::greeted_with(stream, flags).unwrap()
    }

    pub(crate) fn greeted_with(mut stream: UnixStream, flags: ClientFlags) -> io::Result<Self> {
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let greeting = Greeting::parse(&read(&mut stream)?).unwrap();
        assert_eq!(u16::from(greeting.flags), 3);
        stream.write_all(&flags.to_bytes())?;
        Ok(Self(stream))
    }

    pub(crate) fn send(&mut self, option: OptionType, data: &[u8]) -> io::Result<()> {
        let len = data.len().try_into().unwrap();
        self.0.write_all(&OptionHeader { option, len }.to_bytes())?;
        self.0.write_all(data)
    }

    /// The next reply and its data.
    pub(crate) fn reply(&mut self) -> io::Result<(OptionReplyHeader, Vec<u8>)> {
        let header = OptionReplyHeader::parse(&read(&mut self.0)?).unwrap();
        let mut data = vec![0; header.len.try_into().unwrap()];
        self.0.read_exact(&mut data)?;
        Ok((header, data))
    }

    /// All replies to one option: those before the last one, and the last one.
    pub(crate) fn ask(
        &mut self,
        option: OptionType,
        data: &[u8],
    ) -> (Vec<(OptionReply, Vec<u8>)>, OptionReply) {
        self.send(option, data).unwrap();
        let mut replies = Vec::new();
        loop {
            let (header, data) = self.reply().unwrap();
            assert_eq!(header.option, option);
            if header.reply == OptionReply::Ack || header.reply.is_error() {
                return (replies, header.reply);
            }
            replies.push((header.reply, data));
        }
    }

    pub(crate) fn acked(&mut self, option: OptionType, data: &[u8]) -> Vec<(OptionReply, Vec<u8>)> {
        let (replies, last) = self.ask(option, data);
        assert_eq!(last, OptionReply::Ack, "{option:?}");
        replies
    }

    pub(crate) fn go(mut self, name: &str) -> Client {
        let request = InfoRequest {
            name: name.into(),
            wanted: vec![InfoType::BlockSize],
        };
        let replies = self.acked(OptionType::Go, &request.to_bytes());
        let infos = replies.iter().map(|(_, data)| Info::parse(data).unwrap());
        let export = infos.into_iter().find_map(|info| match info {
            Info::Export { size, flags } => Some((size, flags)),
            _ => None,
        });
        let (size, flags) = export.unwrap();
        Client {
            stream: self.0,
            extended: false,
            size,
            flags,
        }
    }

    pub(crate) fn export_name(mut self, name: &str) -> io::Result<Client> {
        self.send(OptionType::ExportName, name.as_bytes())?;
        let reply = ExportNameReply::parse(&read(&mut self.0)?).unwrap();
        Ok(Client {
            stream: self.0,
            extended: false,
            size: reply.size,
            flags: reply.flags,
        })
    }
}

/// A connection in the transmission phase.
pub(crate) struct Client {
    pub(crate) stream: UnixStream,
    pub(crate) extended: bool,
    pub(crate) size: u64,
    pub(crate) flags: TransmissionFlags,
}

/// The reply to a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) error: ErrorNumber,
    pub(crate) data: Vec<u8>,
    /// The types of its chunks; empty for a simple reply.
    pub(crate) parts: Vec<ChunkType>,
    pub(crate) extents: Vec<(u64, u64)>,
}

impl Client {
    /// A client with structured replies, on the export with the empty name.
    pub(crate) fn of(stream: UnixStream) -> Self {
        let mut handshake = Handshake::greeted(stream);
        handshake.acked(OptionType::StructuredReply, &[]);
        handshake.go("")
    }

    pub(crate) fn send(&mut self, request: Request, payload: &[u8]) -> io::Result<()> {
        if self.extended {
            self.stream.write_all(&request.to_extended())?;
        } else {
            self.stream.write_all(&request.to_compact())?;
        }
        self.stream.write_all(payload)
    }

    pub(crate) fn ask(
        &mut self,
        command: Command,
        flags: CommandFlags,
        offset: u64,
        len: u64,
        payload: &[u8],
    ) -> Answer {
        let request = Request {
            flags,
            command,
            cookie: 0x5eed ^ offset,
            offset,
            len,
        };
        self.send(request, payload).unwrap();
        self.answer(&request).unwrap()
    }

    /// Receives the whole reply to a request, which has to be the next one.
    pub(crate) fn answer(&mut self, request: &Request) -> io::Result<Answer> {
        let (_, answer) = self.answer_to_any(std::slice::from_ref(request))?;
        Ok(answer)
    }

    /// Receives the whole next reply, and tells to which of these requests it belongs.
    pub(crate) fn answer_to_any(&mut self, requests: &[Request]) -> io::Result<(u64, Answer)> {
        let mut requests = requests.to_vec();
        let mut answer = Answer {
            error: ErrorNumber::None,
            data: vec![],
            parts: vec![],
            extents: vec![],
        };
        loop {
            let mut header = read::<4>(&mut self.stream)?.to_vec();
            let form = ReplyForm::of_magic(*header.first_chunk().unwrap()).unwrap();
            header.resize(form.header_len(), 0);
            self.stream.read_exact(&mut header[4..])?;
            let header = ReplyHeader::parse(&header).unwrap();
            requests.retain(|request| request.cookie == header.cookie());
            let request = *requests.first().expect("a cookie of ours");
            let chunk = match header {
                ReplyHeader::Simple(reply) => {
                    answer.error = reply.error;
                    if request.command == Command::Read && reply.error == ErrorNumber::None {
                        answer.data = vec![0; request.len.try_into().unwrap()];
                        self.stream.read_exact(&mut answer.data)?;
                    }
                    return Ok((request.cookie, answer));
                }
                ReplyHeader::Chunk(chunk) => chunk,
            };
            if self.extended {
                assert_eq!((form, chunk.offset), (ReplyForm::Extended, request.offset));
            }
            let mut payload = vec![0; chunk.len.try_into().unwrap()];
            self.stream.read_exact(&mut payload)?;
            answer.parts.push(chunk.kind);
            match chunk.kind {
                ChunkType::None => assert!(payload.is_empty()),
                ChunkType::OffsetData => {
                    let (at, data) = payload.split_at(8);
                    let at = u64::from_be_bytes(at.try_into().unwrap());
                    // luksmith sends the chunks in order.
                    assert_eq!(at, request.offset + answer.data.len() as u64);
                    answer.data.extend_from_slice(data);
                }
                ChunkType::BlockStatus | ChunkType::BlockStatusExtended => {
                    let status = if self.extended {
                        BlockStatus::parse_extended(&payload)
                    } else {
                        BlockStatus::parse(&payload)
                    };
                    let extents = status.unwrap().extents;
                    answer.extents = extents.iter().map(|e| (e.len, e.flags.into())).collect();
                }
                kind => {
                    assert!(kind.is_error(), "{kind:?}");
                    let error = ErrorChunk::parse(kind, &payload).unwrap();
                    assert!(!error.message.is_empty());
                    answer.error = error.error;
                }
            }
            if chunk.flags.contains(ChunkFlags::DONE) {
                return Ok((request.cookie, answer));
            }
        }
    }

    /// Receives the next reply, which has to be a simple one without data.
    pub(crate) fn next_simple(&mut self) -> io::Result<(u64, ErrorNumber)> {
        match ReplyHeader::parse(&read::<{ SimpleReply::LEN }>(&mut self.stream)?).unwrap() {
            ReplyHeader::Simple(reply) => Ok((reply.cookie, reply.error)),
            ReplyHeader::Chunk(chunk) => panic!("{chunk:?}"),
        }
    }

    pub(crate) fn read(&mut self, offset: u64, len: u64) -> Vec<u8> {
        let answer = self.ask(Command::Read, CommandFlags::NONE, offset, len, &[]);
        assert_eq!(answer.error, ErrorNumber::None);
        answer.data
    }

    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) -> ErrorNumber {
        self.write_with(CommandFlags::NONE, offset, bytes)
    }

    pub(crate) fn write_with(
        &mut self,
        flags: CommandFlags,
        offset: u64,
        bytes: &[u8],
    ) -> ErrorNumber {
        self.ask(Command::Write, flags, offset, bytes.len() as u64, bytes)
            .error
    }

    pub(crate) fn flush(&mut self) -> ErrorNumber {
        self.ask(Command::Flush, CommandFlags::NONE, 0, 0, &[])
            .error
    }

    /// Whether the server has closed the connection.
    pub(crate) fn is_ended(&mut self) -> bool {
        is_ended(&mut self.stream)
    }
}

/// Whether the server has closed the connection. A reset counts too.
pub(crate) fn is_ended(stream: &mut UnixStream) -> bool {
    match stream.read(&mut [0; 1]) {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => {
            assert_ne!(
                error.kind(),
                io::ErrorKind::WouldBlock,
                "no end, nor anything else"
            );
            true
        }
    }
}

fn read<const N: usize>(stream: &mut UnixStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}
