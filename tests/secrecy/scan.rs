//! Searches the memory of this process for 16-byte pieces of a secret.
//!
//! A [`Needle`] keeps the secret masked, so that the search does not find the needle itself. The
//! buffer of the search is not searched. Tests make secrets with [`fresh`], which leaves no other
//! copy.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError};

use luksmith::secret::LockedBytes;
use luksmith::xts::Kernel;

use support::secret_search::PIECE;

const MASK: u8 = 0xa5;
const WINDOW: usize = 1 << 20;

/// The environment variable that names the kernel of AES-XTS for the tests of a child process.
pub(crate) const KERNEL: &str = "LUKSMITH_TEST_XTS";

/// `len` random bytes, of which no other copy exists.
pub(crate) fn fresh(len: usize) -> LockedBytes {
    // Every test begins here.
    if let Ok(name) = std::env::var(KERNEL) {
        let kernel: Kernel = name.parse().unwrap();
        kernel.set_default().unwrap();
    }
    let mut bytes = LockedBytes::new(len).unwrap();
    luksmith::secret::random(&mut bytes).unwrap();
    bytes
}

/// The secret that is searched for, masked.
pub(crate) struct Needle {
    masked: Vec<u8>,
}

/// A piece of the secret that was found.
#[derive(Debug)]
#[allow(dead_code)] // read by Debug, in the message of a failed assertion
pub(crate) struct Hit {
    pub(crate) address: u64,
    /// The offset of the piece in the secret.
    pub(crate) at: usize,
    /// The line of `/proc/self/maps`.
    pub(crate) region: String,
}

impl Needle {
    pub(crate) fn of(secret: &[u8]) -> Self {
        assert!(secret.len() >= PIECE, "too short to be told from chance");
        assert!(secret.len() <= 512, "so many pieces make the search slow");
        let masked = secret
            .iter()
            .map(|byte| std::hint::black_box(byte ^ MASK))
            .collect();
        Self { masked }
    }

    /// Finds every place in the memory of the process that holds a piece of the secret.
    pub(crate) fn find(&self) -> Vec<Hit> {
        // One search at a time, since another search has a copy of the memory in its buffer.
        static SEARCHING: Mutex<()> = Mutex::new(());
        let _alone = SEARCHING.lock().unwrap_or_else(PoisonError::into_inner);

        let first = self.first_pairs();
        let memory = File::open("/proc/self/mem").unwrap();
        let mut window = vec![0u8; WINDOW];
        let own = {
            let start = window.as_ptr() as u64;
            start..start + WINDOW as u64
        };
        let mut hits = Vec::new();
        for (range, region) in writable() {
            for part in without(range, &own) {
                self.search(&memory, part, &region, &first, &mut window, &mut hits);
            }
        }
        window.fill(0);
        std::hint::black_box(&window);
        hits
    }

    pub(crate) fn assert_gone(&self, what: &str) {
        let hits = self.find();
        assert!(hits.is_empty(), "{what} is still in memory: {hits:#x?}");
    }

    fn search(
        &self,
        memory: &File,
        range: Range<u64>,
        region: &str,
        first: &[bool],
        window: &mut [u8],
        hits: &mut Vec<Hit>,
    ) {
        let mut start = range.start;
        while start < range.end {
            let len = usize::try_from(range.end - start)
                .unwrap()
                .min(window.len());
            // Some pages (device mappings, [vvar]) cannot be read. They contain no data of this
            // program.
            let Ok(n) = memory.read_at(&mut window[..len], start) else {
                return;
            };
            if n < PIECE {
                return;
            }
            self.search_window(&window[..n], start, region, first, hits);
            // The next window overlaps this one, so that a piece across its end is found.
            let step = if n == len && start + n as u64 == range.end {
                n
            } else {
                n - (PIECE - 1)
            };
            start += step as u64;
        }
    }

    /// Searches one window. Most memory of a process is zeros, which are skipped at the speed of
    /// memcmp.
    fn search_window(
        &self,
        window: &[u8],
        start: u64,
        region: &str,
        first: &[bool],
        hits: &mut Vec<Hit>,
    ) {
        const STRETCH: usize = 1024;
        let zeros = self.zeros();
        let last = window.len() - PIECE;
        let mut at = 0;
        while at <= last {
            if window.get(at..at + STRETCH) == Some(&[0; STRETCH]) {
                // A piece may begin with the last of these zeros, but with no more than it has.
                at += STRETCH - zeros;
                continue;
            }
            let end = (at + STRETCH - 1).min(last + 1);
            while at < end {
                let pair = usize::from(window[at]) << 8 | usize::from(window[at + 1]);
                if first[pair]
                    && let Some(piece) = self.piece(&window[at..at + PIECE])
                {
                    hits.push(Hit {
                        address: start + at as u64,
                        at: piece,
                        region: region.to_owned(),
                    });
                }
                at += 1;
            }
        }
    }

    /// The piece of the secret that these bytes are, if they are one.
    fn piece(&self, bytes: &[u8]) -> Option<usize> {
        self.masked.windows(PIECE).position(|piece| {
            piece
                .iter()
                .zip(bytes)
                .all(|(masked, byte)| masked ^ MASK == *byte)
        })
    }

    /// The longest row of zeros in the secret.
    fn zeros(&self) -> usize {
        let rows = self.masked.split(|byte| byte ^ MASK != 0);
        rows.map(<[u8]>::len).max().unwrap_or(0)
    }

    /// For each pair of bytes, whether some piece begins with it.
    fn first_pairs(&self) -> Vec<bool> {
        let mut pairs = vec![false; 1 << 16];
        for piece in self.masked.windows(PIECE) {
            let (a, b) = (piece[0] ^ MASK, piece[1] ^ MASK);
            pairs[usize::from(a) << 8 | usize::from(b)] = true;
        }
        pairs
    }
}

/// The mappings that this process can write to, with their lines. A copy can be only in these.
fn writable() -> Vec<(Range<u64>, String)> {
    BufReader::new(File::open("/proc/self/maps").unwrap())
        .lines()
        .map(Result::unwrap)
        .filter(|line| {
            line.split_whitespace()
                .nth(1)
                .is_some_and(|mode| mode.starts_with("rw"))
        })
        .map(|line| {
            let (start, end) = line
                .split_whitespace()
                .next()
                .unwrap()
                .split_once('-')
                .unwrap();
            let address = |text| u64::from_str_radix(text, 16).unwrap();
            (address(start)..address(end), line)
        })
        .collect()
}

fn without(range: Range<u64>, hole: &Range<u64>) -> [Range<u64>; 2] {
    [
        range.start..range.end.min(hole.start.max(range.start)),
        range.start.max(hole.end.min(range.end))..range.end,
    ]
}

#[test]
fn the_search_finds_a_key_that_is_there() {
    let key = fresh(64);
    let needle = Needle::of(&key);
    let hits = needle.find();
    let address = key.as_ptr() as u64;
    assert_eq!(hits.len(), 64 - PIECE + 1, "{hits:#x?}");
    assert_eq!(hits[0].address, address);
    assert_eq!(hits[0].at, 0);
    drop(key);
    needle.assert_gone("a dropped key");
}

#[test]
fn the_search_finds_a_piece_on_the_heap_and_on_the_stack() {
    let key = fresh(64);
    let needle = Needle::of(&key);

    let on_heap = key[20..36].to_vec();
    let on_stack: [u8; PIECE] = key[40..56].try_into().unwrap();
    std::hint::black_box((&on_heap, &on_stack));
    drop(key);
    let found: Vec<(u64, usize)> = needle
        .find()
        .iter()
        .map(|hit| (hit.address, hit.at))
        .collect();
    assert!(found.contains(&(on_heap.as_ptr() as u64, 20)));
    assert!(found.contains(&(on_stack.as_ptr() as u64, 40)));
}

#[test]
fn the_search_finds_a_piece_that_begins_with_zeros() {
    for zeros in 0..4 {
        let mut key = fresh(64);
        key[..8].fill(0x55);
        key[..zeros].fill(0);
        let needle = Needle::of(&key);
        let mut block = vec![0u8; 1 << 16];
        block[5000..][..PIECE].copy_from_slice(&key[..PIECE]);
        let address = block.as_ptr() as u64 + 5000;
        drop(key);
        let found = needle.find().iter().any(|hit| hit.address == address);
        assert!(found, "{zeros}");
    }
}

#[test]
fn the_search_crosses_the_borders_of_its_window() {
    let mut block = vec![0u8; 3 * WINDOW];
    let key = fresh(32);
    let needle = Needle::of(&key);
    let wanted = 2 * WINDOW / (PIECE - 1);
    for copy in 0..wanted {
        block[copy * (PIECE - 1) * 2..][..PIECE].copy_from_slice(&key[..PIECE]);
        if (copy + 1) * (PIECE - 1) * 2 + PIECE > block.len() {
            break;
        }
    }
    let start = block.as_ptr() as u64;
    let inside = needle
        .find()
        .iter()
        .filter(|hit| (start..start + block.len() as u64).contains(&hit.address))
        .count();
    let there = block
        .windows(PIECE)
        .filter(|bytes| needle.piece(bytes).is_some())
        .count();
    assert_eq!(inside, there);
    assert!(there > 10_000);
}
