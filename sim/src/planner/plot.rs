//! Cost against waiting, as a picture.

use super::table::{Row, Table};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::fmt::Write as _;

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
#[error("the plot could not be drawn: {0}")]
pub struct PlotError(String);

const SIZE: (u32, u32) = (1_000, 640);
/// How high a line of text is, and how wide a letter of it at most, in pixels.
const TEXT: (i32, i32) = (13, 7);

/// A picture of the table: each policy at its cost and its wait, those that no other one beats joined by a line.
///
/// # Errors
/// [`PlotError`] when the drawing library refuses.
pub fn svg(table: &Table) -> Result<String, PlotError> {
    let mut picture = String::new();
    draw(table, &SVGBackend::with_string(&mut picture, SIZE).into_drawing_area())
        .map_err(|error| PlotError(error.to_string()))?;
    Ok(picture)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Failed<'a> = DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>;

fn wait(table: &Table, row: &Row) -> f64 {
    row.wait(table.percentile()).as_secs_f64()
}

fn draw<'a>(table: &Table, area: &Area<'a>) -> Result<(), Failed<'a>> {
    let (best, other) = (RGBColor(0x1b, 0x6e, 0xc2), RGBColor(0x77, 0x77, 0x77));
    let most = |of: &dyn Fn(&Row) -> f64| table.rows().iter().map(of).fold(0.0, f64::max).max(1.0) * 1.12;
    let (cost_to, wait_to) = (most(&|row| row.month), most(&|row| wait(table, row)));
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(area)
        .margin(16)
        .x_label_area_size(48)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..cost_to, 0.0..wait_to)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .label_style(("sans-serif", TEXT.0))
        .x_desc(format!("{} a month", table.currency()))
        .y_desc(format!("wait in seconds, {}", table.percentile()))
        .x_label_formatter(&|cost| format!("{cost:.0}"))
        .y_label_formatter(&|wait| format!("{wait:.0}"))
        .draw()?;
    let place = |row: &Row| (row.month, wait(table, row));
    let line = table.rows().iter().filter(|row| row.best).map(place);
    chart.draw_series(LineSeries::new(line, best.stroke_width(1)))?;
    let mut taken = Vec::new();
    for row in table.rows() {
        let colour = if row.best { best } else { other };
        let label = free_place(chart.backend_coord(&place(row)), &row.policy, &mut taken);
        chart.draw_series([Circle::new(place(row), 4, colour.filled())])?;
        let style = ("sans-serif", TEXT.0).into_font().color(&colour);
        area.draw(&Text::new(row.policy.clone(), label, style.pos(Pos::new(HPos::Left, VPos::Top))))?;
    }
    Ok(())
}

/// Where a label fits that hides no other: beside its point, or as few lines further down or up as there must be.
fn free_place(point: (i32, i32), label: &str, taken: &mut Vec<(i32, i32, i32)>) -> (i32, i32) {
    let width = TEXT.1 * i32::try_from(label.chars().count()).unwrap_or(i32::MAX / TEXT.1);
    // To the left where the right has no room.
    let left = if point.0 + 8 + width > SIZE.0 as i32 { (point.0 - 8 - width).max(0) } else { point.0 + 8 };
    let hides = |top: i32| {
        taken.iter().any(|(other, other_width, other_top)| {
            left < other + other_width && *other < left + width && (top - other_top).abs() < TEXT.0
        })
    };
    let lines = (0..40).map(|n| if n % 2 == 0 { n / 2 } else { -(n + 1) / 2 });
    let mut tops = lines.map(|line| point.1 - TEXT.0 / 2 + line * TEXT.0);
    let top = tops.find(|top| *top > 0 && *top < SIZE.1 as i32 - 60 && !hides(*top)).unwrap_or(point.1);
    taken.push((left, width, top));
    (left, top)
}

/// A page for a browser, with nothing to load: the picture, and the table below it.
///
/// # Errors
/// [`PlotError`] when the drawing library refuses.
pub fn html(table: &Table, title: &str) -> Result<String, PlotError> {
    let mut page = String::from("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>");
    let title = escaped(title);
    // Writing into a string cannot fail.
    let _ = write!(page, "{title}</title></head>\n<body>\n<h1>{title}</h1>\n{}", svg(table)?);
    let _ = write!(page, "\n<pre>\n{}\n</pre>\n</body></html>\n", escaped(&table.to_string()));
    Ok(page)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
