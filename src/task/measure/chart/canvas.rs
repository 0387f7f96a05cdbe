//! Bar charts on an SVG canvas. Shades differ in lightness, so that they can be told apart in print
//! and by colour-blind readers.

use plotters::backend::SVGBackend;
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, IntoDrawingArea};
use plotters::element::{PathElement, Rectangle, Text};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontDesc, FontFamily, FontStyle, RGBColor, ShapeStyle, TextStyle};

use crate::task::{Error, Kind};

pub(super) const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);
const GREY: RGBColor = RGBColor(0x66, 0x66, 0x66);
const GRID: RGBColor = RGBColor(0xdd, 0xdd, 0xdd);
const WHITE: RGBColor = RGBColor(0xff, 0xff, 0xff);
/// The colour of the limit.
const LIMIT: RGBColor = RGBColor(0xd5, 0x5e, 0x00);
/// The colour of rows, which are not compared by shade.
const ROW: RGBColor = RGBColor(0x6b, 0x7b, 0x8c);
/// The shades, from light to dark.
pub(super) const SHADES: [RGBColor; 4] = [
    RGBColor(0x9e, 0xca, 0xe1),
    RGBColor(0x6b, 0xae, 0xd6),
    RGBColor(0x31, 0x82, 0xbd),
    RGBColor(0x08, 0x51, 0x9c),
];

/// Text of this size in pixels.
const LETTERS: u32 = 12;
const ROW_HEIGHT: i32 = 24;

/// A rectangle on the canvas, in pixels.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) x: i32,
    pub(super) y: i32,
    pub(super) width: i32,
    pub(super) height: i32,
}

/// A panel of groups of vertical bars, with the limit of each group drawn across it.
pub(super) struct Bars {
    pub(super) title: String,
    pub(super) unit: &'static str,
    /// Panels with the same number have the same scale.
    pub(super) scale: usize,
    pub(super) groups: Vec<Group>,
}

pub(super) struct Group {
    pub(super) name: String,
    pub(super) bars: Vec<Bar>,
    pub(super) limit: Option<f64>,
}

pub(super) struct Bar {
    pub(super) value: f64,
    /// The number of its shade.
    pub(super) shade: usize,
    /// What follows its value.
    pub(super) mark: &'static str,
}

/// A panel of horizontal bars, each with its name on the left and its value on the right.
pub(super) struct Rows {
    pub(super) title: String,
    pub(super) rows: Vec<(String, f64, String)>,
    /// A note below the bars.
    pub(super) notes: Vec<String>,
}

pub(super) struct Canvas<'a> {
    area: DrawingArea<SVGBackend<'a>, Shift>,
}

type Drawn = Result<(), Error>;

impl<'a> Canvas<'a> {
    pub(super) fn new(svg: &'a mut String, width: i32, height: i32) -> Result<Self, Error> {
        let size = (width.unsigned_abs(), height.unsigned_abs());
        let area = SVGBackend::with_string(svg, size).into_drawing_area();
        area.fill(&WHITE).map_err(failed)?;
        Ok(Self { area })
    }

    pub(super) fn finish(self) -> Drawn {
        self.area.present().map_err(failed)
    }

    pub(super) fn heading(&self, text: &str, x: i32, y: i32, size: u32) -> Drawn {
        let font = FontDesc::new(FontFamily::SansSerif, size.into(), FontStyle::Bold);
        let style = TextStyle::from(font).color(&INK);
        self.lettered(text, (x, y), style, HPos::Left)
    }

    pub(super) fn text(&self, text: &str, x: i32, y: i32) -> Drawn {
        self.label(text, (x, y), LETTERS, INK, HPos::Left)
    }

    /// Draws a swatch with its meaning, and returns the place of the next one.
    pub(super) fn key(&self, shade: usize, text: &str, x: i32, y: i32) -> Result<i32, Error> {
        self.rectangle((x, y - 7), (x + 14, y + 7), SHADES[shade])?;
        self.text(text, x + 20, y)?;
        Ok(x + 20 + text_width(text) + 24)
    }

    pub(super) fn limit_key(&self, text: &str, x: i32, y: i32) -> Drawn {
        self.line((x, y), (x + 24, y), LIMIT, 3)?;
        self.text(text, x + 30, y)
    }

    /// Draws vertical bars; `top` is the highest value of the axis.
    pub(super) fn bars(&self, panel: &Bars, place: Place, top: f64) -> Drawn {
        let (step, steps) = axis(top);
        let top = step * f64::from(steps);
        let (left, right) = (place.x + 42, place.x + place.width);
        let (ceiling, floor) = (place.y + 46, place.y + place.height - 24);
        let height = |value: f64| floor - whole(f64::from(floor - ceiling) * value / top);

        self.heading(&panel.title, place.x, place.y + 8, 14)?;
        self.label(
            panel.unit,
            (left - 6, ceiling - 16),
            LETTERS,
            GREY,
            HPos::Right,
        )?;
        for n in 0..=steps {
            let value = step * f64::from(n);
            let y = height(value);
            self.line((left, y), (right, y), GRID, 1)?;
            let tick = short(value);
            let tick = tick.strip_suffix(".0").unwrap_or(&tick);
            self.label(tick, (left - 6, y), LETTERS, GREY, HPos::Right)?;
        }

        let count = i32::try_from(panel.groups.len()).unwrap_or(i32::MAX).max(1);
        let each = (right - left) / count;
        for (group, n) in panel.groups.iter().zip(0i32..) {
            let middle = left + each * n + each / 2;
            let bars = i32::try_from(group.bars.len()).unwrap_or(i32::MAX).max(1);
            let wide = (each * 4 / 5 / bars).min(44);
            let begin = middle - wide * bars / 2;
            for (Bar { value, shade, mark }, n) in group.bars.iter().zip(0i32..) {
                let (x, y) = (begin + wide * n, height(*value));
                self.rectangle((x + 1, y), (x + wide - 1, floor), SHADES[*shade])?;
                let (colour, at) = match (floor - y > 20, *shade > 1) {
                    (true, true) => (WHITE, y + 10),
                    (true, false) => (INK, y + 10),
                    (false, _) => (INK, y - 9),
                };
                self.label(
                    &format!("{}{mark}", short(*value)),
                    (x + wide / 2, at),
                    LETTERS,
                    colour,
                    HPos::Center,
                )?;
            }
            if let Some(limit) = group.limit {
                let (y, reach) = (height(limit), wide * bars / 2 + 5);
                self.line((middle - reach, y), (middle + reach, y), LIMIT, 3)?;
                self.label(
                    &short(limit),
                    (middle, y - 10),
                    LETTERS,
                    LIMIT,
                    HPos::Center,
                )?;
            }
            self.label(
                &group.name,
                (middle, floor + 13),
                LETTERS,
                INK,
                HPos::Center,
            )?;
        }
        self.line((left, floor), (right, floor), INK, 1)
    }

    pub(super) fn rows(&self, panel: &Rows, place: Place) -> Drawn {
        self.heading(&panel.title, place.x, place.y + 8, 14)?;
        let name = |row: &(String, f64, String)| text_width(&row.0);
        let names = panel.rows.iter().map(name).max().unwrap_or(0);
        let value = |row: &(String, f64, String)| text_width(&row.2);
        let values = panel.rows.iter().map(value).max().unwrap_or(0);
        let left = place.x + names + 8;
        let room = f64::from((place.width - names - values - 20).max(0));
        let top = panel.rows.iter().map(|row| row.1).fold(1e-9, f64::max);
        let mut y = place.y + 36;
        for (name, value, shown) in &panel.rows {
            let end = left + whole(room * value / top).max(1);
            self.label(name, (left - 8, y), LETTERS, INK, HPos::Right)?;
            self.rectangle((left, y - 8), (end, y + 8), ROW)?;
            self.label(shown, (end + 6, y), LETTERS, INK, HPos::Left)?;
            y += ROW_HEIGHT;
        }
        for note in &panel.notes {
            self.text(note, place.x, y)?;
            y += ROW_HEIGHT;
        }
        Ok(())
    }

    fn label(&self, text: &str, at: (i32, i32), size: u32, colour: RGBColor, side: HPos) -> Drawn {
        let font = FontDesc::new(FontFamily::SansSerif, size.into(), FontStyle::Normal);
        self.lettered(text, at, TextStyle::from(font).color(&colour), side)
    }

    fn lettered(&self, text: &str, at: (i32, i32), style: TextStyle<'_>, side: HPos) -> Drawn {
        let style = style.pos(Pos::new(side, VPos::Center));
        self.area
            .draw(&Text::new(text.to_owned(), at, style))
            .map_err(failed)
    }

    fn rectangle(&self, from: (i32, i32), to: (i32, i32), colour: RGBColor) -> Drawn {
        self.area
            .draw(&Rectangle::new([from, to], colour.filled()))
            .map_err(failed)
    }

    fn line(&self, from: (i32, i32), to: (i32, i32), colour: RGBColor, width: u32) -> Drawn {
        let style = ShapeStyle::from(&colour).stroke_width(width);
        self.area
            .draw(&PathElement::new(vec![from, to], style))
            .map_err(failed)
    }
}

impl Bars {
    /// The highest of the values and limits.
    pub(super) fn top(&self) -> f64 {
        let bars = self.groups.iter().flat_map(|group| &group.bars);
        let limits = self.groups.iter().filter_map(|group| group.limit);
        bars.map(|bar| bar.value).chain(limits).fold(1e-3, f64::max)
    }
}

impl Rows {
    pub(super) fn height(&self) -> i32 {
        let lines = self.rows.len() + self.notes.len();
        36 + ROW_HEIGHT * i32::try_from(lines).unwrap_or(i32::MAX / 64)
    }
}

/// A step of 1, 2 or 5 times a power of ten, and how many steps reach `top`: at most six.
fn axis(top: f64) -> (f64, u32) {
    let mut step = 10f64.powf((top / 60.0).log10().floor());
    for factor in [2.0, 2.5, 2.0].into_iter().cycle() {
        if top / step <= 6.0 {
            break;
        }
        step *= factor;
    }
    let steps = (1..=6).find(|steps| step * f64::from(*steps) >= top);
    (step, steps.unwrap_or(6))
}

/// A value with zero to three decimals, fewer for larger values.
pub(super) fn short(value: f64) -> String {
    let digits = match value {
        0.0 | 100.0.. => 0,
        1.0.. => 1,
        0.1.. => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

/// The approximate width of a text in a common sans-serif font.
fn text_width(text: &str) -> i32 {
    i32::try_from(text.chars().count()).unwrap_or(i32::MAX / 64) * 7
}

/// Casts of floats saturate.
#[allow(clippy::cast_possible_truncation)]
fn whole(value: f64) -> i32 {
    value.round() as i32
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::new(Kind::Storage, error.to_string()).about("cannot draw the chart")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_holds_its_values_in_few_round_steps() {
        for (top, expected) in [
            (14.1, (5.0, 3)),
            (6.0, (1.0, 6)),
            (27.9, (5.0, 6)),
            (0.0011, (0.0002, 6)),
            (1000.0, (200.0, 5)),
        ] {
            let (step, steps) = axis(top);
            assert!((step / expected.0 - 1.0).abs() < 1e-9, "{top}: {step}");
            assert_eq!(steps, expected.1, "{top}");
        }
    }

    #[test]
    fn values_are_short() {
        let shown = [0.0, 0.0011, 0.42, 1.0, 12.74, 100.4, 7_812_345.0].map(short);
        assert_eq!(
            shown,
            ["0", "0.001", "0.42", "1.0", "12.7", "100", "7812345"]
        );
    }
}
