//! A report as a picture: a squarified treemap (Bruls, Huizing, van Wijk 2000). Every folder is a frame around what is in
//! it, every area stands for bytes. The file needs nothing else; titles show when the pointer rests on something.

use std::fmt::Write as _;

use super::folders::Folder;
use super::report::Report;

const WIDTH: f64 = 1280.0;
const HEIGHT: f64 = 860.0;
/// Above the map: a line about the whole, and one that tells colours.
const HEAD: f64 = 52.0;
const LINE: f64 = 15.0;
const GAP: f64 = 2.0;
/// Smaller areas cannot be seen, and would make the file long.
const SMALLEST: f64 = 3.0;
/// Sections with a colour of their own.
const COLORS: [&str; 10] =
    ["#7fb3d5", "#f0b27a", "#82c99a", "#e59aa7", "#b7a3e0", "#d9c86a", "#8fd0c9", "#c9a98b", "#a9b7c6", "#dba4d3"];

#[derive(Debug, Clone, Copy)]
struct Area {
    x: f64,
    y: f64,
    width: f64,
    height: f64,
}

/// The picture. `title` stands above it.
pub fn treemap(report: &Report, title: &str) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n"
    );
    let about = format!("{title}: {} in {} files", size(report.bytes), report.files);
    // A string takes whatever is written to it.
    let _ = writeln!(svg, "<text x=\"8\" y=\"20\" font-size=\"15\">{}</text>", escaped(&about));
    legend(report, &mut svg);
    let area = Area { x: GAP, y: HEAD, width: WIDTH - 2.0 * GAP, height: HEIGHT - HEAD - GAP };
    folder(&report.root, "", report.bytes, area, &mut svg);
    svg.push_str("</svg>\n");
    svg
}

fn legend(report: &Report, svg: &mut String) {
    const CHAR_WIDTH: f64 = 6.5;
    let mut x = 8.0;
    for (number, section) in report.sections.iter().enumerate().take(COLORS.len()) {
        let text = format!("{} {}", section.name, size(section.bytes));
        let width = 22.0 + CHAR_WIDTH * width_chars(&text);
        if x + width > WIDTH {
            break;
        }
        let (color, text, text_x) = (COLORS[number], escaped(&text), x + 14.0);
        let _ = writeln!(svg, "<rect x=\"{x:.1}\" y=\"32\" width=\"10\" height=\"10\" fill=\"{color}\"/>");
        let _ = writeln!(svg, "<text x=\"{text_x:.1}\" y=\"41\">{text}</text>");
        x += width;
    }
}

/// Draws `folder` into `area`. Calls itself once for each level, of which a report has few.
fn folder(folder_: &Folder, path: &str, whole: u64, area: Area, svg: &mut String) {
    let Folder { name, bytes, files, section, children } = folder_;
    let path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
    let shown_path = if path.is_empty() { "/" } else { &path };
    let share = if whole == 0 { 0.0 } else { 100.0 * as_f64(*bytes) / as_f64(whole) };
    let title = format!("{shown_path}\n{}, {share:.1} %, {files} files", size(*bytes));
    let label = format!("{} {}", if name.is_empty() { "/" } else { name }, size(*bytes));
    let Area { x, y, width, height } = area;
    let room = width > 40.0 && height > LINE + 2.0;
    let head = if room { LINE } else { GAP };
    let inner = Area { x: x + GAP, y: y + head, width: width - 2.0 * GAP, height: height - head - GAP };
    let has_room = inner.width >= SMALLEST && inner.height >= SMALLEST && !children.is_empty();
    let fill = match has_room {
        true => "#f4f4f4",
        false => COLORS[section % COLORS.len()],
    };
    let _ = writeln!(
        svg,
        "<g><title>{}</title><rect x=\"{x:.2}\" y=\"{y:.2}\" width=\"{width:.2}\" height=\"{height:.2}\" fill=\"{fill}\" \
         stroke=\"#666666\" stroke-width=\"0.5\"/>",
        escaped(&title)
    );
    if room {
        let (text, x, y) = (escaped(&fitting(&label, width - 6.0)), x + 3.0, y + 11.5);
        let _ = writeln!(svg, "<text x=\"{x:.2}\" y=\"{y:.2}\" pointer-events=\"none\">{text}</text>");
    }
    if has_room {
        // What is not among the children keeps its share of the area.
        let areas = squarify(children, *bytes, inner);
        for (child, area) in children.iter().zip(areas) {
            if area.width >= SMALLEST && area.height >= SMALLEST {
                folder(child, &path, whole, area, svg);
            }
        }
    }
    svg.push_str("</g>\n");
}

/// An area for each of `children`, which are sorted, the largest first.
fn squarify(children: &[Folder], total: u64, area: Area) -> Vec<Area> {
    let scale = area.width * area.height / as_f64(total.max(1));
    let sizes: Vec<f64> = children.iter().map(|child| as_f64(child.bytes) * scale).collect();
    let mut areas = Vec::with_capacity(sizes.len());
    let mut free = area;
    let mut rest = &sizes[..];
    while !rest.is_empty() {
        let side = free.width.min(free.height);
        let mut count = 1;
        while count < rest.len() && worst(&rest[..=count], side) <= worst(&rest[..count], side) {
            count += 1;
        }
        let (row, left) = rest.split_at(count);
        free = place(row, free, &mut areas);
        rest = left;
    }
    areas
}

/// The worst proportion in a row along `side`.
fn worst(row: &[f64], side: f64) -> f64 {
    let sum: f64 = row.iter().sum();
    let (largest, smallest) =
        row.iter().fold((0.0_f64, f64::MAX), |(most, least), &size| (most.max(size), least.min(size)));
    (side * side * largest / (sum * sum)).max(sum * sum / (side * side * smallest.max(f64::MIN_POSITIVE)))
}

/// Puts a row along the shorter side of `free`. Returns what is free then.
fn place(row: &[f64], free: Area, areas: &mut Vec<Area>) -> Area {
    let sum: f64 = row.iter().sum();
    let upright = free.width >= free.height;
    let (side, length) = if upright { (free.height, free.width) } else { (free.width, free.height) };
    let depth = if side > 0.0 { (sum / side).min(length) } else { 0.0 };
    let mut at = 0.0;
    for size in row {
        let part = if sum > 0.0 { (size / sum * side).min(side - at) } else { 0.0 };
        areas.push(match upright {
            true => Area { x: free.x, y: free.y + at, width: depth, height: part },
            false => Area { x: free.x + at, y: free.y, width: part, height: depth },
        });
        at += part;
    }
    match upright {
        true => Area { x: free.x + depth, width: free.width - depth, ..free },
        false => Area { y: free.y + depth, height: free.height - depth, ..free },
    }
}

/// So much of a text as fits into a width.
fn fitting(text: &str, width: f64) -> String {
    const CHAR_WIDTH: f64 = 6.0;
    if width_chars(text) * CHAR_WIDTH <= width {
        return text.into();
    }
    let mut fits = String::new();
    for c in text.chars() {
        if (width_chars(&fits) + 2.0) * CHAR_WIDTH > width {
            break;
        }
        fits.push(c);
    }
    fits + "…"
}

fn width_chars(text: &str) -> f64 {
    as_f64(text.chars().count() as u64)
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let unit = UNITS.iter().find(|(_, unit)| bytes >= *unit);
    unit.map_or_else(|| format!("{bytes} B"), |(name, unit)| format!("{:.1} {name}", as_f64(bytes) / as_f64(*unit)))
}

/// Text in XML 1.0, which cannot have control characters at all.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push('\n'),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// For areas and shares: what is lost above 2^53 bytes cannot be seen.
#[expect(clippy::cast_precision_loss, reason = "a picture needs no more digits")]
fn as_f64(number: u64) -> f64 {
    number as f64
}
