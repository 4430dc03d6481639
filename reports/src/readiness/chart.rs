//! Charts as SVG within a page, and what all pages share: the frame, its looks, and escaping.

use std::fmt::Write as _;

use crate::layout::clean;

/// Text as HTML shows it, whatever is in it.
pub(super) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in clean(text).chars() {
        match letter {
            '&' => safe += "&amp;",
            '<' => safe += "&lt;",
            '>' => safe += "&gt;",
            '"' => safe += "&quot;",
            '\'' => safe += "&#39;",
            letter => safe.push(letter),
        }
    }
    safe
}

/// One bar of a chart: its name, its value, what stands behind it, and the class that colours it.
pub(super) struct Column {
    pub name: String,
    pub value: f64,
    pub caption: String,
    pub class: &'static str,
}

/// Bars below each other with names on the left and figures behind; `label` says to those who do not see it what it is.
pub(super) fn bars(label: &str, columns: &[Column], names: u32) -> String {
    const ROW: u32 = 24;
    const WIDTH: u32 = 640;
    let most = columns.iter().map(|column| column.value).fold(0.0_f64, f64::max).max(1e-9);
    let room = f64::from(WIDTH - names - 90);
    let height = ROW * u32::try_from(columns.len()).unwrap_or(1000) + 4;
    let mut svg = format!(
        "<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">\n",
        escaped(label)
    );
    for (row, column) in (0..).zip(columns) {
        let (top, length) = (row * ROW + 4, column.value / most * room);
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\
             <rect class=\"{}\" x=\"{names}\" y=\"{top}\" width=\"{length:.1}\" height=\"{}\" rx=\"2\"/>\
             <text x=\"{:.1}\" y=\"{}\">{}</text>",
            names - 8,
            top + 14,
            escaped(&column.name),
            column.class,
            ROW - 6,
            f64::from(names) + length + 6.0,
            top + 14,
            escaped(&column.caption),
        );
    }
    svg + "</svg>\n"
}

/// One bar of parts of a whole: each with its class, value and caption.
pub(super) fn parts(label: &str, parts: &[(&'static str, u32)]) -> String {
    const WIDTH: f64 = 640.0;
    let all: u32 = parts.iter().map(|(_, value)| *value).sum();
    let mut svg =
        format!("<svg class=\"chart\" viewBox=\"0 0 640 34\" role=\"img\" aria-label=\"{}\">\n", escaped(label));
    let mut left = 0.0;
    for (class, value) in parts.iter().filter(|(_, value)| *value > 0) {
        let width = f64::from(*value) / f64::from(all.max(1)) * WIDTH;
        let _ = write!(svg, "<rect class=\"{class}\" x=\"{left:.1}\" y=\"2\" width=\"{width:.1}\" height=\"30\"/>");
        if width > 40.0 {
            let _ = write!(
                svg,
                "<text class=\"on\" x=\"{:.1}\" y=\"22\" text-anchor=\"middle\">{value}</text>",
                left + width / 2.0
            );
        }
        svg.push('\n');
        left += width;
    }
    svg + "</svg>\n"
}

/// A table cell.
pub(super) enum Cell {
    Text(String),
    /// To the right.
    Number(String),
    /// A word with the class of a verdict.
    Badge(String, &'static str),
}

/// A table with a header that is repeated on each printed page.
pub(super) fn table(header: &[&str], rows: impl Iterator<Item = Vec<Cell>>) -> String {
    let mut rows = rows.peekable();
    let mut html = String::from("<table>\n<thead><tr>");
    for (column, title) in header.iter().enumerate() {
        // A title stands where the figures below it do.
        let figures = rows.peek().and_then(|row| row.get(column)).is_some_and(|cell| matches!(cell, Cell::Number(_)));
        let class = if figures { " class=\"n\"" } else { "" };
        let _ = write!(html, "<th scope=\"col\"{class}>{}</th>", escaped(title));
    }
    html += "</tr></thead>\n<tbody>\n";
    for row in rows {
        html += "<tr>";
        for cell in row {
            let _ = match cell {
                Cell::Text(text) => write!(html, "<td>{}</td>", escaped(&text)),
                Cell::Number(text) => write!(html, "<td class=\"n\">{}</td>", escaped(&text)),
                Cell::Badge(text, class) => {
                    write!(html, "<td><span class=\"badge {class}\">{}</span></td>", escaped(&text))
                }
            };
        }
        html += "</tr>\n";
    }
    html + "</tbody>\n</table>\n"
}

/// A figure above its name.
pub(super) fn tile(figure: &str, name: &str, class: &str) -> String {
    format!("<div class=\"tile {class}\"><b>{}</b><span>{}</span></div>\n", escaped(figure), escaped(name))
}

/// A whole page around `body`. It loads nothing and runs nothing.
pub(super) fn document(title: &str, body: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{}</title>\n<style>\n{}</style>\n</head>\n<body>\n<main>\n{body}</main>\n\
         </body>\n</html>\n",
        escaped(title),
        include_str!("page.css")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_text_is_markup() {
        assert_eq!(
            escaped("<img src=x onerror='a(\"b\")'>&"),
            "&lt;img src=x onerror=&#39;a(&quot;b&quot;)&#39;&gt;&amp;"
        );
        assert_eq!(escaped("a\u{1b}[1m\u{202e}b"), "a\u{fffd}[1m\u{fffd}b");
    }
}
