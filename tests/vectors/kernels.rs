//! Every kernel gives the same bytes as the portable one, in place, and from and to memory in
//! pieces.

use luksmith::xts::{Kernel, TweakForm, Tweaks, Windows, Xts};
use proptest::prelude::*;
use support::segments::Segments;

/// Extra bytes, so that data can start at any offset within the widest register.
const ALIGNMENTS: usize = 64;

/// The sector sizes of volumes, and sizes that are no multiple of a step at every width.
fn sector_size() -> impl Strategy<Value = usize> {
    let volumes = prop::sample::select(vec![512, 1024, 2048, 4096]);
    prop_oneof![volumes, (1usize..=256).prop_map(|blocks| blocks * 16)]
}

/// Numbers of sectors, around those that kernels process together.
fn sectors() -> impl Strategy<Value = usize> {
    prop_oneof![0usize..=9, 14usize..=18, 30usize..=34, 62usize..=70]
}

/// The number of the first sector. Often the run of sectors passes the end of 32 or 64 bits.
fn first() -> impl Strategy<Value = u128> {
    let end = prop::sample::select(vec![0, 1 << 32, 1 << 64, u128::MAX]);
    let near = (end, 0u128..300).prop_map(|(end, before)| end.wrapping_sub(before));
    prop_oneof![near, any::<u128>()]
}

fn form() -> impl Strategy<Value = TweakForm> {
    use TweakForm::{Plain, Plain64, Plain64Be, Whole};
    prop::sample::select(vec![Plain, Plain64, Plain64Be, Whole])
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    let size = prop::sample::select(vec![32usize, 48, 64]);
    size.prop_flat_map(|size| prop::collection::vec(any::<u8>(), size))
}

/// Lengths of the pieces of a request. Sectors straddle most of them.
fn pieces() -> impl Strategy<Value = Vec<usize>> {
    let sectors = prop::sample::select(vec![512, 1024, 4096, 8192]);
    let piece = prop_oneof![sectors, 0usize..40, 0usize..10_000];
    prop::collection::vec(piece, 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_kernel_equals_portable(
        key in key(),
        sector_size in sector_size(),
        sectors in sectors(),
        offset in 0..ALIGNMENTS,
        first in first(),
        step in prop::sample::select(vec![1u128, 2, 4, 8]),
        form in form(),
        seed in any::<u64>(),
    ) {
        let len = sectors * sector_size;
        let tweaks = Tweaks::new(first, step, form);
        let plain = noise(seed, len);
        let oracle = Xts::new(Kernel::Portable, &key).unwrap();
        let (mut encrypted, mut decrypted) = (plain.clone(), plain.clone());
        oracle.encrypt(tweaks, sector_size, &mut encrypted).unwrap();
        oracle.decrypt(tweaks, sector_size, &mut decrypted).unwrap();

        for kernel in Kernel::available() {
            let xts = Xts::new(kernel, &key).unwrap();
            let mut memory = vec![0xa5; ALIGNMENTS + len + ALIGNMENTS];
            let place = offset..offset + len;
            memory[place.clone()].copy_from_slice(&plain);
            xts.encrypt(tweaks, sector_size, &mut memory[place.clone()]).unwrap();
            prop_assert!(memory[place.clone()] == encrypted, "{kernel} encrypts otherwise");
            memory[place.clone()].copy_from_slice(&plain);
            xts.decrypt(tweaks, sector_size, &mut memory[place.clone()]).unwrap();
            prop_assert!(memory[place.clone()] == decrypted, "{kernel} decrypts otherwise");
            let around = memory[..place.start].iter().chain(&memory[place.end..]);
            prop_assert!(around.copied().all(|byte| byte == 0xa5), "{kernel} writes outside");
        }
    }

    #[test]
    fn every_kernel_does_the_same_out_of_place(
        key in key(),
        sector_size in sector_size(),
        sectors in sectors(),
        pieces in pieces(),
        first in first(),
        step in prop::sample::select(vec![1u128, 2, 4, 8]),
        form in form(),
        seed in any::<u64>(),
    ) {
        let len = sectors * sector_size;
        let tweaks = Tweaks::new(first, step, form);
        let given = noise(seed, len);
        for kernel in Kernel::available() {
            let xts = Xts::new(kernel, &key).unwrap();
            let (mut encrypted, mut decrypted) = (given.clone(), given.clone());
            xts.encrypt(tweaks, sector_size, &mut encrypted).unwrap();
            xts.decrypt(tweaks, sector_size, &mut decrypted).unwrap();

            let mut memory = Segments::of(&given, &pieces);
            let mut into = vec![0; len];
            let from = memory.windows();
            xts.encrypt_from(tweaks, sector_size, Windows::new(&from), &mut into).unwrap();
            drop(from);
            prop_assert!(into == encrypted, "{kernel} encrypts otherwise");
            prop_assert!(memory.content() == given, "{kernel} changes what it encrypts");

            let mut memory = Segments::new(len, &pieces, 0x77);
            let into = memory.windows();
            xts.decrypt_into(tweaks, sector_size, &given, Windows::new(&into)).unwrap();
            drop(into);
            prop_assert!(memory.content() == decrypted, "{kernel} decrypts otherwise");
        }
    }
}

/// Pseudorandom bytes (xorshift).
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = vec![0; len];
    for chunk in bytes.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
    }
    bytes
}
