//! What a benchmark measures, and the run of it.

use std::time::Duration;

use luksmith_formats::cipher::{BlockCipher, CipherSpec, Mode};
use luksmith_formats::hash::Hash;

use super::ciphers::{BUFFER, Speed, Subject, ciphers};
use super::derivations::{DERIVED, Derivation, HASHES};
use super::machine::Machine;
use super::measured::Measured;
use crate::task::{Error, Watch};
use crate::xts::Kernel;

const SECTOR_SIZES: [u32; 2] = [512, 4096];
const CIPHERS: [(&str, &[usize]); 8] = [
    ("aes-xts-plain64", &[64, 32]),
    ("aes-cbc-essiv:sha256", &[32, 16]),
    ("serpent-xts-plain64", &[64]),
    ("serpent-cbc-plain64", &[32]),
    ("camellia-xts-plain64", &[64]),
    ("camellia-cbc-plain64", &[32]),
    ("twofish-xts-plain64", &[64]),
    ("twofish-cbc-plain64", &[32]),
];

/// What to measure. Empty lists mean the defaults that each field names.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Selection {
    /// Only this cipher, and no key derivation. Default: the ciphers of `cryptsetup benchmark`.
    pub cipher: Option<CipherSpec>,
    /// The kernels of AES-XTS. Default: all that this CPU has.
    pub kernels: Vec<Kernel>,
    /// Whether ciphers without kernels are measured too. Default: if feature `ciphers` is there.
    pub other_ciphers: bool,
    /// The sizes of the keys of ciphers in bytes, and of the derived keys. Default: those of
    /// `cryptsetup benchmark`; of a selected cipher all.
    pub key_sizes: Vec<usize>,
    /// The sizes of sectors in bytes. Default: 512 and 4096.
    pub sector_sizes: Vec<u32>,
    /// How many bytes are encrypted at once. Default: 64 KiB.
    pub buffer_sizes: Vec<usize>,
    /// The hashes of PBKDF2. Default: [`HASHES`].
    pub hashes: Vec<Hash>,
    /// The numbers of threads. Default: one, and for the first kernel also the number of
    /// processors.
    pub threads: Vec<usize>,
    /// Whether key derivations are measured.
    pub derivations: bool,
    /// Whether ciphers are measured.
    pub ciphers: bool,
    /// How long each cipher runs in each direction.
    pub long: Duration,
    /// The time for which argon2's parameters are chosen, in milliseconds.
    pub iter_time_ms: u32,
}

impl Default for Selection {
    fn default() -> Self {
        Self {
            cipher: None,
            kernels: Vec::new(),
            other_ciphers: cfg!(feature = "ciphers"),
            key_sizes: Vec::new(),
            sector_sizes: Vec::new(),
            buffer_sizes: Vec::new(),
            hashes: Vec::new(),
            threads: Vec::new(),
            derivations: true,
            ciphers: true,
            long: Duration::from_millis(50),
            iter_time_ms: 2000,
        }
    }
}

impl Measured {
    /// All parts, in the order in which they were measured.
    pub fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        std::iter::once(Part::Machine(&self.machine))
            .chain(self.derivations.iter().map(Part::Derivation))
            .chain(self.speeds.iter().map(Part::Speed))
    }
}

/// A part of the measurements, as soon as it is known.
#[derive(Debug)]
#[non_exhaustive]
pub enum Part<'a> {
    /// The machine.
    Machine(&'a Machine),
    /// A key derivation.
    Derivation(&'a Derivation),
    /// A cipher. The first one follows all key derivations.
    Speed(&'a Speed),
}

impl Selection {
    /// Measures all that is selected, and calls `show` with each part.
    ///
    /// # Errors
    /// [`Kind::Parameters`](crate::task::Kind::Parameters) if the selected cipher has no kernels
    /// and `other_ciphers` is false, the errors of [`ciphers`], and the errors of `show`.
    pub fn measure<E: From<Error>>(
        &self,
        watch: &dyn Watch,
        mut show: impl FnMut(Part<'_>) -> Result<(), E>,
    ) -> Result<Measured, E> {
        let groups = self.groups()?;
        let mut measured = Measured::here();
        show(Part::Machine(&measured.machine))?;
        for derivation in self.derivations() {
            let derivation = derivation.measure(watch)?;
            show(Part::Derivation(&derivation))?;
            measured.derivations.push(derivation);
        }
        for group in groups {
            // The ciphers and kernels of a group take turns, so that they can be compared.
            let group = ciphers(group, self.long, watch)?;
            for speed in &group {
                show(Part::Speed(speed))?;
            }
            measured.speeds.extend(group);
        }
        Ok(measured)
    }

    fn derivations(&self) -> Vec<ToDerive> {
        if !self.derivations {
            return Vec::new();
        }
        let key_sizes = or_default(&self.key_sizes, &[DERIVED]);
        let mut wanted = Vec::new();
        for &key_size in key_sizes {
            for &hash in or_default(&self.hashes, &HASHES) {
                wanted.push(ToDerive {
                    hash: Some(hash),
                    key_size,
                    iter_time_ms: 0,
                });
            }
            if self.hashes.is_empty() {
                let iter_time_ms = self.iter_time_ms;
                wanted.push(ToDerive {
                    hash: None,
                    key_size,
                    iter_time_ms,
                });
            }
        }
        wanted
    }

    /// The measurements to make, in groups of one cipher and key size.
    fn groups(&self) -> Result<Vec<Vec<Subject>>, Error> {
        let named = self.cipher.map(|spec| (spec, spec.key_sizes().to_vec()));
        let all = CIPHERS
            .iter()
            .filter_map(|(name, sizes)| Some((CipherSpec::parse(name).ok()?, sizes.to_vec())));
        let wanted: Vec<_> = named.map_or_else(|| all.collect(), |named| vec![named]);
        let mut groups = Vec::new();
        if !self.ciphers {
            return Ok(groups);
        }
        for (spec, mut key_sizes) in wanted {
            let kernels = self.kernels(spec)?;
            key_sizes.sort_unstable_by_key(|size| std::cmp::Reverse(*size));
            if !self.key_sizes.is_empty() {
                // Other sizes than cryptsetup's too, if the cipher has them.
                key_sizes = self.key_sizes.clone();
                key_sizes.retain(|size| spec.check_key_size(*size).is_ok());
            }
            for key_size in key_sizes {
                let group = self.group(spec, key_size, &kernels);
                groups.extend((!group.is_empty()).then_some(group));
            }
        }
        Ok(groups)
    }

    /// The kernels to measure a cipher with: `None` for ciphers without kernels.
    fn kernels(&self, spec: CipherSpec) -> Result<Vec<Option<Kernel>>, Error> {
        let has_kernels = spec.cipher == BlockCipher::Aes && spec.mode == Mode::Xts;
        if has_kernels {
            let kernels = match &self.kernels[..] {
                [] => Kernel::available(),
                selected => selected.to_vec(),
            };
            return Ok(kernels.into_iter().map(Some).collect());
        }
        match self.cipher {
            _ if self.other_ciphers => Ok(vec![None]),
            None => Ok(Vec::new()),
            Some(spec) => Err(Error::parameters(format!(
                "{spec} has no kernels to choose from; aes-xts has"
            ))),
        }
    }

    fn group(&self, spec: CipherSpec, key_size: usize, kernels: &[Option<Kernel>]) -> Vec<Subject> {
        let sector_sizes = or_default(&self.sector_sizes, &SECTOR_SIZES);
        let buffer_sizes = or_default(&self.buffer_sizes, &[BUFFER]);
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let mut group = Vec::new();
        let mut add = |kernel: Option<Kernel>, threads: usize| {
            for &buffer_size in buffer_sizes {
                group.extend(sector_sizes.iter().map(|&sector_size| {
                    Subject::new(spec, key_size, sector_size)
                        .buffer_size(buffer_size)
                        .kernel(kernel)
                        .threads(threads)
                }));
            }
        };
        for (at, kernel) in kernels.iter().enumerate() {
            if self.threads.is_empty() {
                add(*kernel, 1);
                if at == 0 && kernel.is_some() && processors > 1 {
                    add(*kernel, processors);
                }
            }
            for &threads in &self.threads {
                add(*kernel, threads);
            }
        }
        group
    }
}

/// A key derivation to measure: PBKDF2 with a hash, or argon2id.
struct ToDerive {
    hash: Option<Hash>,
    key_size: usize,
    iter_time_ms: u32,
}

impl ToDerive {
    fn measure(&self, watch: &dyn Watch) -> Result<Derivation, Error> {
        let interrupt = watch.interrupt();
        match self.hash {
            Some(hash) => Derivation::pbkdf2(hash, self.key_size, interrupt),
            None => Derivation::argon2id(self.iter_time_ms, self.key_size, interrupt),
        }
    }
}

fn or_default<'a, T>(selected: &'a [T], default: &'a [T]) -> &'a [T] {
    if selected.is_empty() {
        default
    } else {
        selected
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_multiply_and_key_sizes_that_a_cipher_lacks_are_left_out() {
        let selection = Selection {
            key_sizes: vec![32, 40],
            sector_sizes: vec![4096],
            buffer_sizes: vec![4096, 1 << 20],
            threads: vec![1, 3],
            kernels: vec![Kernel::Portable],
            ..Selection::default()
        };
        let groups = selection.groups().unwrap();
        let aes: Vec<_> = groups[0]
            .iter()
            .map(|subject| (subject.key_size, subject.buffer_size, subject.threads))
            .collect();
        let expected = [(4096, 1), (1 << 20, 1), (4096, 3), (1 << 20, 3)];
        assert_eq!(aes, expected.map(|(buffer, threads)| (32, buffer, threads)));
        let has_key = |subject: &Subject| subject.spec.check_key_size(subject.key_size).is_ok();
        assert!(groups.iter().flatten().all(has_key));
    }
}
