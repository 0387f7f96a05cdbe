//! The messages between the kernel and a file system (`linux/fuse.h`, protocol 7). They are structs
//! of C in the byte order of the machine. The peer is the kernel, so a message that is too short
//! for its kind does not occur, and reads as zeroes.

/// The length of the header of a request.
pub(super) const IN_HEADER: usize = 40;
/// The length of the header and of the fixed part of a request to write. The data follow.
pub(super) const BEFORE_DATA: usize = IN_HEADER + 40;
const OUT_HEADER: usize = 16;
/// The most bytes of a write, and of a read by a program. Linux asks for no more by default.
pub(super) const MOST: usize = 1 << 20;

/// The version of the protocol that is spoken here.
const MAJOR: u32 = 7;
const MINOR: u32 = 38;
/// The oldest minor version of a kernel that works: that of Linux 4.20, with `MAX_PAGES`.
const OLDEST_MINOR: u32 = 28;

/// Flags of the handshake: the kernel offers them, and the reply takes those that are wanted.
mod flags {
    pub(super) const ASYNC_READ: u64 = 1;
    pub(super) const BIG_WRITES: u64 = 1 << 5;
    pub(super) const ASYNC_DIRECT: u64 = 1 << 15;
    pub(super) const MAX_PAGES: u64 = 1 << 22;
    /// The upper 32 flags are there.
    pub(super) const EXTENDED: u64 = 1 << 30;
    /// A file with direct I/O can be mapped into memory.
    pub(super) const DIRECT_MAPS: u64 = 1 << 36;

    pub(super) const WANTED: u64 =
        ASYNC_READ | BIG_WRITES | ASYNC_DIRECT | MAX_PAGES | EXTENDED | DIRECT_MAPS;
}

/// Flags of the reply to an open.
const OPEN_DIRECT: u32 = 1;
const OPEN_KEEP_CACHE: u32 = 1 << 1;
const OPEN_PARALLEL_DIRECT_WRITES: u32 = 1 << 6;

/// The bit of a change of attributes that says that there is a size.
const VALID_SIZE: u32 = 1 << 3;
/// Those of the mode, the owner and the group.
const VALID_OWNER: u32 = 0b111;

// Modes of fallocate(2).
const KEEP_SIZE: u32 = 1;
const PUNCH_HOLE: u32 = 2;
const ZERO_RANGE: u32 = 16;

// Of lseek(2).
const SEEK_DATA: u32 = 3;
const SEEK_HOLE: u32 = 4;

/// What the kernel asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    Attributes,
    /// A change of attributes: whether the mode or the owner changes, and the new size.
    Change {
        owner: bool,
        size: Option<u64>,
    },
    Open,
    Read {
        offset: u64,
        len: u32,
    },
    Write {
        offset: u64,
        len: u32,
    },
    Flush,
    Statistics,
    /// The range reads as zeroes then, and its storage may be freed.
    Punch {
        offset: u64,
        len: u64,
    },
    /// The range reads as zeroes then, and stays allocated.
    Zero {
        offset: u64,
        len: u64,
    },
    /// A mode of fallocate that there is none of here.
    OtherAllocation,
    /// The next data, or the next hole.
    Seek {
        offset: u64,
        hole: bool,
    },
    /// Nothing has to be done.
    Nothing,
    /// The kernel expects no reply.
    Forget,
    Unknown,
}

/// The header of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    operation: u32,
    /// The number of the request, which the reply has too.
    pub(super) unique: u64,
}

impl Header {
    pub(super) fn parse(bytes: &[u8]) -> Self {
        Self {
            operation: u32_at(bytes, 4),
            unique: u64_at(bytes, 8),
        }
    }

    pub(super) fn is_init(self) -> bool {
        self.operation == 26
    }

    /// What the request asks for. `body` is what follows the header.
    pub(super) fn request(self, body: &[u8]) -> Request {
        let place = || (u64_at(body, 8), u32_at(body, 16));
        match self.operation {
            2 | 42 => Request::Forget,
            3 => Request::Attributes,
            4 => {
                let valid = u32_at(body, 0);
                Request::Change {
                    owner: valid & VALID_OWNER != 0,
                    size: (valid & VALID_SIZE != 0).then(|| u64_at(body, 16)),
                }
            }
            14 => Request::Open,
            15 => {
                let (offset, len) = place();
                Request::Read { offset, len }
            }
            16 => {
                let (offset, len) = place();
                Request::Write { offset, len }
            }
            17 => Request::Statistics,
            // The release of an open file, and the end of the file system.
            18 | 38 => Request::Nothing,
            20 => Request::Flush,
            43 => {
                let (offset, len) = (u64_at(body, 8), u64_at(body, 16));
                match u32_at(body, 24) & !KEEP_SIZE {
                    PUNCH_HOLE => Request::Punch { offset, len },
                    ZERO_RANGE => Request::Zero { offset, len },
                    _ => Request::OtherAllocation,
                }
            }
            46 => {
                let offset = u64_at(body, 8);
                match u32_at(body, 16) {
                    SEEK_DATA => Request::Seek {
                        offset,
                        hole: false,
                    },
                    SEEK_HOLE => Request::Seek { offset, hole: true },
                    _ => Request::Unknown,
                }
            }
            _ => Request::Unknown,
        }
    }
}

/// The reply to the first request, for a file system that takes writes of up to `max_write` bytes
/// and has up to `background` requests of the page cache at once. `None` if the kernel is too old.
pub(super) fn init(body: &[u8], max_write: u32, background: u16) -> Option<Vec<u8>> {
    let (major, minor) = (u32_at(body, 0), u32_at(body, 4));
    if major != MAJOR || minor < OLDEST_MINOR {
        return None;
    }
    let low = u64::from(u32_at(body, 12));
    let high = match low & flags::EXTENDED {
        0 => 0,
        _ => u64::from(u32_at(body, 16)),
    };
    let taken = (high << 32 | low) & flags::WANTED;
    let page = rustix::param::page_size();
    let pages = (max_write as usize).div_ceil(page);
    let mut reply = Message::default();
    reply.u32(MAJOR).u32(MINOR);
    reply.u32(u32_at(body, 8)); // the longest read ahead, as the kernel has it
    reply.u32(half(taken));
    reply.u16(background).u16(background / 4 * 3);
    reply.u32(max_write);
    reply.u32(1); // times have nanoseconds
    reply.u16(u16::try_from(pages).unwrap_or(u16::MAX)).u16(0);
    reply.u32(half(taken >> 32));
    reply.zeroes(28);
    Some(reply.0)
}

fn half(bits: u64) -> u32 {
    u32::try_from(bits & u64::from(u32::MAX)).unwrap_or_default()
}

/// What the kernel is told of the file.
#[derive(Debug, Clone)]
pub(super) struct Attributes {
    pub(super) size: u64,
    pub(super) block_size: u32,
    pub(super) permissions: u32,
    pub(super) user: u32,
    pub(super) group: u32,
    /// The time of its last change, in seconds since 1970.
    pub(super) changed: u64,
}

/// How long the kernel need not ask for the attributes again, in seconds. Nothing but the kernel
/// changes them.
const ATTRIBUTES_LAST: u64 = 86400;
const REGULAR_FILE: u32 = 0o100_000;
/// The inode of the root.
const ROOT: u64 = 1;

impl Attributes {
    pub(super) fn message(&self) -> Vec<u8> {
        let mut reply = Message::default();
        reply.u64(ATTRIBUTES_LAST).u64(0);
        reply.u64(ROOT).u64(self.size).u64(self.size.div_ceil(512));
        (0..3).for_each(|_| _ = reply.u64(self.changed));
        reply.zeroes(12);
        reply.u32(REGULAR_FILE | self.permissions).u32(1);
        reply.u32(self.user).u32(self.group).u32(0);
        reply.u32(self.block_size).u32(0);
        reply.0
    }
}

/// The reply to an open, with or without the page cache.
pub(super) fn opened(direct: bool) -> Vec<u8> {
    let mut reply = Message::default();
    reply.u64(0);
    reply.u32(match direct {
        true => OPEN_DIRECT | OPEN_PARALLEL_DIRECT_WRITES,
        false => OPEN_KEEP_CACHE,
    });
    reply.zeroes(4);
    reply.0
}

/// The reply to a write of this many bytes.
pub(super) fn written(len: u32) -> [u8; 8] {
    let [a, b, c, d] = len.to_ne_bytes();
    [a, b, c, d, 0, 0, 0, 0]
}

/// The statistics of a file system that is full with one file.
pub(super) fn statistics(size: u64, block_size: u32) -> Vec<u8> {
    let mut reply = Message::default();
    reply.u64(size / u64::from(block_size)).u64(0).u64(0);
    reply.u64(1).u64(0);
    reply.u32(block_size).u32(255).u32(block_size);
    reply.zeroes(28);
    reply.0
}

/// The header of a reply with this much behind it, or with an error of the system.
pub(super) fn out_header(unique: u64, len: usize, error: i32) -> [u8; OUT_HEADER] {
    let mut header = [0; OUT_HEADER];
    let whole = u32::try_from(OUT_HEADER + len).unwrap_or(u32::MAX);
    header[..4].copy_from_slice(&whole.to_ne_bytes());
    header[4..8].copy_from_slice(&(-error).to_ne_bytes());
    header[8..].copy_from_slice(&unique.to_ne_bytes());
    header
}

/// A message that is being written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_ne_bytes())
    }

    fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_ne_bytes())
    }

    fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_ne_bytes())
    }

    fn zeroes(&mut self, len: usize) {
        self.0.resize(self.0.len() + len, 0);
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let found = bytes.get(at..).and_then(<[u8]>::first_chunk);
    u32::from_ne_bytes(found.copied().unwrap_or_default())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let found = bytes.get(at..).and_then(<[u8]>::first_chunk);
    u64::from_ne_bytes(found.copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    fn request(operation: u32, words: &[u32]) -> Request {
        let header = Header {
            operation,
            unique: 1,
        };
        header.request(&body(words))
    }

    #[test]
    fn messages_have_the_lengths_of_the_structs_of_the_kernel() {
        let attributes = Attributes {
            size: 512,
            block_size: 4096,
            permissions: 0o600,
            user: 1,
            group: 2,
            changed: 3,
        };
        assert_eq!(attributes.message().len(), 104);
        assert_eq!(opened(true).len(), 16);
        assert_eq!(statistics(1 << 20, 4096).len(), 80);
        let kernel = body(&[7, 38, 131_072, u32::MAX, u32::MAX]);
        assert_eq!(
            init(&kernel, 1 << 20, 64).map(|reply| reply.len()),
            Some(64)
        );
    }

    #[test]
    fn only_flags_that_the_kernel_has_are_taken() {
        let flags = |low, high| {
            let reply = init(&body(&[7, 31, 0, low, high]), 1 << 20, 64).unwrap();
            (u32_at(&reply, 12), u32_at(&reply, 32))
        };
        assert_eq!(flags(1, u32::MAX), (1, 0));
        assert_eq!(flags(u32::MAX, u32::MAX), (half(flags::WANTED), 1 << 4));
        assert!(init(&body(&[7, 27, 0, 0]), 1 << 20, 64).is_none());
        assert!(init(&body(&[8, 40, 0, 0]), 1 << 20, 64).is_none());
    }

    #[test]
    fn modes_of_fallocate_are_told_apart() {
        let allocate = |mode| request(43, &[0, 0, 512, 0, 1024, 0, mode, 0]);
        let (offset, len) = (512, 1024);
        assert_eq!(allocate(3), Request::Punch { offset, len });
        assert_eq!(allocate(16), Request::Zero { offset, len });
        assert_eq!(allocate(17), Request::Zero { offset, len });
        for mode in [0, 1, 8, 32, 64, 3 | 16] {
            assert_eq!(allocate(mode), Request::OtherAllocation, "{mode}");
        }
    }

    #[test]
    fn a_short_message_reads_as_zeroes() {
        let nothing = Request::Read { offset: 0, len: 0 };
        assert_eq!(request(15, &[]), nothing);
        assert_eq!(Header::parse(&[]).request(&[]), Request::Unknown);
    }
}
