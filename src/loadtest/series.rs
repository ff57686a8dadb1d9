//! The course of a test, in bounded room.
//!
//! Invariant: at most [`Series::MAX`] points, whatever the test's length: they grow coarser.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::stats::LONGEST;

/// A moment of the test.
#[derive(Debug, Clone)]
pub struct Point {
    /// Answers and failures.
    pub requests: u64,
    /// Failures.
    pub failures: u64,
    /// Of requests that ended then, in microseconds.
    pub latency: Histogram<u32>,
}

impl Point {
    fn new() -> Self {
        let latency = Histogram::new_with_bounds(1, LONGEST, 2);
        Self {
            requests: 0,
            failures: 0,
            latency: latency.expect("bounds that a histogram can have"),
        }
    }

    fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.failures += other.failures;
        // Both have the same bounds.
        let _ = self.latency.add(&other.latency);
    }
}

/// The course of the test, in steps of a power of two of seconds.
#[derive(Debug, Clone)]
pub struct Series {
    /// A step's seconds.
    pub step: u64,
    /// The steps.
    pub points: Vec<Point>,
}

impl Series {
    /// The most points.
    pub const MAX: usize = 128;

    /// Nothing yet.
    pub fn new() -> Self {
        Self {
            step: 1,
            points: Vec::new(),
        }
    }

    /// The point of a time after the start.
    pub fn at(&mut self, after: Duration) -> &mut Point {
        let index = |step: u64| usize::try_from(after.as_secs() / step).unwrap_or(usize::MAX);
        while index(self.step) >= Self::MAX {
            self.coarsen();
        }
        let index = index(self.step);
        while self.points.len() <= index {
            self.points.push(Point::new());
        }
        &mut self.points[index]
    }

    /// The test is over. A last step of less than half its length joins the one before: it is too short for a rate.
    pub fn end(&mut self, after: Duration) {
        let steps = self.points.len() as u64;
        let begun = Duration::from_secs(steps.saturating_sub(1) * self.step);
        if steps > 1 && after.saturating_sub(begun) * 2 < Duration::from_secs(self.step) {
            let stub = self.points.pop();
            if let (Some(stub), Some(last)) = (stub, self.points.last_mut()) {
                last.add(&stub);
            }
        }
    }

    fn coarsen(&mut self) {
        let pairs = std::mem::take(&mut self.points);
        for pair in pairs.chunks(2) {
            let mut sum = pair[0].clone();
            pair[1..].iter().for_each(|other| sum.add(other));
            self.points.push(sum);
        }
        self.step *= 2;
    }

    /// Adds another's points.
    pub fn add(&mut self, mut other: Self) {
        while self.step < other.step {
            self.coarsen();
        }
        while other.step < self.step {
            other.coarsen();
        }
        for (index, point) in other.points.iter().enumerate() {
            match self.points.get_mut(index) {
                Some(own) => own.add(point),
                None => self.points.push(point.clone()),
            }
        }
    }
}
