//! Measures the encryption and decryption of sectors: the kernels of AES-XTS by key and sector
//! size, then every cipher as a volume uses it.
//!
//! `cargo bench --bench xts`

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use luksmith::crypt::{IvSector, SectorCrypt};
use luksmith::secret::VolumeKey;
use luksmith::sectors::{Plain, Sectors};
use luksmith::xts::{Kernel, TweakForm, Tweaks, Xts};
use luksmith_formats::CipherSpec;

/// The size of the pieces in which a volume encrypts a request.
const LEN: usize = 256 << 10;

fn kernels(criterion: &mut Criterion) {
    for kernel in Kernel::available() {
        for (cipher, key_size) in [("aes-128", 32), ("aes-192", 48), ("aes-256", 64)] {
            let key = vec![7; key_size];
            let mut group = criterion.benchmark_group(format!("xts/{kernel}/{cipher}"));
            group.throughput(Throughput::Bytes(LEN as u64));
            let xts = Xts::new(kernel, &key).expect("a whole key");
            let mut data = vec![0; LEN];
            for sector_size in [512, 1024, 2048, 4096] {
                let tweaks = Tweaks::new(1 << 40, sector_size as u128 / 512, TweakForm::Plain64);
                group.bench_with_input(
                    BenchmarkId::new("encrypt", sector_size),
                    &sector_size,
                    |b, &size| {
                        b.iter(|| xts.encrypt(tweaks, size, black_box(&mut data)));
                    },
                );
                group.bench_with_input(
                    BenchmarkId::new("decrypt", sector_size),
                    &sector_size,
                    |b, &size| {
                        b.iter(|| xts.decrypt(tweaks, size, black_box(&mut data)));
                    },
                );
            }
        }
    }
}

/// Encrypts and decrypts once in each iteration, since both are in place and by move.
fn ciphers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("crypt/there and back");
    for name in [
        "aes-xts-plain64",
        "aes-xts-essiv:sha256",
        "aes-cbc-essiv:sha256",
        "serpent-xts-plain64",
        "twofish-xts-plain64",
        "camellia-xts-plain64",
    ] {
        let spec: CipherSpec = name.parse().expect("a known cipher");
        let key = VolumeKey::random(spec.default_key_size()).expect("locked memory");
        for (sector_size, len) in [(512, 64 << 10), (4096, 64 << 10)] {
            let crypt = SectorCrypt::new(spec, sector_size, &key).expect("a whole key");
            group.throughput(Throughput::Bytes(2 * len as u64));
            let mut sectors = Some(Sectors::<Plain>::zeroed(len));
            group.bench_function(BenchmarkId::new(name, sector_size), |b| {
                b.iter(|| {
                    let plain = sectors.take().expect("put back each time");
                    let cipher = crypt.encrypt(IvSector(1 << 40), plain);
                    sectors = Some(crypt.decrypt(IvSector(1 << 40), black_box(cipher)));
                });
            });
        }
    }
}

criterion_group!(benches, kernels, ciphers);
criterion_main!(benches);
