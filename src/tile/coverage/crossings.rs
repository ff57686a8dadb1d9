//! Whether edges cross: a sweep from west to east (Shamos and Hoey, 1976).
//!
//! Invariant: what the sweep line meets is in the order in which it meets it, from south to north, as long as no two
//! edges have crossed; two that are the first to cross are neighbours before they do. So time grows with the number
//! of edges times its logarithm, however they lie.
//! Edges that only meet (at their ends, or one along the other) do not cross: their order stays what it was.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::ops::Bound;

use geo::algorithm::kernels::{Kernel as _, Orientation, RobustKernel};
use geo::{Coord, Line};

/// An edge from its western end to its eastern one; of two that are as far west, from the southern one.
#[derive(Debug, Clone, Copy)]
struct Swept {
    from: Coord,
    to: Coord,
    index: u32,
}

/// From west to east, and along a meridian from south to north: a sweep line that leans a little.
fn along(a: Coord, b: Coord) -> Ordering {
    a.x.total_cmp(&b.x).then(a.y.total_cmp(&b.y))
}

impl Swept {
    fn line(&self) -> Line {
        Line::new(self.from, self.to)
    }

    /// How this one lies to one that begins no earlier (Shewchuk's exact predicates).
    fn before(&self, later: &Self) -> Ordering {
        let side = |point| match RobustKernel::orient2d(self.from, self.to, point) {
            Orientation::CounterClockwise => Ordering::Less,
            Orientation::Clockwise => Ordering::Greater,
            Orientation::Collinear => Ordering::Equal,
        };
        side(later.from)
            .then_with(|| side(later.to))
            .then(self.index.cmp(&later.index))
    }
}

impl Ord for Swept {
    fn cmp(&self, other: &Self) -> Ordering {
        if self.index == other.index {
            Ordering::Equal
        } else if along(self.from, other.from).is_le() {
            self.before(other)
        } else {
            other.before(self).reverse()
        }
    }
}

impl PartialOrd for Swept {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Swept {
    fn eq(&self, other: &Self) -> bool {
        self.index == other.index
    }
}

impl Eq for Swept {}

/// Two edges that pass through each other, if any do: those that cross furthest to the west, or near there.
pub(super) fn find(lines: impl Iterator<Item = Line>) -> Option<(Line, Line)> {
    let edges: Vec<Swept> = (0u32..)
        .zip(lines.filter(|line| line.start != line.end))
        .map(|(index, line)| {
            let forwards = along(line.start, line.end).is_lt();
            let (from, to) = if forwards {
                (line.start, line.end)
            } else {
                (line.end, line.start)
            };
            Swept { from, to, index }
        })
        .collect();
    // What ends at a place goes before what begins there comes.
    let ends = edges.iter().map(|edge| (edge.to, false, edge));
    let begins = edges.iter().map(|edge| (edge.from, true, edge));
    let mut events: Vec<_> = ends.chain(begins).collect();
    events.sort_unstable_by(|a, b| along(a.0, b.0).then(a.1.cmp(&b.1)));
    let mut met: BTreeSet<Swept> = BTreeSet::new();
    for (_, begins, &edge) in events {
        let below = met.range(..edge).next_back();
        let above = met.range((Bound::Excluded(edge), Bound::Unbounded)).next();
        let crossed = |a: &Swept, b: &Swept| cross(&a.line(), &b.line());
        let neighbours = if begins {
            let this = |other: &&Swept| crossed(&edge, other);
            below
                .filter(this)
                .or(above.filter(this))
                .map(|other| (edge, *other))
        } else {
            let pair = below.zip(above).filter(|(a, b)| crossed(a, b));
            pair.map(|(a, b)| (*a, *b))
        };
        if let Some((a, b)) = neighbours {
            return Some((a.line(), b.line()));
        }
        if begins {
            met.insert(edge);
        } else {
            met.remove(&edge);
        }
    }
    None
}

/// Whether each has its ends on both sides of the other.
fn cross(a: &Line, b: &Line) -> bool {
    let sides = |line: &Line, other: &Line| {
        let side = |end| RobustKernel::orient2d(line.start, line.end, end);
        matches!(
            (side(other.start), side(other.end)),
            (Orientation::Clockwise, Orientation::CounterClockwise)
                | (Orientation::CounterClockwise, Orientation::Clockwise)
        )
    };
    sides(a, b) && sides(b, a)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(corners: &[(i8, i8)]) -> Vec<Line> {
        let at = |(x, y): (i8, i8)| Coord {
            x: f64::from(x),
            y: f64::from(y),
        };
        let next = corners.iter().cycle().skip(1);
        let edges = corners.iter().zip(next);
        edges.map(|(a, b)| Line::new(at(*a), at(*b))).collect()
    }

    proptest! {
        /// On so small a grid most edges meet, lie along each other or stand upright.
        #[test]
        fn the_sweep_finds_a_crossing_where_looking_at_all_pairs_does(
            corners in proptest::collection::vec((0i8..7, 0i8..7), 3..12),
            others in proptest::collection::vec((0i8..7, 0i8..7), 3..6),
        ) {
            let edges = [lines(&corners), lines(&others)].concat();
            let all = edges.iter().enumerate();
            let any = all.flat_map(|(i, a)| edges[i + 1..].iter().map(move |b| (a, b))).any(|(a, b)| cross(a, b));
            let found = find(edges.iter().copied());
            prop_assert_eq!(found.is_some(), any);
            prop_assert!(found.is_none_or(|(a, b)| cross(&a, &b)));
        }
    }
}
