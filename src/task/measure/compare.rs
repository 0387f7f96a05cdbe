//! A measurement beside an older one.

use luksmith_formats::json::{Value, json};

use super::ciphers::Subject;
use super::derivations::{Derivation, Function};
use super::measured::Measured;
use super::statistics::Ratio;
use crate::xts::Kernel;

/// One thing that both measured.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Compared {
    /// What was measured.
    pub name: String,
    /// How often the new one is as fast as the old one.
    pub speedup: Ratio,
    /// Whether the machine was busy during one of them.
    pub busy: bool,
}

impl Measured {
    /// What this and an older measurement have in common, in the order of this one.
    #[must_use]
    pub fn compared_with(&self, old: &Self) -> Vec<Compared> {
        let mut all = Vec::new();
        let mut add = |name: String, busy: bool, speedup: Option<Ratio>| {
            all.extend(speedup.map(|speedup| Compared {
                name,
                speedup,
                busy,
            }));
        };
        for new in &self.derivations {
            let Some(old) = old.derivations.iter().find(|old| same_work(new, old)) else {
                continue;
            };
            let (new_spread, old_spread) = (new.spread(), old.spread());
            // The times of argon2: less is faster.
            let speedup = match new.function {
                Function::Pbkdf2 { .. } => new_spread.over(old_spread),
                Function::Argon2 { .. } => old_spread.over(new_spread),
            };
            let name = format!("{}, {}-bit key", new.name(), new.key_size * 8);
            add(name, new.busy || old.busy, speedup);
        }
        for new in &self.speeds {
            let Some(old) = old.speeds.iter().find(|old| old.subject == new.subject) else {
                continue;
            };
            for (direction, new_spread, old_spread) in [
                ("encrypt", &new.encrypt, &old.encrypt),
                ("decrypt", &new.decrypt, &old.decrypt),
            ] {
                let name = format!("{}, {direction}", described(&new.subject));
                let busy = new_spread.is_busy() || old_spread.is_busy();
                add(name, busy, new_spread.over(old_spread));
            }
        }
        all
    }
}

impl Compared {
    /// The comparison as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "name": self.name,
            "ratio_of_bests": self.speedup.of_bests,
            "ratio_of_means": self.speedup.of_means,
            "sigma": self.speedup.sigma,
            "busy": self.busy,
        })
    }
}

/// Whether both derived the same key with the same function and cost.
fn same_work(one: &Derivation, other: &Derivation) -> bool {
    let same = match (&one.function, &other.function) {
        (Function::Pbkdf2 { hash: one, .. }, Function::Pbkdf2 { hash: other, .. }) => one == other,
        (Function::Argon2 { cost: one, .. }, Function::Argon2 { cost: other, .. }) => one == other,
        _ => false,
    };
    same && one.key_size == other.key_size
}

/// A subject in a line.
pub(super) fn described(subject: &Subject) -> String {
    let kernel = subject
        .kernel
        .map(|kernel| format!(", {}", Kernel::name(kernel)));
    let plural = if subject.threads == 1 { "" } else { "s" };
    format!(
        "{} {} bit, {}-byte sectors, {} at once{}, {} thread{plural}",
        subject.spec,
        subject.key_size * 8,
        subject.sector_size,
        binary(subject.buffer_size),
        kernel.unwrap_or_default(),
        subject.threads,
    )
}

/// A size in KiB or MiB, if it is whole.
fn binary(size: usize) -> String {
    match size {
        _ if size.is_multiple_of(1 << 20) => format!("{} MiB", size >> 20),
        _ if size.is_multiple_of(1 << 10) => format!("{} KiB", size >> 10),
        _ => format!("{size} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kdf::Argon2Cost;
    use crate::task::measure::{Speed, Spread};
    use luksmith_formats::luks2::Argon2Variant;

    fn measured(speed: f64, time_ms: u64, passes: u32) -> Measured {
        let mut measured = Measured::here();
        let spread = Spread::of_speeds(vec![speed]);
        let spec = "aes-xts-plain64".parse().unwrap();
        measured.speeds = vec![Speed {
            subject: Subject::new(spec, 64, 512).kernel(Some(Kernel::Portable)),
            encrypt: spread,
            decrypt: spread,
            limit: None,
        }];
        let cost = Argon2Cost {
            variant: Argon2Variant::Id,
            passes,
            memory_kib: 64,
            lanes: 1,
        };
        let took = Spread::of_times(&[std::time::Duration::from_millis(time_ms)]);
        measured.derivations = vec![Derivation {
            key_size: 32,
            function: Function::Argon2 {
                cost,
                took,
                requested_ms: 1,
            },
            busy: false,
        }];
        measured
    }

    #[test]
    fn more_speed_and_less_time_are_ratios_above_one() {
        let compared = measured(300.0, 10, 4).compared_with(&measured(100.0, 20, 4));
        let ratios: Vec<f64> = compared.iter().map(|one| one.speedup.of_bests).collect();
        assert_eq!(ratios, [2.0, 3.0, 3.0]);
        assert_eq!(
            compared[1].name,
            "aes-xts-plain64 512 bit, 512-byte sectors, 64 KiB at once, portable, 1 thread, encrypt"
        );
    }

    #[test]
    fn argon2_of_another_cost_is_not_compared() {
        let compared = measured(300.0, 10, 4).compared_with(&measured(300.0, 10, 5));
        assert_eq!(compared.len(), 2);
    }
}
