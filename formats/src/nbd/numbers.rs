//! The protocol's numbers and flags by name (section "Values").

/// An open set of numbers: those that the protocol names, and any other as it came.
macro_rules! numbers {
    ($(#[$about:meta])* $name:ident: $int:ty { $($(#[$doc:meta])* $variant:ident = $value:expr,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$doc])* $variant,)*
            /// A number without a name here.
            Unknown($int),
        }

        impl From<$int> for $name {
            fn from(number: $int) -> Self {
                $(if number == $value {
                    return Self::$variant;
                })*
                Self::Unknown(number)
            }
        }

        impl From<$name> for $int {
            fn from(name: $name) -> Self {
                match name {
                    $($name::$variant => $value,)*
                    $name::Unknown(number) => number,
                }
            }
        }

        impl $name {
            /// All that have a name.
            pub const NAMED: &[Self] = &[$(Self::$variant),*];
        }
    };
}

/// A set of flags; those without a name are kept.
macro_rules! flags {
    ($(#[$about:meta])* $name:ident: $int:ty { $($(#[$doc:meta])* $flag:ident = $bit:expr,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub struct $name($int);

        impl $name {
            $($(#[$doc])* pub const $flag: Self = Self(1 << $bit);)*

            /// None of them.
            pub const NONE: Self = Self(0);

            /// Whether all of `flags` are set.
            #[must_use]
            pub const fn contains(self, flags: Self) -> bool {
                self.0 & flags.0 == flags.0
            }

            /// Those that are set here but not in `known`.
            #[must_use]
            pub const fn without(self, known: Self) -> Self {
                Self(self.0 & !known.0)
            }

            /// Whether none is set.
            #[must_use]
            pub const fn is_empty(self) -> bool {
                self.0 == 0
            }

            /// These and, where `condition` holds, `flags`.
            #[must_use]
            pub const fn with_if(self, flags: Self, condition: bool) -> Self {
                if condition { Self(self.0 | flags.0) } else { self }
            }
        }

        impl core::ops::BitOr for $name {
            type Output = Self;
            fn bitor(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }
        }

        impl From<$int> for $name {
            fn from(bits: $int) -> Self {
                Self(bits)
            }
        }

        impl From<$name> for $int {
            fn from(flags: $name) -> Self {
                flags.0
            }
        }
    };
}
pub(super) use flags;

numbers! {
    /// What a client asks for before it has an export ("Option types").
    OptionType: u32 {
        /// Take this export and begin; no answer where it cannot be had but the end of the connection.
        ExportName = 1,
        /// Leave.
        Abort = 2,
        /// Name all exports.
        List = 3,
        /// Speak TLS from here on.
        StartTls = 5,
        /// Tell of this export.
        Info = 6,
        /// Tell of this export and begin.
        Go = 7,
        /// Answer in structured replies.
        StructuredReply = 8,
        /// Name the metadata contexts that there are.
        ListMetaContext = 9,
        /// Choose the metadata contexts that BLOCK_STATUS will tell of.
        SetMetaContext = 10,
        /// Lengths of 64 bits in requests and replies.
        ExtendedHeaders = 11,
    }
}

const ERROR: u32 = 1 << 31;

numbers! {
    /// What a server answers to an option ("Option reply types").
    OptionReply: u32 {
        /// Done; the last one.
        Ack = 1,
        /// An export of the list.
        Server = 2,
        /// Something about an export.
        Info = 3,
        /// A metadata context.
        MetaContext = 4,
        /// The server does not know this option.
        ErrUnsupported = ERROR | 1,
        /// The server is told not to.
        ErrPolicy = ERROR | 2,
        /// The option's data is malformed, or it makes no sense now.
        ErrInvalid = ERROR | 3,
        /// The server's platform cannot.
        ErrPlatform = ERROR | 4,
        /// TLS first.
        ErrTlsRequired = ERROR | 5,
        /// No such export.
        ErrUnknown = ERROR | 6,
        /// The server is stopping.
        ErrShutdown = ERROR | 7,
        /// The client has to ask for the block sizes.
        ErrBlockSizeRequired = ERROR | 8,
        /// Too much was asked.
        ErrTooBig = ERROR | 9,
        /// Extended headers first.
        ErrExtendedHeadersRequired = ERROR | 10,
    }
}

impl OptionReply {
    /// Whether it is an error, also one without a name.
    #[must_use]
    pub fn is_error(self) -> bool {
        u32::from(self) & ERROR != 0
    }
}

numbers! {
    /// What can be told of an export ("Option reply types", `NBD_REP_INFO`).
    InfoType: u16 {
        /// Size and transmission flags.
        Export = 0,
        /// The export's own name.
        Name = 1,
        /// A text for people.
        Description = 2,
        /// Which sizes of requests it takes.
        BlockSize = 3,
    }
}

numbers! {
    /// What is asked of an export ("Request types").
    Command: u16 {
        /// Bytes, please.
        Read = 0,
        /// Here are bytes.
        Write = 1,
        /// The client leaves; no answer.
        Disconnect = 2,
        /// What was answered before this is to be on stable storage.
        Flush = 3,
        /// These bytes are not needed any more.
        Trim = 4,
        /// These bytes will be read.
        Cache = 5,
        /// These bytes are to read as zeroes.
        WriteZeroes = 6,
        /// What lies there, in terms of the chosen metadata contexts.
        BlockStatus = 7,
    }
}

numbers! {
    /// What a part of a structured reply holds ("Structured reply types").
    ChunkType: u16 {
        /// Nothing; the end of a reply.
        None = 0,
        /// An offset and the bytes there.
        OffsetData = 1,
        /// A range that reads as zeroes.
        OffsetHole = 2,
        /// Extents with lengths of 32 bits.
        BlockStatus = 5,
        /// Extents with lengths of 64 bits.
        BlockStatusExtended = 6,
        /// An error.
        Error = 0x8001,
        /// An error and where.
        ErrorOffset = 0x8002,
    }
}

impl ChunkType {
    /// Whether it is an error, also one without a name.
    #[must_use]
    pub fn is_error(self) -> bool {
        u16::from(self) & 0x8000 != 0
    }
}

numbers! {
    /// Why a request failed ("Error values"); the numbers are Linux's.
    ErrorNumber: u32 {
        /// It did not.
        None = 0,
        /// Not permitted: the export is read-only.
        NotPermitted = 1,
        /// The storage failed.
        Io = 5,
        /// Out of memory.
        NoMemory = 12,
        /// The request makes no sense.
        Invalid = 22,
        /// No space left.
        NoSpace = 28,
        /// The answer would be too long for one piece.
        Overflow = 75,
        /// Not supported (for this range).
        NotSupported = 95,
        /// The server is stopping.
        Shutdown = 108,
    }
}

flags! {
    /// What an export can do ("Transmission flags").
    TransmissionFlags: u16 {
        /// Always set.
        HAS_FLAGS = 0,
        /// It cannot be changed.
        READ_ONLY = 1,
        /// FLUSH is understood.
        SEND_FLUSH = 2,
        /// [`CommandFlags::FUA`] is understood.
        SEND_FUA = 3,
        /// It is slow at seeking.
        ROTATIONAL = 4,
        /// TRIM is understood.
        SEND_TRIM = 5,
        /// WRITE_ZEROES and [`CommandFlags::NO_HOLE`] are understood.
        SEND_WRITE_ZEROES = 6,
        /// [`CommandFlags::DF`] is understood.
        SEND_DF = 7,
        /// A flush on one connection holds for what was answered on all.
        CAN_MULTI_CONN = 8,
        /// CACHE is understood.
        SEND_CACHE = 10,
        /// [`CommandFlags::FAST_ZERO`] is understood.
        SEND_FAST_ZERO = 11,
        /// [`CommandFlags::PAYLOAD_LEN`] is understood with BLOCK_STATUS.
        BLOCK_STATUS_PAYLOAD = 12,
    }
}

flags! {
    /// How a request is to be done ("Command flags").
    CommandFlags: u16 {
        /// On stable storage before it is answered.
        FUA = 0,
        /// WRITE_ZEROES keeps the space.
        NO_HOLE = 1,
        /// READ is answered in one piece.
        DF = 2,
        /// BLOCK_STATUS tells of one extent.
        REQ_ONE = 3,
        /// WRITE_ZEROES fails at once where it is not faster than writing.
        FAST_ZERO = 4,
        /// With extended headers: the length is that of the payload.
        PAYLOAD_LEN = 5,
    }
}

flags! {
    /// Of a part of a structured reply.
    ChunkFlags: u16 {
        /// The last one.
        DONE = 0,
    }
}

flags! {
    /// What `base:allocation` says of an extent.
    ExtentFlags: u64 {
        /// Not allocated.
        HOLE = 0,
        /// Reads as zeroes.
        ZERO = 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_names_and_unknown_ones_their_numbers() {
        for &option in OptionType::NAMED {
            assert_eq!(OptionType::from(u32::from(option)), option);
        }
        for &reply in OptionReply::NAMED {
            assert_eq!(OptionReply::from(u32::from(reply)), reply);
        }
        for &error in ErrorNumber::NAMED {
            assert_eq!(ErrorNumber::from(u32::from(error)), error);
        }
        assert_eq!(u16::from(Command::from(0x1234)), 0x1234);
        assert_eq!(u32::from(OptionType::SetMetaContext), 10);
    }

    #[test]
    fn errors_are_known_by_their_highest_bit() {
        assert!(OptionReply::from(0x8000_1234).is_error());
        assert!(OptionReply::ErrPolicy.is_error() && !OptionReply::Info.is_error());
        assert!(ChunkType::from(0x8123).is_error());
        assert!(ChunkType::ErrorOffset.is_error() && !ChunkType::BlockStatus.is_error());
    }

    #[test]
    fn flags_without_a_name_stay() {
        let flags = CommandFlags::from(0x8001);
        assert!(flags.contains(CommandFlags::FUA) && !flags.contains(CommandFlags::DF));
        assert_eq!(u16::from(flags.without(CommandFlags::FUA)), 0x8000);
        assert!(flags.without(flags).is_empty());
        assert_eq!(
            CommandFlags::NONE.with_if(CommandFlags::DF, false),
            CommandFlags::NONE
        );
        assert_eq!(
            u16::from(CommandFlags::FUA.with_if(CommandFlags::DF, true)),
            5
        );
    }
}
