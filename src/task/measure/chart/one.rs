//! The chart of a benchmark, as an SVG document.

use super::canvas::{Bar, Bars, Canvas, Group, Place, Rows, short};

use super::figures::{GAP, INSIDE, MARGIN, WIDTH, distinct, mark, mib, threads};
use crate::task::Error;
use crate::task::measure::derivations::Function;
use crate::task::measure::{Measured, Speed, Spread};
use crate::xts::Kernel;

const HEAD: i32 = 106;
const BARS: i32 = 290;

/// The sector sizes that have a shade.
const SECTOR_SIZES: [u32; 4] = [512, 1024, 2048, 4096];

/// The whole chart as an SVG document.
///
/// # Errors
/// [`Kind::Storage`](crate::task::Kind::Storage) if it cannot be drawn.
pub fn svg(measured: &Measured) -> Result<String, Error> {
    // One size of the buffer: the first.
    let buffer = measured
        .speeds
        .first()
        .map(|speed| speed.subject.buffer_size);
    let of_buffer = |speed: &&Speed| Some(speed.subject.buffer_size) == buffer;
    let speeds: Vec<Speed> = measured.speeds.iter().filter(of_buffer).cloned().collect();
    let upright = xts(&speeds);
    let lying: Vec<Rows> = [derivations(measured), others(&speeds)]
        .into_iter()
        .filter(|panel| panel.height() > 36)
        .collect();
    let rows_at = HEAD + if upright.is_empty() { 0 } else { BARS + GAP };
    let rows = lying.iter().map(Rows::height).max().unwrap_or(0);
    let height = rows_at + rows + MARGIN / 2;

    let mut svg = String::new();
    let canvas = Canvas::new(&mut svg, WIDTH, height)?;
    head(&canvas, measured)?;
    let groups: usize = upright.iter().map(|panel| panel.groups.len()).sum();
    let gaps = GAP * (count(upright.len()) - 1).max(0);
    // Panels with the same number of threads have the same scale, so that they can be compared.
    let top = |panel: &Bars| {
        let same = upright.iter().filter(|other| other.scale == panel.scale);
        same.map(Bars::top).fold(0.0, f64::max)
    };
    let mut x = MARGIN;
    for panel in &upright {
        let width = (INSIDE - gaps) * count(panel.groups.len()) / count(groups).max(1);
        let place = Place {
            x,
            y: HEAD,
            width,
            height: BARS,
        };
        canvas.bars(panel, place, top(panel))?;
        x += width + GAP;
    }
    let width = (INSIDE - GAP) / 2;
    for (panel, n) in lying.iter().zip(0..) {
        let place = Place {
            x: MARGIN + (width + GAP) * n,
            y: rows_at,
            width,
            height: rows,
        };
        canvas.rows(panel, place)?;
    }
    canvas.finish()?;
    Ok(svg)
}

fn head(canvas: &Canvas<'_>, measured: &Measured) -> Result<(), Error> {
    let machine = &measured.machine;
    canvas.heading(&format!("luksmith on {}", machine.cpu), MARGIN, 28, 20)?;
    let mut about = vec![
        machine.date.clone(),
        format!("version {}", measured.version),
    ];
    about.extend(
        machine
            .kernel_version
            .iter()
            .map(|version| format!("Linux {version}")),
    );
    about.extend(machine.mhz.map(|mhz| format!("{mhz} MHz")));
    about.extend(machine.governor.clone());
    let buffer = measured
        .speeds
        .first()
        .map_or(0, |speed| speed.subject.buffer_size);
    let about = format!(
        "{}. In memory, {} KiB at once; the slower direction, best turn{}",
        about.join(", "),
        buffer >> 10,
        match measured.busy() {
            (0, _) => "",
            _ if measured.is_busy() => "; the machine was busy",
            _ => "; * the machine was busy",
        }
    );
    canvas.text(&about, MARGIN, 54)?;
    let mut x = MARGIN;
    for (size, shade) in SECTOR_SIZES.iter().zip(0..) {
        let mut with_kernel = measured.speeds.iter().filter(|speed| has_kernel(speed));
        if with_kernel.any(|speed| speed.subject.sector_size == *size) {
            x = canvas.key(shade, &format!("{size}-byte sectors"), x, 80)?;
        }
    }
    if measured.speeds.iter().any(|speed| speed.limit.is_some()) {
        canvas.limit_key(
            "this CPU's limit: only the rounds of AES, at the kernel's register width",
            x,
            80,
        )?;
    }
    Ok(())
}

/// A panel for each key size, with its kernels, and one for the speedup with more threads.
fn xts(speeds: &[Speed]) -> Vec<Bars> {
    let speeds: Vec<&Speed> = speeds.iter().filter(|speed| has_kernel(speed)).collect();
    let mut panels = Vec::new();
    for key_size in distinct(speeds.iter().map(|speed| speed.subject.key_size)) {
        let of_key = || {
            speeds
                .iter()
                .copied()
                .filter(move |speed| speed.subject.key_size == key_size)
        };
        let Some(few) = of_key().map(|speed| speed.subject.threads).min() else {
            continue;
        };
        let groups = distinct(of_key().map(|speed| speed.subject.kernel))
            .into_iter()
            .map(|kernel| {
                let bars = of_key()
                    .filter(|speed| speed.subject.kernel == kernel && speed.subject.threads == few);
                group(kernel.map_or("", label).to_owned(), bars)
            });
        panels.push(Bars {
            title: format!("AES-{}-XTS, {}", key_size * 4, threads(few)),
            unit: "MiB/s",
            scale: few,
            groups: groups.collect(),
        });
    }
    panels.extend(by_threads(&speeds));
    panels
}

/// The first kernel and key, with every number of threads.
fn by_threads(speeds: &[&Speed]) -> Option<Bars> {
    let first = speeds.first()?.subject;
    let of_first = || {
        speeds.iter().copied().filter(move |speed| {
            let subject = speed.subject;
            (subject.kernel, subject.key_size) == (first.kernel, first.key_size)
        })
    };
    let counts = distinct(of_first().map(|speed| speed.subject.threads));
    if counts.len() < 2 {
        return None;
    }
    let groups = counts.into_iter().map(|count| {
        let bars = of_first().filter(|speed| speed.subject.threads == count);
        group(threads(count), bars)
    });
    Some(Bars {
        title: format!(
            "AES-{}-XTS, {}",
            first.key_size * 4,
            first.kernel.map_or("", Kernel::name)
        ),
        unit: "MiB/s",
        scale: of_first()
            .map(|speed| speed.subject.threads)
            .max()
            .unwrap_or(0),
        groups: groups.collect(),
    })
}

fn group<'a>(name: String, speeds: impl Iterator<Item = &'a Speed>) -> Group {
    let speeds: Vec<&Speed> = speeds.collect();
    let limit = speeds.iter().filter_map(|speed| speed.limit).max();
    let shade = |speed: &Speed| {
        let size = speed.subject.sector_size;
        SECTOR_SIZES.iter().position(|shade| *shade == size)
    };
    Group {
        name,
        bars: speeds
            .iter()
            .filter_map(|speed| {
                Some(Bar {
                    value: mib(speed.slower()),
                    shade: shade(speed)?,
                    mark: mark(speed.is_busy()),
                })
            })
            .collect(),
        limit: limit.map(mib),
    }
}

fn derivations(measured: &Measured) -> Rows {
    let mut rows = Vec::new();
    let mut notes = Vec::new();
    for derivation in &measured.derivations {
        let Spread { best, .. } = *derivation.spread();
        let mark = mark(derivation.busy);
        match &derivation.function {
            Function::Pbkdf2 { .. } => {
                let millions = best as f64 / 1e6;
                let shown = format!("{}{mark}", short(millions));
                rows.push((derivation.name(), millions, shown));
            }
            Function::Argon2 { cost, .. } => notes.push(format!(
                "{}: {} passes over {} MiB in {}: {} s{mark}",
                derivation.name(),
                cost.passes,
                short(f64::from(cost.memory_kib) / 1024.0),
                threads(cost.lanes as usize),
                short(best as f64 / 1e6),
            )),
        }
    }
    let first = measured.derivations.first();
    let bits = first.map_or(0, |derivation| derivation.key_size * 8);
    Rows {
        title: format!("Key derivation, million iterations per second, {bits}-bit key"),
        rows,
        notes,
    }
}

/// Ciphers without kernels, with the largest sectors and the fewest threads that were measured.
fn others(speeds: &[Speed]) -> Rows {
    let speeds: Vec<&Speed> = speeds.iter().filter(|speed| !has_kernel(speed)).collect();
    let largest = speeds.iter().map(|speed| speed.subject.sector_size).max();
    let few = speeds.iter().map(|speed| speed.subject.threads).min();
    let shown = speeds.iter().filter(|speed| {
        Some(speed.subject.sector_size) == largest && Some(speed.subject.threads) == few
    });
    let rows = shown.map(|speed| {
        let subject = &speed.subject;
        (
            format!("{}, {} bit", subject.spec, subject.key_size * 8),
            mib(speed.slower()),
            format!("{}{}", short(mib(speed.slower())), mark(speed.is_busy())),
        )
    });
    Rows {
        title: format!(
            "Other ciphers, MiB/s, {}-byte sectors, {}",
            largest.unwrap_or(0),
            threads(few.unwrap_or(0))
        ),
        rows: rows.collect(),
        notes: Vec::new(),
    }
}

/// The name of a kernel below its bars. That of the `aes` crate is not its instructions.
fn label(kernel: Kernel) -> &'static str {
    match kernel {
        Kernel::Portable => kernel.implementation(),
        _ => kernel.name(),
    }
}

fn has_kernel(speed: &Speed) -> bool {
    speed.subject.kernel.is_some()
}

fn count(len: usize) -> i32 {
    i32::try_from(len).unwrap_or(i32::MAX / WIDTH)
}
