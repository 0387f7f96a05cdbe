//! Every option and command of the protocol, in all three forms of replies.

use luksmith_formats::nbd::{
    BlockSizes, ChunkType, ClientFlags, Command, CommandFlags, ErrorNumber, ExportEntry, Info,
    InfoRequest, InfoType, MetaContext, MetaContextRequest, OptionReply, OptionType, Request,
    TransmissionFlags,
};

use crate::served::{Folder, SIZE, Served, content};
use crate::wire::{Client, Handshake, is_ended};

/// Two exports: `disk.img` as "", and `other.img` read-only as "other", with a description.
fn two_exports() -> Served {
    let folder = Folder::with_volume();
    folder.make_volume("other.img", &[]);
    folder.serve(&[
        "--description",
        "for writing",
        "--export",
        "other=other.img,key=file:key,read-only,description=for reading",
    ])
}

fn info_request(name: &str, wanted: &[InfoType]) -> Vec<u8> {
    InfoRequest {
        name: name.into(),
        wanted: wanted.to_vec(),
    }
    .to_bytes()
}

fn contexts(export: &str, queries: &[&str]) -> Vec<u8> {
    MetaContextRequest {
        export: export.into(),
        queries: queries.iter().map(|&query| query.into()).collect(),
    }
    .to_bytes()
}

#[test]
fn options_are_answered() {
    let served = two_exports();
    let mut handshake = Handshake::greeted(served.connect());

    let list = handshake.acked(OptionType::List, &[]);
    let names: Vec<_> = list
        .iter()
        .map(|(_, data)| ExportEntry::parse(data).unwrap().name)
        .collect();
    assert_eq!(names, ["", "other"]);
    assert_eq!(
        handshake.ask(OptionType::List, b"x").1,
        OptionReply::ErrInvalid
    );

    let all = [
        InfoType::Name,
        InfoType::Description,
        InfoType::BlockSize,
        InfoType::from(77),
    ];
    let infos = handshake.acked(OptionType::Info, &info_request("other", &all));
    let infos: Vec<_> = infos
        .iter()
        .map(|(_, data)| Info::parse(data).unwrap())
        .collect();
    let flags = TransmissionFlags::HAS_FLAGS
        | TransmissionFlags::READ_ONLY
        | TransmissionFlags::SEND_FLUSH
        | TransmissionFlags::SEND_FUA
        | TransmissionFlags::CAN_MULTI_CONN
        | TransmissionFlags::SEND_CACHE;
    assert_eq!(
        infos,
        [
            Info::Export { size: SIZE, flags },
            Info::Name("other".into()),
            Info::Description("for reading".into()),
            Info::BlockSize(BlockSizes {
                minimum: 1,
                preferred: 4096,
                maximum: 64 << 20
            }),
        ]
    );
    assert_eq!(
        handshake
            .ask(OptionType::Info, &info_request("none", &[]))
            .1,
        OptionReply::ErrUnknown
    );
    assert_eq!(
        handshake.ask(OptionType::Go, &info_request("none", &[])).1,
        OptionReply::ErrUnknown
    );
    assert_eq!(
        handshake.ask(OptionType::Go, b"\0\0\0\x09x").1,
        OptionReply::ErrInvalid
    );
    assert_eq!(
        handshake.ask(OptionType::StartTls, &[]).1,
        OptionReply::ErrPolicy
    );
    assert_eq!(
        handshake.ask(OptionType::from(4), &[]).1,
        OptionReply::ErrUnsupported
    );
    assert_eq!(
        handshake.ask(OptionType::from(99), b"whatever").1,
        OptionReply::ErrUnsupported
    );

    // Contexts need structured replies, and belong to one export.
    let set = OptionType::SetMetaContext;
    let allocation = contexts("", &["qemu:dirty", "base:allocation"]);
    assert_eq!(handshake.ask(set, &allocation).1, OptionReply::ErrInvalid);
    handshake.acked(OptionType::StructuredReply, &[]);
    assert_eq!(
        handshake.ask(OptionType::StructuredReply, &[]).1,
        OptionReply::ErrInvalid
    );
    assert_eq!(
        handshake.ask(OptionType::StructuredReply, b"x").1,
        OptionReply::ErrInvalid
    );
    for queries in [&[][..], &["base:"], &["base:allocation", "x:"]] {
        let listed = handshake.acked(OptionType::ListMetaContext, &contexts("", queries));
        let listed: Vec<_> = listed
            .iter()
            .map(|(_, data)| MetaContext::parse(data).unwrap().name)
            .collect();
        assert_eq!(listed, ["base:allocation"]);
    }
    assert!(
        handshake
            .acked(OptionType::ListMetaContext, &contexts("", &["qemu:"]))
            .is_empty()
    );
    assert!(handshake.acked(set, &contexts("", &["base:"])).is_empty());
    assert_eq!(
        handshake
            .ask(set, &contexts("none", &["base:allocation"]))
            .1,
        OptionReply::ErrUnknown
    );
    assert_eq!(handshake.acked(set, &allocation).len(), 1);

    handshake.acked(OptionType::ExtendedHeaders, &[]);
    assert_eq!(
        handshake.ask(OptionType::ExtendedHeaders, &[]).1,
        OptionReply::ErrInvalid
    );
    assert_eq!(
        handshake.ask(OptionType::StructuredReply, &[]).1,
        OptionReply::ErrExtendedHeadersRequired
    );

    assert!(handshake.acked(OptionType::Abort, &[]).is_empty());
    assert!(is_ended(&mut handshake.0));
    served.stop();
}

#[test]
fn export_name_has_a_reply_without_header_or_none() {
    let served = two_exports();
    let mut client = Handshake::greeted(served.connect())
        .export_name("other")
        .unwrap();
    assert_eq!(client.size, SIZE);
    assert!(client.flags.contains(TransmissionFlags::READ_ONLY));
    assert!(client.read(0, 512) == content()[..512]);

    // 124 zeroes follow unless the client has declined them.
    let flags = ClientFlags::FIXED_NEWSTYLE;
    let handshake = Handshake::greeted_with(served.connect(), flags).unwrap();
    let mut client = handshake.export_name("").unwrap();
    let mut zeroes = [1; 124];
    std::io::Read::read_exact(&mut client.stream, &mut zeroes).unwrap();
    assert_eq!(zeroes, [0; 124]);
    assert!(client.read(512, 512) == content()[512..1024]);

    let refused = Handshake::greeted(served.connect()).export_name("none");
    assert!(refused.is_err());
    // Unknown flags end the connection.
    let mut strange = Handshake::greeted_with(served.connect(), ClientFlags::from(5)).unwrap();
    assert!(is_ended(&mut strange.0));
    served.stop();
}

/// The form of replies.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    Simple,
    Structured,
    Extended,
}

fn client(served: &Served, form: Form) -> Client {
    let mut handshake = Handshake::greeted(served.connect());
    match form {
        Form::Simple => {}
        Form::Structured => drop(handshake.acked(OptionType::StructuredReply, &[])),
        Form::Extended => drop(handshake.acked(OptionType::ExtendedHeaders, &[])),
    }
    if form != Form::Simple {
        handshake.acked(
            OptionType::SetMetaContext,
            &contexts("", &["base:allocation"]),
        );
    }
    let mut client = handshake.go("");
    client.extended = form == Form::Extended;
    client
}

#[test]
fn commands_work_in_every_form() {
    let folder = Folder::with_volume();
    let served = folder.serve(&["--discard", "zeroes"]);
    let mut expected = content();
    for form in [Form::Simple, Form::Structured, Form::Extended] {
        let mut client = client(&served, form);
        let none = CommandFlags::NONE;
        assert_eq!(
            client.flags.contains(TransmissionFlags::SEND_DF),
            form != Form::Simple
        );

        // The whole volume, which is more than one piece, and unaligned ranges.
        for (offset, len) in [
            (0, SIZE),
            (1, SIZE - 2),
            (511, 2),
            (4095, 4098),
            (SIZE - 1, 1),
        ] {
            let range = usize::try_from(offset).unwrap()..usize::try_from(offset + len).unwrap();
            assert!(client.read(offset, len) == expected[range.clone()]);
            if form != Form::Simple {
                let whole = client.ask(Command::Read, CommandFlags::DF, offset, len, &[]);
                assert_eq!(whole.parts, [ChunkType::OffsetData]);
                assert!(whole.data == expected[range]);
            }
        }
        let payload = if form == Form::Extended {
            CommandFlags::PAYLOAD_LEN
        } else {
            none
        };
        let bytes: Vec<u8> = (0..700_001u32)
            .map(|n| n.to_le_bytes()[1] ^ form as u8)
            .collect();
        for (offset, flags) in [(4097, payload), (1 << 20, payload | CommandFlags::FUA)] {
            assert_eq!(client.write_with(flags, offset, &bytes), ErrorNumber::None);
            let start = usize::try_from(offset).unwrap();
            expected[start..start + bytes.len()].copy_from_slice(&bytes);
        }
        for (command, flags, offset, len) in [
            (Command::WriteZeroes, none, 9_000, 70_000),
            (
                Command::WriteZeroes,
                CommandFlags::NO_HOLE | CommandFlags::FUA,
                100,
                1,
            ),
            (Command::Trim, none, 512, 5_000),
            (Command::Trim, CommandFlags::FUA, 2 << 20, 5 << 20),
        ] {
            assert_eq!(
                client.ask(command, flags, offset, len, &[]).error,
                ErrorNumber::None
            );
            let start = usize::try_from(offset).unwrap();
            expected[start..start + usize::try_from(len).unwrap()].fill(0);
        }
        assert_eq!(client.flush(), ErrorNumber::None);
        assert_eq!(
            client.ask(Command::Cache, none, 0, SIZE, &[]).error,
            ErrorNumber::None
        );
        assert_eq!(client.read(5, 0).len(), 0);
        assert_eq!(client.write(5, &[]), ErrorNumber::None);

        let status = client.ask(Command::BlockStatus, CommandFlags::REQ_ONE, 7, 4096, &[]);
        if form == Form::Simple {
            assert_eq!(status.error, ErrorNumber::Invalid);
        } else {
            assert_eq!(
                (status.error, status.extents),
                (ErrorNumber::None, vec![(4096, 0)])
            );
        }
        assert!(client.read(0, SIZE) == expected);
    }
    served.stop();
    assert!(folder.decrypted() == expected);
}

#[test]
fn an_invalid_request_is_refused_and_the_next_one_is_served() {
    let folder = Folder::with_volume();
    let served = folder.serve(&[]);
    let none = CommandFlags::NONE;
    for form in [Form::Simple, Form::Structured, Form::Extended] {
        let mut client = client(&served, form);
        for (command, flags, offset, len, error) in [
            (Command::Read, none, SIZE, 1, ErrorNumber::Invalid),
            (Command::Read, none, u64::MAX, 2, ErrorNumber::Invalid),
            (
                Command::Read,
                none,
                0,
                (64 << 20) + 1,
                ErrorNumber::Overflow,
            ),
            (
                Command::Read,
                CommandFlags::REQ_ONE,
                0,
                512,
                ErrorNumber::Invalid,
            ),
            (
                Command::Read,
                CommandFlags::from(1 << 9),
                0,
                512,
                ErrorNumber::Invalid,
            ),
            (Command::Trim, none, 0, 512, ErrorNumber::Invalid),
            (
                Command::WriteZeroes,
                none,
                SIZE - 1,
                2,
                ErrorNumber::NoSpace,
            ),
            (
                Command::WriteZeroes,
                none,
                u64::MAX,
                2,
                ErrorNumber::NoSpace,
            ),
            (
                Command::WriteZeroes,
                CommandFlags::FAST_ZERO,
                0,
                512,
                ErrorNumber::NotSupported,
            ),
            (Command::Cache, none, SIZE, 1, ErrorNumber::Invalid),
            (Command::BlockStatus, none, SIZE, 1, ErrorNumber::Invalid),
            (Command::BlockStatus, none, 0, 0, ErrorNumber::Invalid),
            (Command::from(8), none, 0, 0, ErrorNumber::Invalid),
            (Command::from(0xffff), none, 0, 512, ErrorNumber::Invalid),
        ] {
            assert_eq!(
                client.ask(command, flags, offset, len, &[]).error,
                error,
                "{command:?} {offset} {len}"
            );
        }
        // The payload of a refused request is skipped.
        let bytes = vec![7; 300_000];
        assert_eq!(client.write(SIZE - 299_999, &bytes), ErrorNumber::NoSpace);
        assert_eq!(
            client.write_with(CommandFlags::NO_HOLE, 0, &bytes),
            ErrorNumber::Invalid
        );
        let long = vec![7; (64 << 20) + 1];
        assert_eq!(client.write(0, &long), ErrorNumber::Invalid);
        if form == Form::Extended {
            // A payload for a command that has none.
            let flags = CommandFlags::PAYLOAD_LEN;
            let answer = client.ask(Command::Read, flags, 0, bytes.len() as u64, &bytes);
            assert_eq!(answer.error, ErrorNumber::Invalid);
        }
        assert!(client.read(0, SIZE) == content());
    }
    served.stop();
    assert!(folder.decrypted() == content());
}

#[test]
fn a_read_only_export_is_not_written() {
    let served = two_exports();
    let mut client = Handshake::greeted(served.connect()).go("other");
    let refused = ErrorNumber::NotPermitted;
    assert_eq!(client.write(0, &[1; 512]), refused);
    let zeroes = client.ask(Command::WriteZeroes, CommandFlags::NONE, 0, 512, &[]);
    assert_eq!(zeroes.error, refused);
    assert_eq!(client.flush(), ErrorNumber::None);
    assert!(client.read(0, 4096) == content()[..4096]);
    // The whole server is read-only, so other processes can read `disk.img` at the same time.
    served.stop();
    let folder = Folder::with_volume();
    let first = folder.serve(&["--read-only"]);
    let second = folder.serve_with(
        &["disk.img", "--socket", "t.sock", "--key-file", "key"],
        &["-r"],
    );
    assert_eq!(first.client().write(0, &[1; 512]), refused);
    second.stop();
    first.stop();
}

#[test]
fn discards_follow_the_policy() {
    let allocated = |folder: &Folder| {
        std::os::unix::fs::MetadataExt::blocks(&folder.path("disk.img").metadata().unwrap())
    };
    for (policy, advertised, holes) in [
        ("deny", false, false),
        ("zeroes", true, false),
        ("pass", true, true),
    ] {
        let folder = Folder::with_volume();
        let served = folder.serve(&["--discard", policy]);
        let before = allocated(&folder);
        let mut client = served.client();
        assert_eq!(
            client.flags.contains(TransmissionFlags::SEND_TRIM),
            advertised
        );
        let trimmed = client.ask(Command::Trim, CommandFlags::FUA, 100, 4 << 20, &[]);
        assert_eq!(trimmed.error == ErrorNumber::None, advertised);
        // Zeroes are written with every policy.
        let zeroed = client.ask(
            Command::WriteZeroes,
            CommandFlags::FUA,
            6 << 20,
            1 << 20,
            &[],
        );
        assert_eq!(zeroed.error, ErrorNumber::None);
        assert!(client.read(6 << 20, 1 << 20).iter().all(|&byte| byte == 0));
        let trimmed = client.read(0, 4 << 20);
        assert!(trimmed[..100] == content()[..100]);
        assert_eq!(trimmed[100..] == content()[100..4 << 20], policy == "deny");
        assert_eq!(
            trimmed[100..].iter().all(|&byte| byte == 0),
            policy == "zeroes"
        );
        served.stop();
        assert_eq!(allocated(&folder) < before, holes, "{policy}");
    }
}

#[test]
fn every_one_of_many_requests_gets_its_reply() {
    let folder = Folder::with_volume();
    let served = folder.serve(&[]);
    let mut client = served.client();
    let requests: Vec<_> = (0..300u64)
        .map(|n| Request {
            flags: CommandFlags::NONE,
            command: Command::Read,
            cookie: n,
            offset: (n * 7919) % (SIZE - 9000),
            len: 1 + (n * 37) % 9000,
        })
        .collect();
    // All are sent before any reply is read.
    let mut sent = client.stream.try_clone().unwrap();
    let bytes: Vec<u8> = requests
        .iter()
        .flat_map(|request| request.to_compact())
        .collect();
    let sender = std::thread::spawn(move || std::io::Write::write_all(&mut sent, &bytes).unwrap());
    let mut answered = vec![];
    for _ in &requests {
        // Replies come in any order: on a busy machine the storage may look slow, and requests go
        // to several threads.
        let (cookie, answer) = client.answer_to_any(&requests).unwrap();
        let request = &requests[usize::try_from(cookie).unwrap()];
        let start = usize::try_from(request.offset).unwrap();
        assert!(answer.data == content()[start..start + usize::try_from(request.len).unwrap()]);
        answered.push(cookie);
    }
    answered.sort_unstable();
    assert!(answered.into_iter().eq(0..300));
    sender.join().unwrap();
    served.stop();
}

#[test]
fn the_range_of_a_flush_is_ignored() {
    let folder = Folder::with_volume();
    let served = folder.serve(&[]);
    let mut client = served.client();
    let answer = client.ask(Command::Flush, CommandFlags::NONE, u64::MAX, 1, &[]);
    assert_ne!(answer.error, ErrorNumber::Io);
    // The connection stays usable.
    assert!(client.read(0, 512) == content()[..512]);
    served.stop();
}
