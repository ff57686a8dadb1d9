//! The report as a page: one file without scripts and without anything from elsewhere, light and dark.
//!
//! Invariant: what is drawn is made of numbers and of words from this program; text from outside (URL, tilesets,
//! paths) goes through the template, which escapes it.

use std::fmt::Write as _;

use askama::Template;

use super::report::{Percentiles, Point, Report};
use super::summary::{protocol, short, size};

/// A drawing's size in its own units.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 28.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 40.0;

/// The page.
#[derive(Template)]
#[template(path = "loadtest.html")]
struct Page<'a> {
    report: &'a Report,
    started: String,
    rate: String,
    over_time: String,
    requests: String,
    curve: String,
    sources: Vec<Share>,
    browser: Vec<Share>,
    times: Vec<(&'static str, &'static str, [String; 7])>,
}

/// A part of a bar.
struct Share {
    /// What it is.
    name: String,
    /// Its class in the style sheet.
    class: String,
    count: u64,
    percent: String,
}

impl Report {
    /// As a page.
    pub fn to_html(&self) -> Result<String, askama::Error> {
        let times = [
            (
                "Latency",
                "from when the view wanted the tile to its last byte",
                &self.latency_ms,
            ),
            (
                "Wait",
                "of it: until a connection was free and open",
                &self.wait_ms,
            ),
            (
                "Service",
                "of it: from there to the last byte",
                &self.service_ms,
            ),
            (
                "View filled",
                "from a pan or zoom until all of its tiles were there",
                &self.views.fill_ms,
            ),
        ];
        let people = self.test.kind == "people";
        let times = times
            .into_iter()
            .filter(|(name, ..)| people || *name != "View filled")
            .map(|(name, what, times)| (name, what, cells(times)))
            .collect();
        Page {
            report: self,
            started: started(self.started),
            rate: format!("{:.1}", self.requests.per_second),
            over_time: latency_over_time(&self.series, self.step_seconds),
            requests: requests_over_time(&self.series, self.step_seconds),
            curve: percentile_curve(&self.curve),
            sources: self.sources(),
            browser: self.browser(),
            times,
        }
        .render()
    }

    fn sources(&self) -> Vec<Share> {
        let mut shares: Vec<Share> = self
            .cache_status
            .iter()
            .filter(|(_, part)| part.count > 0)
            .map(|(word, part)| Share {
                name: word.replace('_', " "),
                class: format!("s-{word}"),
                count: part.count,
                percent: percent(part.share),
            })
            .collect();
        shares.sort_by_key(|share| std::cmp::Reverse(share.count));
        shares
    }

    fn browser(&self) -> Vec<Share> {
        let cache = &self.browser_cache;
        let asked = cache.wanted.saturating_sub(cache.fresh + cache.stale);
        let of = |name: &str, class: &str, count: u64| Share {
            name: name.to_owned(),
            class: class.to_owned(),
            count,
            percent: percent(part(count, cache.wanted)),
        };
        let all = [
            of("in the cache, fresh", "s-memory", cache.fresh),
            of(
                "in the cache, stale, asked for behind",
                "s-stale_memory",
                cache.stale,
            ),
            of("asked for", "s-origin", asked),
        ];
        all.into_iter().filter(|share| share.count > 0).collect()
    }
}

fn cells(times: &Percentiles) -> [String; 7] {
    let columns = [
        times.mean, times.p50, times.p90, times.p95, times.p99, times.p999, times.max,
    ];
    columns.map(short)
}

fn percent(share: f64) -> String {
    format!("{:.1}", share * 100.0)
}

#[allow(
    clippy::cast_precision_loss,
    reason = "counts far below 2^53, for a drawing"
)]
fn part(count: u64, all: u64) -> f64 {
    count as f64 / (all.max(1)) as f64
}

fn started(seconds: u64) -> String {
    let time = crate::clock::Timestamp::from_secs(seconds).to_system_time();
    let text = httpdate::fmt_http_date(time);
    text.trim_end_matches("GMT").trim().to_owned() + " UTC"
}

/// An axis from numbers to places in the drawing.
#[derive(Debug, Clone, Copy)]
struct Axis {
    low: f64,
    high: f64,
    start: f64,
    end: f64,
    log: bool,
}

impl Axis {
    fn at(self, value: f64) -> f64 {
        let scale = |value: f64| {
            if self.log {
                value.max(self.low).log10()
            } else {
                value
            }
        };
        let (low, high) = (scale(self.low), scale(self.high));
        let along = ((scale(value) - low) / (high - low).max(f64::MIN_POSITIVE)).clamp(0.0, 1.0);
        self.start + along * (self.end - self.start)
    }

    /// For times: whole powers of ten.
    fn log_y(values: impl Iterator<Item = f64> + Clone) -> Self {
        let (low, high) = (
            values.clone().filter(|v| *v > 0.0).fold(f64::MAX, f64::min),
            values.fold(0.0, f64::max),
        );
        let (low, high) = if high > 0.0 { (low, high) } else { (1.0, 10.0) };
        let floor = 10_f64.powf(low.log10().floor());
        let ceiling = 10_f64.powf(high.log10().ceil());
        Self {
            low: floor,
            high: if ceiling > floor {
                ceiling
            } else {
                floor * 10.0
            },
            start: HEIGHT - BOTTOM,
            end: TOP,
            log: true,
        }
    }

    /// From 0 to a round number.
    fn linear_y(highest: f64) -> (Self, Vec<f64>) {
        let step = nice(highest.max(1.0) / 4.0);
        let steps = (highest.max(1.0) / step).ceil();
        let axis = Self {
            low: 0.0,
            high: steps * step,
            start: HEIGHT - BOTTOM,
            end: TOP,
            log: false,
        };
        let mut ticks = vec![0.0];
        while ticks
            .last()
            .is_some_and(|last| last + step <= axis.high + step / 2.0)
        {
            ticks.push(ticks.last().copied().unwrap_or(0.0) + step);
        }
        (axis, ticks)
    }

    fn x(low: f64, high: f64) -> Self {
        Self {
            low,
            high,
            start: LEFT,
            end: WIDTH - RIGHT,
            log: false,
        }
    }

    fn powers(self) -> Vec<f64> {
        let mut ticks = vec![self.low];
        while let Some(last) = ticks
            .last()
            .copied()
            .filter(|last| *last < self.high * 0.99)
        {
            ticks.push(last * 10.0);
        }
        ticks
    }
}

/// 1, 2 or 5 times a power of ten, at least this.
fn nice(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let times = [1.0, 2.0, 5.0, 10.0];
    let times = times
        .into_iter()
        .find(|times| times * power >= value * 0.999);
    times.unwrap_or(10.0) * power
}

/// A drawing with its axes.
struct Drawing(String);

impl Drawing {
    fn new(label: &str) -> Self {
        Self(format!(
            r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">"#
        ))
    }

    fn put(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = self.0.write_fmt(text);
    }

    fn y_axis(&mut self, axis: Axis, ticks: &[f64], name: impl Fn(f64) -> String) {
        for tick in ticks {
            let y = axis.at(*tick);
            let (right, text) = (WIDTH - RIGHT, LEFT - 8.0);
            let name = name(*tick);
            self.put(format_args!(
                r#"<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1}" y2="{y:.1}"/><text class="y" x="{text}" y="{:.1}">{name}</text>"#,
                y + 5.0
            ));
        }
    }

    fn x_axis(&mut self, ticks: impl Iterator<Item = (f64, String)>) {
        for (x, name) in ticks {
            let (bottom, text) = (HEIGHT - BOTTOM, HEIGHT - BOTTOM + 24.0);
            self.put(format_args!(
                r#"<line class="tick" x1="{x:.1}" x2="{x:.1}" y1="{bottom}" y2="{}"/><text class="x" x="{x:.1}" y="{text}">{name}</text>"#,
                bottom + 5.0
            ));
        }
    }

    fn line(&mut self, class: &str, points: &[(f64, f64)]) {
        // A single point is a line of no length, which its round ends make visible.
        let lone = (points.len() == 1).then(|| points[0]);
        let mut path = String::new();
        for (n, (x, y)) in points.iter().copied().chain(lone).enumerate() {
            let _ = write!(path, "{}{x:.1} {y:.1}", if n == 0 { 'M' } else { 'L' });
        }
        self.put(format_args!(r#"<path class="line {class}" d="{path}"/>"#));
    }

    /// What the pointer is told, over a strip of the drawing.
    fn strip(&mut self, from: f64, to: f64, text: &str) {
        let (width, height) = ((to - from).max(1.0), HEIGHT - TOP - BOTTOM);
        self.put(format_args!(
            r#"<rect class="strip" x="{from:.1}" y="{TOP}" width="{width:.1}" height="{height}"><title>{text}</title></rect>"#
        ));
    }

    fn end(mut self) -> String {
        self.0.push_str("</svg>");
        self.0
    }
}

fn millis(ms: f64) -> String {
    if ms >= 1000.0 {
        format!("{} s", ms / 1000.0)
    } else {
        format!("{ms} ms")
    }
}

/// Seconds along the axis, with some six names.
fn time_axis(points: &[Point], step: u64) -> (Axis, Vec<(f64, String)>) {
    let last = points.last().map_or(step, |point| point.at_seconds + step);
    let last = u32::try_from(last).unwrap_or(u32::MAX);
    let axis = Axis::x(0.0, f64::from(last));
    let gap = nice(f64::from(last) / 6.0).max(1.0);
    let mut ticks = Vec::new();
    let mut at = 0.0;
    while at <= f64::from(last) {
        ticks.push((axis.at(at), format!("{at} s")));
        at += gap;
    }
    (axis, ticks)
}

fn seconds(number: u64) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

fn strips(drawing: &mut Drawing, points: &[Point], step: u64, axis: Axis) {
    for point in points {
        let from = seconds(point.at_seconds);
        let text = format!(
            "{from} s: {:.1} requests/s, p50 {} ms, p90 {} ms, p99 {} ms, {} failed",
            point.requests_per_second,
            short(point.p50_ms),
            short(point.p90_ms),
            short(point.p99_ms),
            point.failures
        );
        drawing.strip(axis.at(from), axis.at(from + seconds(step)), &text);
    }
}

fn latency_over_time(points: &[Point], step: u64) -> String {
    let mut drawing = Drawing::new("Latency over time: median, 90th and 99th percentile");
    let seen: Vec<&Point> = points.iter().filter(|point| point.p99_ms > 0.0).collect();
    let y = Axis::log_y(seen.iter().flat_map(|p| [p.p50_ms, p.p99_ms]));
    let (x, ticks) = time_axis(points, step);
    drawing.y_axis(y, &y.powers(), millis);
    drawing.x_axis(ticks.into_iter());
    let middle = seconds(step) / 2.0;
    for (class, value) in [
        ("p99", (|p: &Point| p.p99_ms) as fn(&Point) -> f64),
        ("p90", |p| p.p90_ms),
        ("p50", |p| p.p50_ms),
    ] {
        let line: Vec<_> = seen
            .iter()
            .map(|p| (x.at(seconds(p.at_seconds) + middle), y.at(value(p))))
            .collect();
        drawing.line(class, &line);
    }
    strips(&mut drawing, points, step, x);
    drawing.end()
}

fn requests_over_time(points: &[Point], step: u64) -> String {
    let mut drawing = Drawing::new("Requests a second over time, and failures");
    let highest = points
        .iter()
        .map(|p| p.requests_per_second)
        .fold(0.0, f64::max);
    let (y, ticks) = Axis::linear_y(highest);
    let (x, names) = time_axis(points, step);
    drawing.y_axis(y, &ticks, |tick| format!("{tick}"));
    drawing.x_axis(names.into_iter());
    for point in points {
        let (from, to) = (seconds(point.at_seconds), seconds(point.at_seconds + step));
        let (left, right) = (x.at(from), x.at(to));
        let gap = if right - left > 4.0 { 1.0 } else { 0.0 };
        let mut bar = |class: &str, value: f64| {
            let top = y.at(value);
            let (width, height) = (right - left - gap, HEIGHT - BOTTOM - top);
            drawing.put(format_args!(
                r#"<rect class="{class}" x="{left:.1}" y="{top:.1}" width="{width:.1}" height="{height:.1}"/>"#
            ));
        };
        bar("bar", point.requests_per_second);
        if point.failures > 0 {
            let failures = seconds(point.failures) / seconds(step);
            bar("bar failed", failures.min(point.requests_per_second));
        }
    }
    strips(&mut drawing, points, step, x);
    drawing.end()
}

/// As gnuplot draws HDR histograms: the last hundredth gets as much room as the ninety before.
fn percentile_curve(curve: &[(f64, f64)]) -> String {
    let mut drawing = Drawing::new("Latency by percentile");
    let far = |quantile: f64| -(1.0 - quantile).max(1e-6).log10();
    let last = curve
        .last()
        .map_or(2.0, |(quantile, _)| far(*quantile))
        .max(1.0);
    let (x, y) = (
        Axis::x(0.0, last),
        Axis::log_y(curve.iter().map(|(_, ms)| *ms)),
    );
    drawing.y_axis(y, &y.powers(), millis);
    let names = [
        (0.0, "0 %"),
        (0.5, "50 %"),
        (0.9, "90 %"),
        (0.99, "99 %"),
        (0.999, "99.9 %"),
        (0.9999, "99.99 %"),
        (0.99999, "99.999 %"),
    ];
    let names = names
        .into_iter()
        .filter(|(quantile, _)| far(*quantile) <= last + 0.01);
    drawing.x_axis(names.map(|(quantile, name)| (x.at(far(quantile)), name.to_owned())));
    let line: Vec<_> = curve
        .iter()
        .map(|(quantile, ms)| (x.at(far(*quantile)), y.at(*ms)))
        .collect();
    drawing.line("p50", &line);
    for pair in curve.windows(2) {
        let text = format!("{:.3} % within {} ms", pair[0].0 * 100.0, short(pair[0].1));
        drawing.strip(x.at(far(pair[0].0)), x.at(far(pair[1].0)), &text);
    }
    drawing.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_round_numbers() {
        assert!((nice(0.3) - 0.5).abs() < 1e-9 && (nice(7.0) - 10.0).abs() < 1e-9);
        let (axis, ticks) = Axis::linear_y(37.0);
        assert!((axis.high - 40.0).abs() < 1e-9);
        assert_eq!(ticks.len(), 5);
        let log = Axis::log_y([0.3, 42.0].into_iter());
        assert_eq!(log.powers().len(), 4);
        assert!(log.at(0.1) > log.at(1.0) && log.at(1.0) > log.at(100.0));
    }

    #[test]
    fn nothing_measured_is_drawn_too() {
        for svg in [
            latency_over_time(&[], 1),
            requests_over_time(&[], 1),
            percentile_curve(&[]),
        ] {
            assert!(svg.starts_with("<svg") && svg.ends_with("</svg>"));
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }
}
