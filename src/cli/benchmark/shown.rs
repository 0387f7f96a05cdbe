//! Measurements as a table and as JSON.

use luksmith::task::measure::{DERIVED, Derivation, Speed, Subject};
use luksmith::xts::Kernel;
use luksmith_formats::json::{Value, json};

/// The head of the table whose rows [`row`] makes.
pub(super) const HEADER: &str = "\
#  Algorithm             Key  Sector  Kernel    Threads      Encryption      Decryption  Of limit";

/// The row of a cipher.
pub(super) fn row(speed: &Speed) -> String {
    let Subject {
        spec,
        key_size,
        sector_size,
        kernel,
        threads,
        ..
    } = speed.subject;
    let of_limit = speed
        .of_limit()
        .map_or_else(|| "-".to_owned(), |parts| format!("{:.0} %", parts * 100.0));
    format!(
        "{:<22} {:>4}b  {sector_size:>6}  {:<8}  {threads:>7}  {:>14}  {:>14}  {of_limit:>8}",
        spec.to_string(),
        key_size * 8,
        kernel.map_or("-", Kernel::name),
        mib(speed.encrypt.best),
        mib(speed.decrypt.best),
    )
}

/// MiB per second with one decimal, as cryptsetup prints it.
fn mib(rate: u64) -> String {
    let tenths = u128::from(rate) * 10 / (1 << 20);
    format!("{}.{} MiB/s", tenths / 10, tenths % 10)
}

/// The line of a key derivation.
pub(super) fn line(derivation: &Derivation) -> String {
    let bits = DERIVED * 8;
    match derivation {
        Derivation::Pbkdf2 { hash, rate } => {
            let name = format!("pbkdf2-{hash}");
            format!("{name:<17} {rate:>10} iterations per second for {bits}-bit key")
        }
        Derivation::Argon2 {
            cost,
            took,
            requested_ms,
        } => format!(
            "{:<17} {} passes, {} KiB memory, {} threads for {bits}-bit key: {} ms (requested \
             {requested_ms} ms)",
            cost.variant.name(),
            cost.passes,
            cost.memory_kib,
            cost.lanes,
            took.as_millis(),
        ),
    }
}

pub(super) fn speed_json(speed: &Speed) -> Value {
    let subject = &speed.subject;
    json!({
        "cipher": subject.spec.to_string(),
        "key_bits": subject.key_size * 8,
        "sector_size": subject.sector_size,
        "kernel": subject.kernel.map(Kernel::name),
        "threads": subject.threads,
        "encrypt": speed.encrypt.best,
        "encrypt_median": speed.encrypt.median,
        "decrypt": speed.decrypt.best,
        "decrypt_median": speed.decrypt.median,
        "limit": speed.limit.as_ref().map(|limit| limit.best),
    })
}

pub(super) fn derivation_json(derivation: &Derivation) -> Value {
    match derivation {
        Derivation::Pbkdf2 { hash, rate } => json!({
            "type": "pbkdf2",
            "hash": hash.name(),
            "iterations_per_second": rate,
        }),
        Derivation::Argon2 { cost, took, .. } => json!({
            "type": cost.variant.name(),
            "passes": cost.passes,
            "memory": u64::from(cost.memory_kib) * 1024,
            "threads": cost.lanes,
            "time_ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        }),
    }
}
