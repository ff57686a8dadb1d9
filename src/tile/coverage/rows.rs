//! Which edges reach into a row of the map's height.
//!
//! Invariant: an edge is kept in at most twice as many places as the number of rows has binary digits, however many
//! rows it crosses (a segment tree: Bentley, 1977). So outlines of long edges take no more memory than others.

/// An index of edges by the rows that they reach into.
#[derive(Debug)]
pub(super) struct Rows {
    /// How many rows: a power of two.
    count: usize,
    /// A binary tree, the root at 1 and the rows from `count` on. An edge is in those nodes whose rows it crosses all.
    nodes: Vec<Vec<u32>>,
}

impl Rows {
    /// `spans`: each edge's lowest and highest share of the height, of so many.
    pub(super) fn new(edges: usize, spans: impl Iterator<Item = (f64, f64)>) -> Self {
        let count = (edges / 8).clamp(1, 16_384).next_power_of_two();
        let mut nodes = vec![Vec::new(); 2 * count];
        for (index, (low, high)) in (0u32..).zip(spans) {
            let mut first = row_of(low, count) + count;
            let mut after = row_of(high, count) + count + 1;
            while first < after {
                if first % 2 == 1 {
                    nodes[first].push(index);
                    first += 1;
                }
                if after % 2 == 1 {
                    after -= 1;
                    nodes[after].push(index);
                }
                first /= 2;
                after /= 2;
            }
        }
        Self { count, nodes }
    }

    /// All edges that reach into the row of this height, and others near it.
    pub(super) fn at(&self, share: f64) -> impl Iterator<Item = u32> {
        let row = row_of(share, self.count) + self.count;
        std::iter::successors(Some(row), |node| Some(node / 2).filter(|above| *above > 0))
            .filter_map(|node| self.nodes.get(node))
            .flatten()
            .copied()
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "clamped to the rows that there are"
)]
fn row_of(share: f64, count: usize) -> usize {
    ((share * count as f64).floor().max(0.0) as usize).min(count - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_each_edge_once_that_reaches_into_it() {
        let spans: Vec<(f64, f64)> = (0..400u32)
            .map(|i| (f64::from(i % 20) / 20.0, f64::from(i % 20 + i / 20) / 20.0))
            .collect();
        let rows = Rows::new(spans.len(), spans.iter().copied());
        for share in [-1.0, 0.0, 0.013, 0.5, 0.77, 1.0, 2.0] {
            let mut found: Vec<u32> = rows.at(share).collect();
            found.sort_unstable();
            let row = |share| row_of(share, rows.count);
            let expected: Vec<u32> = (0u32..)
                .zip(&spans)
                .filter(|(_, (low, high))| (row(*low)..=row(*high)).contains(&row(share)))
                .map(|(index, _)| index)
                .collect();
            assert_eq!(found, expected, "{share}");
        }
    }

    #[test]
    fn edges_across_the_whole_map_are_kept_in_a_few_places() {
        let long = (0..20_000u32).map(|i| (f64::from(i) * 1e-9, 0.999));
        let rows = Rows::new(20_000, long);
        let kept: usize = rows.nodes.iter().map(Vec::len).sum();
        assert!(kept < 20_000 * 24, "{kept}");
    }
}
