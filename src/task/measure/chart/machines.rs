//! Several measurements beside each other, such as those of different machines.

use super::canvas::{Canvas, Place, Rows, short};
use super::figures::{GAP, INSIDE, MARGIN, WIDTH, distinct, mark, mib, threads};
use crate::task::Error;
use crate::task::measure::derivations::Function;
use crate::task::measure::{Derivation, Measured, Speed, Subject};

const HEAD: i32 = 78;

/// A chart with a panel for each cipher and each key derivation that at least two of the
/// measurements have, and a row for each measurement. The kernel is the fastest that each one has.
///
/// # Errors
/// [`Kind::Storage`](crate::task::Kind::Storage) if it cannot be drawn.
pub fn svg(all: &[Measured]) -> Result<String, Error> {
    let panels = panels(all);
    let tallest = panels.iter().map(Rows::height).max().unwrap_or(0) + GAP / 2;
    let lines = i32::try_from(panels.len().div_ceil(2)).unwrap_or(i32::MAX / WIDTH);
    let mut svg = String::new();
    let canvas = Canvas::new(&mut svg, WIDTH, HEAD + tallest * lines + MARGIN)?;
    canvas.heading("luksmith on several machines", MARGIN, 28, 20)?;
    let about = "Ciphers: MiB/s in memory, the slower direction. Key derivation: million iterations \
                 per second. Best turn; * the machine was busy";
    canvas.text(about, MARGIN, 54)?;
    let width = (INSIDE - GAP) / 2;
    for (panel, n) in panels.iter().zip(0..) {
        let place = Place {
            x: MARGIN + (width + GAP) * (n % 2),
            y: HEAD + tallest * (n / 2),
            width,
            height: tallest,
        };
        canvas.rows(panel, place)?;
    }
    canvas.finish()?;
    Ok(svg)
}

fn panels(all: &[Measured]) -> Vec<Rows> {
    let mut panels = Vec::new();
    let speeds = all.iter().flat_map(|measured| &measured.speeds);
    // The kernels of different machines are compared with each other.
    for subject in distinct(speeds.map(|speed| speed.subject.kernel(None))) {
        let rows = all.iter().filter_map(|measured| {
            let fastest = fastest(measured, &subject)?;
            let value = mib(fastest.slower());
            let shown = format!("{}{}", short(value), mark(fastest.is_busy()));
            Some((name(measured), value, shown))
        });
        let title = format!(
            "{} {} bit, {}-byte sectors, {}",
            subject.spec,
            subject.key_size * 8,
            subject.sector_size,
            threads(subject.threads)
        );
        panels.push(panel(title, rows.collect()));
    }
    let of_all = || all.iter().flat_map(|measured| &measured.derivations);
    let titled = |one: &Derivation| match one.function {
        Function::Pbkdf2 { .. } => Some((one.name(), one.key_size)),
        // Each machine has parameters of its own.
        Function::Argon2 { .. } => None,
    };
    for (derivation, key_size) in distinct(of_all().filter_map(titled)) {
        let rows = all.iter().filter_map(|measured| {
            let same = |one: &&_| titled(one) == Some((derivation.clone(), key_size));
            let one = measured.derivations.iter().find(same)?;
            let value = one.spread().best as f64 / 1e6;
            let shown = format!("{}{}", short(value), mark(one.busy));
            Some((name(measured), value, shown))
        });
        let bits = key_size * 8;
        let title = format!("{derivation}, {bits}-bit key");
        panels.push(panel(title, rows.collect()));
    }
    panels.retain(|panel| panel.rows.len() > 1);
    panels
}

fn panel(title: String, rows: Vec<(String, f64, String)>) -> Rows {
    Rows {
        title,
        rows,
        notes: Vec::new(),
    }
}

/// The fastest speed of this subject with any kernel.
fn fastest<'a>(measured: &'a Measured, subject: &Subject) -> Option<&'a Speed> {
    let same = measured
        .speeds
        .iter()
        .filter(|speed| speed.subject.kernel(None) == *subject);
    same.max_by_key(|speed| speed.slower())
}

/// The CPU and the day, which tells two measurements of one machine apart.
fn name(measured: &Measured) -> String {
    let machine = &measured.machine;
    let cpu: String = machine.cpu.chars().take(28).collect();
    format!("{cpu}, {}", machine.date)
}
