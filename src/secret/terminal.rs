//! Asks for a passphrase on the terminal, with the echo turned off until the answer is complete or
//! the question fails.
//!
//! The terminal delivers each key separately and generates no signals meanwhile. So Ctrl-C is read
//! as a key, and the whole line is never in a buffer of the kernel.

use std::os::fd::{AsFd, BorrowedFd};

use luksmith_formats::text::is_control;
use rustix::fs::{Mode, OFlags};
use rustix::io;
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, SpecialCodes, Termios, tcgetattr, tcsetattr,
};
use subtle::ConstantTimeEq;

use super::error::SecretError;
use super::input::Input;
use super::locked::LockedBytes;
use super::purpose::{Purpose, Wanted};
use crate::Interrupt;

/// The longest passphrase that can be typed, as for cryptsetup.
pub const MAX_TYPED: usize = 512;

/// Asks on the controlling terminal.
pub(super) fn ask(purpose: Purpose<'_>) -> Result<LockedBytes, SecretError> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let tty = rustix::fs::open("/dev/tty", flags, Mode::empty())
        .map_err(|errno| SecretError::NoTerminal(errno.into()))?;
    ask_on(tty.as_fd(), purpose)
}

fn ask_on(tty: BorrowedFd<'_>, purpose: Purpose<'_>) -> Result<LockedBytes, SecretError> {
    let quiet = Quiet::new(tty)?;
    let label: String = purpose
        .label
        .chars()
        .map(|c| if is_control(c) { '?' } else { c })
        .collect();
    match purpose.what {
        Wanted::Unlock => {
            let question = format!("{} for {label}: ", capitalized(purpose.name));
            quiet.question(&question, purpose.interrupt)
        }
        Wanted::New => {
            let first = quiet.question(
                &format!("New {} for {label}: ", purpose.name),
                purpose.interrupt,
            )?;
            if first.is_empty() {
                return Err(SecretError::Empty);
            }
            let second = quiet.question("The same again: ", purpose.interrupt)?;
            if !bool::from(first[..].ct_eq(&second[..])) {
                return Err(SecretError::Mismatch);
            }
            Ok(first)
        }
    }
}

fn capitalized(name: &str) -> String {
    let mut letters = name.chars();
    let first = letters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

/// A terminal with the echo turned off, until this is dropped.
struct Quiet<'a> {
    tty: BorrowedFd<'a>,
    before: Termios,
}

impl<'a> Quiet<'a> {
    fn new(tty: BorrowedFd<'a>) -> Result<Self, SecretError> {
        let refused = |errno: io::Errno| SecretError::NoTerminal(errno.into());
        let before = tcgetattr(tty).map_err(refused)?;
        let mut modes = before.clone();
        modes.local_modes -= LocalModes::ECHO
            | LocalModes::ECHONL
            | LocalModes::ICANON
            | LocalModes::ISIG
            | LocalModes::IEXTEN;
        modes.special_codes[SpecialCodeIndex::VMIN] = 1;
        modes.special_codes[SpecialCodeIndex::VTIME] = 0;
        let quiet = Self { tty, before };
        tcsetattr(tty, OptionalActions::Flush, &modes).map_err(refused)?;
        Ok(quiet)
    }

    fn question(&self, text: &str, interrupt: &Interrupt) -> Result<LockedBytes, SecretError> {
        self.show(text)?;
        let answer = self.answer(interrupt);
        self.show("\n")?;
        answer
    }

    fn answer(&self, interrupt: &Interrupt) -> Result<LockedBytes, SecretError> {
        let input = Input {
            fd: self.tty,
            from: TERMINAL,
            interrupt,
        };
        let mut key = LockedBytes::new(1)?;
        let mut line = Line::new()?;
        loop {
            if input.some(&mut key)? == 0 {
                return Err(input.nothing());
            }
            match line.press(key[0], &self.before.special_codes)? {
                Pressed::More => {}
                Pressed::Done => return line.finish(),
            }
        }
    }

    fn show(&self, text: &str) -> Result<(), SecretError> {
        let mut left = text.as_bytes();
        while !left.is_empty() {
            match io::write(self.tty, left) {
                Ok(n) => left = &left[n..],
                Err(io::Errno::INTR) => {}
                Err(errno) => {
                    return Err(SecretError::Io {
                        from: TERMINAL.to_owned(),
                        source: errno.into(),
                    });
                }
            }
        }
        Ok(())
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        if let Err(errno) = tcsetattr(self.tty, OptionalActions::Flush, &self.before) {
            tracing::warn!(%errno, "the terminal's echo could not be restored");
        }
    }
}

const TERMINAL: &str = "the terminal";

/// A line that is being typed, with the editing keys of the terminal's settings.
struct Line {
    typed: LockedBytes,
    len: usize,
}

enum Pressed {
    More,
    Done,
}

impl Line {
    fn new() -> Result<Self, SecretError> {
        let typed = LockedBytes::new(MAX_TYPED)?;
        Ok(Self { typed, len: 0 })
    }

    fn press(&mut self, key: u8, codes: &SpecialCodes) -> Result<Pressed, SecretError> {
        // Code 0 means that the terminal has no such key.
        let is = |index| key != 0 && codes[index] == key;
        if key == b'\n' || key == b'\r' {
            return Ok(Pressed::Done);
        }
        if is(SpecialCodeIndex::VINTR) || is(SpecialCodeIndex::VQUIT) {
            return Err(SecretError::Interrupted);
        }
        if is(SpecialCodeIndex::VEOF) {
            return match self.len {
                0 => Err(SecretError::Nothing {
                    from: TERMINAL.to_owned(),
                }),
                _ => Ok(Pressed::Done),
            };
        }
        if is(SpecialCodeIndex::VERASE) || key == 0x08 || key == 0x7f {
            self.rub_out();
        } else if is(SpecialCodeIndex::VKILL) {
            self.typed.fill(0);
            self.len = 0;
        } else if !is(SpecialCodeIndex::VSUSP) {
            let free = self.typed.get_mut(self.len).ok_or(SecretError::TooLong {
                from: TERMINAL.to_owned(),
                limit: MAX_TYPED,
            })?;
            *free = key;
            self.len += 1;
        }
        Ok(Pressed::More)
    }

    /// Removes the last character with all its bytes.
    fn rub_out(&mut self) {
        while let Some(last) = self.len.checked_sub(1) {
            let continuation = self.typed[last] & 0xc0 == 0x80;
            self.typed[last] = 0;
            self.len = last;
            if !continuation {
                break;
            }
        }
    }

    fn finish(self) -> Result<LockedBytes, SecretError> {
        Ok(LockedBytes::copy_from(&self.typed[..self.len])?)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};

    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    use super::*;

    /// A pseudo-terminal: the person's end and the program's.
    fn terminal() -> (File, File) {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
        let person = openpt(flags).unwrap();
        grantpt(&person).unwrap();
        unlockpt(&person).unwrap();
        let name = ptsname(&person, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY;
        let ours = rustix::fs::open(name, flags, Mode::empty()).unwrap();
        (person.into(), ours.into())
    }

    /// Answers each question when it is asked, and returns what was shown and the result.
    fn asked(what: Wanted, answers: &[&[u8]]) -> (String, Result<Vec<u8>, SecretError>) {
        let (mut person, ours) = terminal();
        let before = tcgetattr(&ours).unwrap();
        let interrupt = Interrupt::new();
        let (shown, answer) = std::thread::scope(|scope| {
            let asking = scope.spawn(|| {
                let purpose = Purpose {
                    what,
                    name: "passphrase",
                    label: "vm\x1b.img",
                    volume: None,
                    interrupt: &interrupt,
                };
                ask_on(ours.as_fd(), purpose).map(|bytes| bytes.to_vec())
            });
            let mut shown = String::new();
            for answer in answers {
                while !shown.ends_with(": ") {
                    let mut some = [0; 100];
                    let n = person.read(&mut some).unwrap();
                    shown.push_str(core::str::from_utf8(&some[..n]).unwrap());
                }
                shown.push('|');
                person.write_all(answer).unwrap();
            }
            (shown, asking.join().unwrap())
        });
        let after = tcgetattr(&ours).unwrap();
        assert_eq!(
            after.local_modes, before.local_modes,
            "the terminal is as it was"
        );
        (shown, answer)
    }

    #[test]
    fn an_answer_is_not_echoed_and_can_be_edited() {
        let cases: [(&[u8], &[u8]); 6] = [
            (b"secret\n", b"secret"),
            (b"secret\r", b"secret"),
            (b"sex\x7fcret\n", b"secret"),
            ("se\u{20ac}\x7fcret\n".as_bytes(), b"secret"),
            (b"wrong\x15secret\n", b"secret"),
            (b"\x7f\x7f\n", b""),
        ];
        for (typed, expected) in cases {
            let (shown, answer) = asked(Wanted::Unlock, &[typed]);
            assert_eq!(answer.unwrap(), expected);
            assert_eq!(shown, "Passphrase for vm?.img: |");
        }
    }

    #[test]
    fn a_new_passphrase_is_asked_for_twice() {
        let (shown, answer) = asked(Wanted::New, &[b"secret\n", b"secret\n"]);
        assert_eq!(answer.unwrap(), b"secret");
        assert_eq!(shown, "New passphrase for vm?.img: |\r\nThe same again: |");
        let (_, answer) = asked(Wanted::New, &[b"secret\n", b"Secret\n"]);
        assert!(matches!(answer, Err(SecretError::Mismatch)));
        let (_, answer) = asked(Wanted::New, &[b"\n"]);
        assert!(matches!(answer, Err(SecretError::Empty)));
    }

    #[test]
    fn control_c_is_an_interrupt_and_the_terminal_is_restored() {
        let (_, answer) = asked(Wanted::Unlock, &[b"secr\x03"]);
        assert!(matches!(answer, Err(SecretError::Interrupted)));
        let (_, answer) = asked(Wanted::Unlock, &[b"\x04"]);
        assert!(matches!(answer, Err(SecretError::Nothing { .. })));
    }

    #[test]
    fn the_length_of_a_typed_passphrase_is_bounded() {
        let fits = [vec![b'x'; MAX_TYPED], b"\n".to_vec()].concat();
        assert_eq!(asked(Wanted::Unlock, &[&fits]).1.unwrap().len(), MAX_TYPED);
        let over = [vec![b'x'; MAX_TYPED + 1], b"\n".to_vec()].concat();
        let (_, answer) = asked(Wanted::Unlock, &[&over]);
        assert!(matches!(answer, Err(SecretError::TooLong { .. })));
    }

    #[test]
    fn a_file_is_no_terminal() {
        let file = tempfile::tempfile().unwrap();
        let purpose = Purpose {
            what: Wanted::Unlock,
            name: "passphrase",
            label: "a volume",
            volume: None,
            interrupt: &Interrupt::new(),
        };
        assert!(matches!(
            ask_on(file.as_fd(), purpose),
            Err(SecretError::NoTerminal(_))
        ));
    }
}
