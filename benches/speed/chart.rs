//! The figures as a picture, for the README: bars with their quartiles, nginx as a line at one.

use std::fmt::Write as _;

use crate::Quartiles;

/// A server's ratio in a case.
pub struct Bar {
    /// Which server.
    pub server: &'static str,
    /// Its CPU a request over nginx's in the same round.
    pub ratio: Quartiles,
}

/// A case: what is asked of the servers, and how they did.
pub struct Row {
    /// In words.
    pub words: &'static str,
    /// One a server, in the order of [`COLOURS`].
    pub bars: Vec<Bar>,
}

const COLOURS: [&str; 2] = ["#8a94a0", "#1a7f5a"];
const LEFT: f64 = 300.0;
/// Pixels for a ratio of one.
const ONE: f64 = 320.0;

/// The picture, as SVG.
pub fn svg(rows: &[Row]) -> String {
    let height = 70 + rows.len() * 44;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 770 {height}\" font-family=\"system-ui, sans-serif\" \
         font-size=\"14\" fill=\"#1b1f24\" role=\"img\" aria-labelledby=\"t\">\n\
         <title id=\"t\">CPU a request as a ratio to nginx serving the same files statically</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"12\" y=\"22\" font-size=\"16\" font-weight=\"600\">CPU a request ÷ nginx serving public files</text>\n"
    );
    for (n, server) in rows
        .first()
        .into_iter()
        .flat_map(|row| row.bars.iter().enumerate())
    {
        let (x, colour) = (12 + n * 200, COLOURS[n]);
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"34\" width=\"12\" height=\"12\" fill=\"{colour}\"/><text x=\"{}\" y=\"45\">{}</text>",
            x + 18,
            server.server,
        );
    }
    let (x, bottom) = (LEFT + ONE, height - 8);
    let _ = writeln!(
        svg,
        "<path d=\"M{x} 52V{bottom}\" stroke=\"#c4512d\" stroke-dasharray=\"4 3\"/><text x=\"{}\" y=\"45\" fill=\"#c4512d\">nginx</text>",
        x - 20.0,
    );
    for (n, row) in rows.iter().enumerate() {
        let top = 62 + n * 44;
        let _ = write!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
            LEFT - 12.0,
            top + 20,
            row.words
        );
        for (place, bar) in row.bars.iter().enumerate() {
            let (y, middle) = (top + place * 17, top + place * 17 + 7);
            let (width, from, to) = (
                bar.ratio.median * ONE,
                bar.ratio.lower * ONE,
                bar.ratio.upper * ONE,
            );
            let _ = write!(
                svg,
                "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{width:.1}\" height=\"14\" fill=\"{}\"/>\
                 <path d=\"M{:.1} {middle}H{:.1}\" stroke=\"#1b1f24\"/>\
                 <text x=\"{:.1}\" y=\"{}\" font-weight=\"600\">{:.2}</text>",
                COLOURS[place],
                LEFT + from,
                LEFT + to,
                LEFT + width.max(to) + 6.0,
                y + 12,
                bar.ratio.median,
            );
        }
        svg.push('\n');
    }
    svg.push_str("</svg>\n");
    svg
}
