//! Measurements as a table.

use luksmith::task::measure::{DERIVED, Derivation, Speed, Subject};
use luksmith::xts::Kernel;

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
