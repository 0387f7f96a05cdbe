//! How fast sectors are encrypted and decrypted: kernels by key and sector size, in GB/s (10^9).
//!
//! `cargo bench --bench xts`

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use luksmith::xts::{Kernel, TweakForm, Tweaks, Xts};

/// What one request of a volume passes on at once.
const LEN: usize = 256 << 10;

fn kernels(criterion: &mut Criterion) {
    for kernel in Kernel::available() {
        for (cipher, key) in [("aes-128", vec![7; 32]), ("aes-256", vec![7; 64])] {
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

criterion_group!(benches, kernels);
criterion_main!(benches);
