//! Grows one tree: the leaf with the greatest gain is split next (or, depth-wise, the leaf nearest to the root).

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::ml::bins::{BINS, Binned, Cut};
use crate::ml::histogram::{Histogram, Scratch, Sums};
use crate::ml::split::{Bounds, Left, Monotone, Rules, Search, Split};
use crate::ml::tree::{Child, Node, Test, Tree};

/// Which leaf is split next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// The one that gains most.
    Leaf,
    /// The one nearest to the root, ties by age.
    Depth,
}

/// The size of a tree.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Most leaves.
    pub leaves: usize,
    /// Greatest depth of a leaf.
    pub depth: usize,
    /// Which leaf is split next.
    pub order: Order,
}

/// A leaf of a grown tree.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// Its rows: a range of [`Grower::rows`].
    pub rows: Range<usize>,
    /// Sums over its rows.
    pub sums: Sums,
    /// What its value must stay within.
    pub bounds: Bounds,
    /// L2 regularisation of its value.
    pub lambda: f64,
    depth: usize,
    split: Option<Split>,
    histogram: Option<usize>,
    /// Where the leaf hangs: node and side.
    parent: Option<(usize, bool)>,
}

/// Grows trees on the same rows again and again, in memory that it keeps.
pub struct Grower<'a> {
    binned: &'a Binned,
    cuts: &'a [Cut],
    size: Size,
    threads: usize,
    scratch: Scratch,
    histograms: Vec<Histogram>,
    free: Vec<usize>,
    /// Row numbers, grouped by leaf after [`Grower::grow`].
    pub rows: Vec<u32>,
    spare: Vec<u32>,
}

/// Rows below which a partition is not worth a second thread.
const PARTITION_PER_THREAD: usize = 8192;

impl<'a> Grower<'a> {
    /// For these rows.
    #[must_use]
    pub fn new(binned: &'a Binned, cuts: &'a [Cut], size: Size, threads: usize) -> Self {
        Self {
            binned,
            cuts,
            size,
            threads,
            scratch: Scratch::new(threads, cuts.len()),
            histograms: Vec::new(),
            free: Vec::new(),
            rows: Vec::new(),
            spare: vec![0; binned.rows],
        }
    }

    /// Grows a tree on `self.rows`. Its leaves have no values yet; leaf i of the tree is the i-th returned.
    pub fn grow(&mut self, gradients: &[u32], rules: &mut Rules, allowed: &[bool]) -> (Tree, Vec<Leaf>) {
        let mut tree = Tree::default();
        let mut leaves = vec![self.root(gradients, rules, allowed)];
        while leaves.len() < self.size.leaves {
            let Some(at) = self.next(&leaves) else { break };
            let Some(split) = leaves[at].split.take() else { break };
            let (left, right) = self.divide(&leaves[at], &split, rules);
            let node = self.hang(&mut tree, &leaves[at], at, leaves.len(), &split);
            let (mut left, mut right) = (left, right);
            left.parent = Some((node, true));
            right.parent = Some((node, false));
            let parent = leaves[at].histogram.take();
            let last = leaves.len() + 1 >= self.size.leaves;
            if !last {
                self.search(parent, [&mut left, &mut right], gradients, rules, allowed);
            }
            leaves[at] = left;
            leaves.push(right);
        }
        self.free = (0..self.histograms.len()).collect();
        tree.leaves = vec![0.0; leaves.len()];
        (tree, leaves)
    }

    fn root(&mut self, gradients: &[u32], rules: &mut Rules, allowed: &[bool]) -> Leaf {
        let slot = self.slot();
        self.histograms[slot].fill(self.binned, gradients, &self.rows, &mut self.scratch);
        let cells = self.histograms[slot].cells.first().map(|cells| &cells[..]).unwrap_or_default();
        let sums = cells.iter().fold(Sums::default(), |total, cell| total.plus(*cell));
        rules.rows_per_hessian = self.rows.len() as f64 / (sums.hessian.max(1) as f64 * rules.hessian_unit);
        let search = Search { rules, cuts: self.cuts, allowed };
        let split = search.best(&self.histograms[slot], sums, Bounds::NONE);
        let rows = 0..self.rows.len();
        let (bounds, lambda) = (Bounds::NONE, rules.lambda);
        Leaf { rows, sums, bounds, lambda, depth: 0, split, histogram: Some(slot), parent: None }
    }

    fn slot(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.histograms.push(Histogram::new(self.cuts.iter().map(Cut::bins).collect()));
            self.histograms.len() - 1
        })
    }

    fn next(&self, leaves: &[Leaf]) -> Option<usize> {
        let open =
            leaves.iter().enumerate().filter_map(|(i, leaf)| leaf.split.map(|split| (i, leaf.depth, split.gain)));
        match self.size.order {
            // The first of equal gains: `max_by` would take the last.
            Order::Leaf => open.reduce(|best, other| if other.2 > best.2 { other } else { best }),
            Order::Depth => open.reduce(|best, other| if other.1 < best.1 { other } else { best }),
        }
        .map(|(i, ..)| i)
    }

    /// Sorts the leaf's rows into those of its two children.
    fn divide(&mut self, leaf: &Leaf, split: &Split, rules: &Rules) -> (Leaf, Leaf) {
        let rows = &mut self.rows[leaf.rows.clone()];
        let spare = &mut self.spare[leaf.rows.clone()];
        let lefts = partition(self.binned, split, rows, spare, self.threads);
        let middle = leaf.rows.start + lefts;
        let right_sums = leaf.sums.minus(split.left_sums);
        let (low, high) = bounds(leaf.bounds, split, rules, right_sums);
        let child = |rows, sums, bounds| Leaf {
            rows,
            sums,
            bounds,
            lambda: split.lambda,
            depth: leaf.depth + 1,
            split: None,
            histogram: None,
            parent: None,
        };
        (child(leaf.rows.start..middle, split.left_sums, low), child(middle..leaf.rows.end, right_sums, high))
    }

    /// Adds the node; its children are leaf `at`, in place of the divided one, and the new leaf `added`.
    fn hang(&self, tree: &mut Tree, leaf: &Leaf, at: usize, added: usize, split: &Split) -> usize {
        let node = tree.nodes.len();
        if let Some((parent, left)) = leaf.parent {
            let parent = &mut tree.nodes[parent];
            *(if left { &mut parent.left } else { &mut parent.right }) = node as Child;
        }
        let test = match (split.left, &self.cuts[usize::from(split.feature)]) {
            // The last bin has no upper bound: this split parts missing values from all others.
            (Left::UpTo(bin), Cut::Number(thresholds)) => {
                Test::AtMost(thresholds.get(usize::from(bin)).copied().unwrap_or(f32::INFINITY))
            }
            (Left::UpTo(bin), Cut::Category(_)) => Test::AtMost(f32::from(bin)),
            (Left::Set(codes), _) => {
                tree.sets.push(codes);
                Test::In(tree.sets.len() as u32 - 1)
            }
        };
        let (left, right) = (!(at as Child), !(added as Child));
        tree.nodes.push(Node { feature: split.feature, missing_left: split.missing_left, test, left, right });
        node
    }

    /// Finds the children's splits: the smaller one's histogram is summed, the other's is what the parent has more.
    fn search(
        &mut self,
        parent: Option<usize>,
        children: [&mut Leaf; 2],
        gradients: &[u32],
        rules: &Rules,
        allowed: &[bool],
    ) {
        let Some(parent) = parent else { return };
        let deep = children[0].depth >= self.size.depth;
        if deep {
            self.free.push(parent);
            return;
        }
        let [left, right] = children;
        let (small, large) = if left.rows.len() <= right.rows.len() { (left, right) } else { (right, left) };
        let slot = self.slot();
        let mut histogram = std::mem::replace(&mut self.histograms[slot], Histogram::new(Vec::new()));
        histogram.fill(self.binned, gradients, &self.rows[small.rows.clone()], &mut self.scratch);
        self.histograms[parent].subtract(&histogram);
        self.histograms[slot] = histogram;
        let search = Search { rules, cuts: self.cuts, allowed };
        small.split = search.best(&self.histograms[slot], small.sums, small.bounds);
        large.split = search.best(&self.histograms[parent], large.sums, large.bounds);
        for (leaf, slot) in [(small, slot), (large, parent)] {
            if leaf.split.is_some() {
                leaf.histogram = Some(slot);
            } else {
                self.free.push(slot);
            }
        }
    }
}

/// The bounds of both children: on a monotone feature they meet half-way between the children's values.
fn bounds(own: Bounds, split: &Split, rules: &Rules, right: Sums) -> (Bounds, Bounds) {
    let monotone = rules.monotone[usize::from(split.feature)];
    let middle = (rules.value(split.left_sums, split.lambda, own) + rules.value(right, split.lambda, own)) / 2.0;
    let (below, above) = (Bounds { high: middle, ..own }, Bounds { low: middle, ..own });
    match monotone {
        Monotone::Free => (own, own),
        Monotone::Increasing => (below, above),
        Monotone::Decreasing => (above, below),
    }
}

/// Stable partition; gives the number of rows that go left. Any number of threads gives the same order.
fn partition(binned: &Binned, split: &Split, rows: &mut [u32], spare: &mut [u32], threads: usize) -> usize {
    let table = split.table();
    let threads = threads.min(rows.len() / PARTITION_PER_THREAD).max(1);
    if threads == 1 {
        let lefts = part(binned, split.feature, &table, rows, spare);
        let rights = rows.len() - lefts;
        rows[lefts..].copy_from_slice(&spare[..rights]);
        return lefts;
    }
    let block = rows.len().div_ceil(threads);
    let mut lefts = vec![0; rows.len().div_ceil(block)];
    std::thread::scope(|scope| {
        let table = &table;
        let mut work = lefts.iter_mut().zip(rows.chunks_mut(block).zip(spare.chunks_mut(block)));
        let own = work.next();
        for (lefts, (rows, spare)) in work {
            scope.spawn(move || *lefts = part(binned, split.feature, table, rows, spare));
        }
        if let Some((lefts, (rows, spare))) = own {
            *lefts = part(binned, split.feature, table, rows, spare);
        }
    });
    let mut end = 0;
    for (i, &lefts) in lefts.iter().enumerate() {
        rows.copy_within(i * block..i * block + lefts, end);
        end += lefts;
    }
    let total = end;
    for (i, spare) in spare.chunks(block).enumerate() {
        let rights = spare.len() - lefts[i];
        rows[end..end + rights].copy_from_slice(&spare[..rights]);
        end += rights;
    }
    total
}

/// Lefts to the front of `rows`, rights to the front of `spare`, without a branch on the row.
fn part(binned: &Binned, feature: u16, table: &[bool; BINS], rows: &mut [u32], spare: &mut [u32]) -> usize {
    let (width, feature) = (binned.width, usize::from(feature));
    let (mut lefts, mut rights) = (0, 0);
    for i in 0..rows.len() {
        let row = rows[i];
        let left = table[usize::from(binned.bins[row as usize * width + feature])];
        rows[lefts] = row;
        spare[rights] = row;
        lefts += usize::from(left);
        rights += usize::from(!left);
    }
    lefts
}
