//! The numbers and flags of the protocol by name (section "Values").

/// Defines an open set of numbers: those with a name in the protocol, and any other unchanged.
macro_rules! numbers {
    ($(#[$about:meta])* $name:ident: $int:ty { $($(#[$doc:meta])* $variant:ident = $value:expr,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$doc])* $variant,)*
            /// A number without a name.
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
            /// All numbers with a name.
            pub const NAMED: &[Self] = &[$(Self::$variant),*];
        }
    };
}

/// Defines a set of flags. Flags without a name are kept.
macro_rules! flags {
    ($(#[$about:meta])* $name:ident: $int:ty { $($(#[$doc:meta])* $flag:ident = $bit:expr,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub struct $name($int);

        impl $name {
            $($(#[$doc])* pub const $flag: Self = Self(1 << $bit);)*

            /// No flag.
            pub const NONE: Self = Self(0);

            /// Whether all of `flags` are set.
            #[must_use]
            pub const fn contains(self, flags: Self) -> bool {
                self.0 & flags.0 == flags.0
            }

            /// The flags that are set here and not in `known`.
            #[must_use]
            pub const fn without(self, known: Self) -> Self {
                Self(self.0 & !known.0)
            }

            /// Whether no flag is set.
            #[must_use]
            pub const fn is_empty(self) -> bool {
                self.0 == 0
            }

            /// These flags, and `flags` too if `condition` is true.
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
    /// An option that a client sends during the handshake ("Option types").
    OptionType: u32 {
        /// Choose this export and begin. If the server refuses it, it closes the connection.
        ExportName = 1,
        /// End the handshake and disconnect.
        Abort = 2,
        /// List the exports.
        List = 3,
        /// Start TLS.
        StartTls = 5,
        /// Describe this export.
        Info = 6,
        /// Describe this export, choose it and begin.
        Go = 7,
        /// Use structured replies.
        StructuredReply = 8,
        /// List the metadata contexts.
        ListMetaContext = 9,
        /// Choose the metadata contexts for BLOCK_STATUS.
        SetMetaContext = 10,
        /// Use extended headers, with lengths of 64 bits.
        ExtendedHeaders = 11,
    }
}

const ERROR: u32 = 1 << 31;

numbers! {
    /// The type of a reply to an option ("Option reply types").
    OptionReply: u32 {
        /// Success. It is the last reply.
        Ack = 1,
        /// An export of a list.
        Server = 2,
        /// Information about an export.
        Info = 3,
        /// A metadata context.
        MetaContext = 4,
        /// The server does not support this option.
        ErrUnsupported = ERROR | 1,
        /// A policy of the server forbids it.
        ErrPolicy = ERROR | 2,
        /// The data of the option is malformed, or the option is not allowed at this point.
        ErrInvalid = ERROR | 3,
        /// The platform of the server does not support it.
        ErrPlatform = ERROR | 4,
        /// TLS has to be started first.
        ErrTlsRequired = ERROR | 5,
        /// There is no such export.
        ErrUnknown = ERROR | 6,
        /// The server shuts down.
        ErrShutdown = ERROR | 7,
        /// The client has to ask for the block sizes first.
        ErrBlockSizeRequired = ERROR | 8,
        /// The request is too large.
        ErrTooBig = ERROR | 9,
        /// Extended headers have to be negotiated first.
        ErrExtendedHeadersRequired = ERROR | 10,
    }
}

impl OptionReply {
    /// Whether it is an error. That is known of numbers without a name too.
    #[must_use]
    pub fn is_error(self) -> bool {
        u32::from(self) & ERROR != 0
    }
}

numbers! {
    /// A kind of information about an export ("Option reply types", `NBD_REP_INFO`).
    InfoType: u16 {
        /// Size and transmission flags.
        Export = 0,
        /// The canonical name of the export.
        Name = 1,
        /// A description for people.
        Description = 2,
        /// The block sizes.
        BlockSize = 3,
    }
}

numbers! {
    /// The command of a request ("Request types").
    Command: u16 {
        /// Read bytes.
        Read = 0,
        /// Write bytes.
        Write = 1,
        /// Disconnect. It has no reply.
        Disconnect = 2,
        /// Make all writes durable that were replied before.
        Flush = 3,
        /// Discard bytes that are not needed any more.
        Trim = 4,
        /// Prefetch bytes that will be read soon.
        Cache = 5,
        /// Make bytes read as zeroes.
        WriteZeroes = 6,
        /// Tell the status of a range, for the chosen metadata contexts.
        BlockStatus = 7,
    }
}

numbers! {
    /// The type of a chunk of a structured reply ("Structured reply types").
    ChunkType: u16 {
        /// No content. It ends the reply.
        None = 0,
        /// An offset and the data there.
        OffsetData = 1,
        /// A range that reads as zeroes.
        OffsetHole = 2,
        /// Extents with lengths of 32 bits.
        BlockStatus = 5,
        /// Extents with lengths of 64 bits.
        BlockStatusExtended = 6,
        /// An error.
        Error = 0x8001,
        /// An error and its offset.
        ErrorOffset = 0x8002,
    }
}

impl ChunkType {
    /// Whether it is an error. That is known of numbers without a name too.
    #[must_use]
    pub fn is_error(self) -> bool {
        u16::from(self) & 0x8000 != 0
    }
}

numbers! {
    /// Why a request failed ("Error values"). The numbers are those of Linux.
    ErrorNumber: u32 {
        /// It succeeded.
        None = 0,
        /// Not permitted, for example because the export is read-only.
        NotPermitted = 1,
        /// The storage failed.
        Io = 5,
        /// Out of memory.
        NoMemory = 12,
        /// The request is invalid.
        Invalid = 22,
        /// No space left.
        NoSpace = 28,
        /// The reply would be too long for one chunk.
        Overflow = 75,
        /// Not supported, perhaps only for this range.
        NotSupported = 95,
        /// The server shuts down.
        Shutdown = 108,
    }
}

flags! {
    /// What an export supports ("Transmission flags").
    TransmissionFlags: u16 {
        /// Always set.
        HAS_FLAGS = 0,
        /// The export is read-only.
        READ_ONLY = 1,
        /// FLUSH is supported.
        SEND_FLUSH = 2,
        /// [`CommandFlags::FUA`] is supported.
        SEND_FUA = 3,
        /// Random access is slow.
        ROTATIONAL = 4,
        /// TRIM is supported.
        SEND_TRIM = 5,
        /// WRITE_ZEROES and [`CommandFlags::NO_HOLE`] are supported.
        SEND_WRITE_ZEROES = 6,
        /// [`CommandFlags::DF`] is supported.
        SEND_DF = 7,
        /// A flush on one connection covers the writes of all connections.
        CAN_MULTI_CONN = 8,
        /// CACHE is supported.
        SEND_CACHE = 10,
        /// [`CommandFlags::FAST_ZERO`] is supported.
        SEND_FAST_ZERO = 11,
        /// [`CommandFlags::PAYLOAD_LEN`] is supported with BLOCK_STATUS.
        BLOCK_STATUS_PAYLOAD = 12,
    }
}

flags! {
    /// Flags of a request ("Command flags").
    CommandFlags: u16 {
        /// The change has to be on stable storage before the reply.
        FUA = 0,
        /// WRITE_ZEROES keeps the space allocated.
        NO_HOLE = 1,
        /// The reply to READ must not be fragmented.
        DF = 2,
        /// The reply to BLOCK_STATUS has only one extent.
        REQ_ONE = 3,
        /// WRITE_ZEROES fails at once if it is not faster than writing.
        FAST_ZERO = 4,
        /// With extended headers, the length is that of the payload.
        PAYLOAD_LEN = 5,
    }
}

flags! {
    /// Flags of a chunk of a structured reply.
    ChunkFlags: u16 {
        /// It is the last chunk.
        DONE = 0,
    }
}

flags! {
    /// The status of an extent in `base:allocation`.
    ExtentFlags: u64 {
        /// Nothing is allocated.
        HOLE = 0,
        /// It reads as zeroes.
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
    fn errors_have_the_highest_bit_set() {
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
