//! Inflating compressed data of images, whole pieces at a time.
//!
//! A checksum of zstd, which QEMU does not write, is ignored: an attacker who can change the data
//! can also change the checksum.

use std::io::Read;

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// The largest window of a zstd frame, in bytes: the size of the largest cluster of qcow2.
const MOST_WINDOW: u64 = 2 << 20;

/// Fills all of `output`. As in QEMU, the data may continue after that.
pub(crate) fn deflate(data: &[u8], output: &mut [u8]) -> Option<()> {
    let mut state = Box::<DecompressorOxide>::default();
    let flags = inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
    let (status, _, made) = decompress(&mut state, data, output, 0, flags);
    let broken = status == TINFLStatus::Failed;
    (!broken && made == output.len()).then_some(())
}

/// Inflates a zlib stream (RFC 1950) with its checksum. Returns how many bytes of `output` it
/// fills, or `None` if it is damaged or does not fit. As in QEMU, the data may continue after the
/// stream.
#[cfg(feature = "vet")]
pub(crate) fn zlib(data: &[u8], output: &mut [u8]) -> Option<usize> {
    use inflate_flags::{
        TINFL_FLAG_COMPUTE_ADLER32, TINFL_FLAG_PARSE_ZLIB_HEADER,
        TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF,
    };
    let mut state = Box::<DecompressorOxide>::default();
    let flags = TINFL_FLAG_PARSE_ZLIB_HEADER
        | TINFL_FLAG_COMPUTE_ADLER32
        | TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
    let (status, _, made) = decompress(&mut state, data, output, 0, flags);
    (status == TINFLStatus::Done).then_some(made)
}

/// Fills all of `output` from complete frames.
pub(crate) fn zstd(mut data: &[u8], mut output: &mut [u8]) -> Option<()> {
    let mut decoder = FrameDecoder::new();
    decoder.set_max_window_size(MOST_WINDOW);
    while !output.is_empty() {
        decoder.init(&mut data).ok()?;
        while !decoder.is_finished() {
            // The output of a block is limited, and is read before the next block is decoded.
            let strategy = BlockDecodingStrategy::UptoBlocks(1);
            decoder.decode_blocks(&mut data, strategy).ok()?;
            let made = decoder.read(output).ok()?;
            output = &mut output[made..];
            if decoder.can_collect() > 0 {
                return None;
            }
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use miniz_oxide::deflate::compress_to_vec;
    use proptest::prelude::RngExt;
    use proptest::test_runner::{RngAlgorithm, TestRng};
    use ruzstd::encoding::{CompressionLevel, compress_to_vec as zstd_to_vec};

    use super::*;

    type Inflate = fn(&[u8], &mut [u8]) -> Option<()>;

    /// A cluster of words, and its two compressed forms.
    fn compressed(cluster: usize) -> (Vec<u8>, [(Inflate, Vec<u8>); 2]) {
        let words = (0_usize..).flat_map(|n| [b'a' + (n * n % 23).to_le_bytes()[0]; 9]);
        let plain: Vec<u8> = words.take(cluster).collect();
        let deflated = compress_to_vec(&plain, 6);
        let framed = zstd_to_vec(&plain[..], CompressionLevel::Fastest);
        (plain, [(deflate, deflated), (zstd, framed)])
    }

    #[test]
    fn one_cluster_is_inflated_and_later_bytes_are_ignored() {
        for cluster in [512, 65_536, 2 << 20] {
            let (plain, all) = compressed(cluster);
            for (inflate, mut data) in all {
                assert!(data.len() < cluster);
                data.extend([0xaa; 600]);
                let mut output = vec![0; cluster];
                assert_eq!(inflate(&data, &mut output), Some(()));
                assert!(output == plain);
            }
        }
    }

    #[test]
    fn short_data_is_an_error_and_so_is_long_zstd_data() {
        let (_, all) = compressed(65_536);
        for (inflate, data) in all {
            let mut larger = vec![0; 65_537];
            assert_eq!(inflate(&data, &mut larger), None);
            let mut output = vec![0; 65_536];
            assert_eq!(inflate(&data[..data.len() / 2], &mut output), None);
            assert_eq!(inflate(&[], &mut output), None);
        }
        let (_, [_, (inflate, data)]) = compressed(4096);
        assert_eq!(inflate(&data, &mut [0; 4095]), None);
    }

    #[test]
    #[cfg(feature = "vet")]
    fn a_stream_has_its_checksum_and_may_be_short() {
        let plain = [7; 3000];
        let good = miniz_oxide::deflate::compress_to_vec_zlib(&plain, 6);
        let mut output = [0; 4096];
        assert_eq!(zlib(&good, &mut output), Some(3000));
        assert_eq!(output[..3000], plain);
        assert_eq!(zlib(&good, &mut [0; 2999]), None);
        for at in 0..good.len() {
            let mut broken = good.clone();
            broken[at] ^= 0x10;
            assert_eq!(zlib(&broken, &mut output), None, "byte {at}");
            assert_eq!(zlib(&good[..at], &mut output), None, "{at} bytes");
        }
    }

    #[test]
    fn a_frame_with_a_larger_window_is_refused() {
        // A frame without a size, with a window of 2^(10 + exponent) bytes and one last block,
        // which repeats a byte 512 times.
        let frame = |exponent: u8| {
            let block = 512_u32 << 3 | 1 << 1 | 1;
            let [low, middle, high, _] = block.to_le_bytes();
            [
                0x28,
                0xb5,
                0x2f,
                0xfd,
                0,
                exponent << 3,
                low,
                middle,
                high,
                7,
            ]
        };
        let mut output = [0; 512];
        assert_eq!(zstd(&frame(11), &mut output), Some(()));
        assert_eq!(output, [7; 512]);
        assert_eq!(zstd(&frame(12), &mut output), None);
    }

    #[test]
    fn corrupted_data_does_not_panic() {
        let mut rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        for cluster in [512, 16_384] {
            let (_, all) = compressed(cluster);
            let mut output = vec![0; cluster];
            for (inflate, good) in all {
                for _ in 0..4000 {
                    let mut data = good.clone();
                    for _ in 0..rng.random_range(1..6) {
                        let at = rng.random_range(0..data.len());
                        data[at] = rng.random();
                    }
                    // The result does not matter, as long as the call returns.
                    let _ = inflate(&data, &mut output);
                }
            }
        }
    }
}
