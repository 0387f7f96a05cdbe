//! Measurements as comma-separated values (RFC 4180).

use std::fmt::Write as _;

use super::measured::Measured;
use super::statistics::Spread;
use crate::xts::Kernel;

const HEAD: &str = "name,direction,key_bits,sector_size,buffer_size,kernel,implementation,threads,\
                    unit,best,median,mean,sigma,runs,limit,busy\n";

impl Measured {
    /// The measurements, one a line, after a line with the names of the columns. Columns that a
    /// measurement does not have are empty.
    #[must_use]
    pub fn csv(&self) -> String {
        let mut csv = HEAD.to_owned();
        for derivation in &self.derivations {
            let is_time = derivation.name().starts_with("argon2");
            let unit = if is_time { "us" } else { "iterations/s" };
            let name = derivation.name();
            let bits = (derivation.key_size * 8).to_string();
            let fields = [&name, "", &bits, "", "", "", "", "", unit];
            line(
                &mut csv,
                &fields,
                derivation.spread(),
                None,
                derivation.busy,
            );
        }
        for speed in &self.speeds {
            let subject = &speed.subject;
            let name = subject.spec.to_string();
            let numbers = [
                subject.key_size * 8,
                subject.sector_size as usize,
                subject.buffer_size,
                subject.threads,
            ];
            let [bits, sector, buffer, threads] = numbers.map(|number| number.to_string());
            let kernel = subject.kernel.map_or("", Kernel::name);
            let implementation = subject.kernel.map_or("", Kernel::implementation);
            for (direction, spread) in [("encrypt", &speed.encrypt), ("decrypt", &speed.decrypt)] {
                let fields = [
                    &name,
                    direction,
                    &bits,
                    &sector,
                    &buffer,
                    kernel,
                    implementation,
                    &threads,
                    "bytes/s",
                ];
                line(&mut csv, &fields, spread, speed.limit, spread.is_busy());
            }
        }
        csv
    }
}

fn line(csv: &mut String, fields: &[&str], spread: &Spread, limit: Option<u64>, busy: bool) {
    for field in fields {
        if field.contains([',', '"', '\n']) {
            let _ = write!(csv, "\"{}\",", field.replace('"', "\"\""));
        } else {
            let _ = write!(csv, "{field},");
        }
    }
    let limit = limit.map_or_else(String::new, |limit| limit.to_string());
    // Writing to a string does not fail.
    let _ = writeln!(
        csv,
        "{},{},{},{},{},{limit},{busy}",
        spread.best, spread.median, spread.mean, spread.sigma, spread.runs,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_with_a_comma_is_quoted() {
        let mut csv = String::new();
        let spread = Spread::of_speeds(vec![3.0, 1.0]);
        line(&mut csv, &["a, \"b\"", ""], &spread, Some(7), true);
        assert_eq!(csv, "\"a, \"\"b\"\"\",,3,1,2,1,2,7,true\n");
    }
}
