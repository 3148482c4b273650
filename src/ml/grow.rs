//! Grows one tree: the leaf with the greatest gain is split next (or, depth-wise, the leaf nearest to the root).
//!
//! A team of workers grows a tree together. Each owns stripes of the rows and a range of the features for the whole training, and each
//! takes the same decisions from the same numbers, so nothing is commanded; they meet twice per split:
//!
//! ```text
//!   own rows: divide the leaf, sum the smaller child  ──meet──►  own features: add all workers' sums, best split
//!        ▲                                                                                          │
//!        └────────────────────────────── all bests: the first of the greatest gains ◄──meet─────────┘
//! ```
//!
//! Sums are integers, so neither the number of workers nor who owns what changes a bit.

use std::ops::Range;
use std::sync::{Mutex, PoisonError, RwLock};

use serde::{Deserialize, Serialize};

use crate::ml::bins::{BINS, Binned, Cut};
use crate::ml::histogram::{Histogram, Partial, Sums};
use crate::ml::split::{Bounds, Left, Monotone, Rules, Search, Split};
use crate::ml::team::{Meeting, Seat};
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
    /// Sums over its rows.
    pub sums: Sums,
    /// What its value must stay within.
    pub bounds: Bounds,
    /// L2 regularisation of its value.
    pub lambda: f64,
    /// Its rows.
    pub rows: usize,
    /// Sum of [`Job::residual`] over its rows.
    pub residual: i128,
    depth: usize,
    split: Option<Split>,
    /// Where every worker has its features' histogram, unless it was given up for another.
    histogram: Option<usize>,
    /// Where the leaf hangs: node and side.
    parent: Option<(usize, bool)>,
}

impl Leaf {
    fn new(sums: Sums, bounds: Bounds, lambda: f64, depth: usize) -> Self {
        let (split, histogram, parent) = (None, None, None);
        Self { sums, bounds, lambda, rows: 0, residual: 0, depth, split, histogram, parent }
    }
}

/// What one tree is grown on.
pub struct Job<'a> {
    /// Packed gradient and hessian of each row.
    pub gradients: &'a [u32],
    /// What restrains splits; `rows_per_hessian` is set here.
    pub rules: &'a Rules,
    /// Which features may be split on.
    pub allowed: &'a [bool],
    /// Whether a row is in the tree's sample; absent: all are.
    pub sampled: Option<&'a (dyn Fn(u32) -> bool + Sync)>,
    /// What is to be summed over each leaf's rows.
    pub residual: Option<&'a (dyn Fn(u32) -> i64 + Sync)>,
}

/// The leaf of a row that was not in the sample: no tree has so many leaves.
pub const ELSEWHERE: u16 = u16::MAX;
/// Rows that stand together and have one owner. Small, so that a split by the order of the rows leaves all workers their share.
const STRIPE: usize = 1024;
/// Rows below which another worker costs more than it saves.
const PER_WORKER: usize = 8192;
/// Memory that histograms may take, in bytes; past it a leaf's histogram is given up, and summed again if the leaf is split.
const HISTOGRAMS: usize = 256 << 20;

/// Grows trees on the same rows again and again, in memory that it keeps.
pub struct Grower<'a> {
    binned: &'a Binned,
    cuts: &'a [Cut],
    size: Size,
    workers: Vec<Worker>,
    /// Each worker's sums over its own rows.
    partials: Vec<RwLock<Partial>>,
    /// Each worker's features.
    groups: Vec<Range<usize>>,
    /// Histograms that a worker may hold.
    slots: usize,
}

/// One worker's rows and histograms.
struct Worker {
    /// Own rows, grouped by leaf.
    rows: Vec<u32>,
    spare: Vec<u32>,
    /// Where each leaf's rows are.
    places: Vec<Range<usize>>,
    /// Histograms of its own features.
    histograms: Vec<Histogram>,
    /// Bins of these features.
    bins: Vec<usize>,
    free: Vec<usize>,
}

impl<'a> Grower<'a> {
    /// For these rows.
    #[must_use]
    pub fn new(binned: &'a Binned, cuts: &'a [Cut], size: Size, threads: usize) -> Self {
        let team = threads.min(binned.rows / PER_WORKER).max(1);
        let bins: Vec<usize> = cuts.iter().map(Cut::bins).collect();
        let groups = groups(&bins, team);
        let worker = |group: &Range<usize>| Worker {
            rows: Vec::new(),
            spare: Vec::new(),
            places: Vec::new(),
            histograms: Vec::new(),
            bins: bins[group.clone()].to_vec(),
            free: Vec::new(),
        };
        Self {
            binned,
            cuts,
            size,
            workers: groups.iter().map(worker).collect(),
            partials: (0..team).map(|_| RwLock::new(Partial::new(bins.clone()))).collect(),
            groups,
            slots: (HISTOGRAMS / (bins.len() * BINS * size_of::<Sums>()).max(1)).max(3),
        }
    }

    /// Grows a tree. Its leaves have no values yet; leaf i of the tree is the i-th returned, and `leaf_of` gets each row's.
    pub fn grow(&mut self, job: &Job<'_>, leaf_of: &mut [u16]) -> (Tree, Vec<Leaf>) {
        let count = self.workers.len();
        let team = Team {
            binned: self.binned,
            cuts: self.cuts,
            size: self.size,
            job,
            partials: &self.partials,
            groups: &self.groups,
            slots: self.slots,
            meeting: Meeting::new(count),
            bests: (0..count).map(|_| Mutex::new([None; 2])).collect(),
            totals: Mutex::new(Vec::new()),
        };
        let mut stripes: Vec<Vec<&mut [u16]>> = (0..count).map(|_| Vec::new()).collect();
        leaf_of.chunks_mut(STRIPE).enumerate().for_each(|(at, stripe)| stripes[at % count].push(stripe));
        let mut members = self.workers.iter_mut().zip(stripes).enumerate();
        let own = members.next();
        let grown = std::thread::scope(|scope| {
            for (me, (worker, stripes)) in members {
                let team = &team;
                scope.spawn(move || team.grow(me, worker, stripes));
            }
            own.and_then(|(me, (worker, stripes))| team.grow(me, worker, stripes))
        });
        // Without a tree another worker has panicked, and the scope has passed that on.
        let (tree, mut leaves) = grown.unwrap_or_default();
        let totals = team.totals.into_inner().unwrap_or_else(PoisonError::into_inner);
        for (leaf, (rows, residual)) in leaves.iter_mut().zip(totals) {
            (leaf.rows, leaf.residual) = (rows, residual);
        }
        (tree, leaves)
    }
}

/// Ranges of features, one per worker, with about as many bins each.
fn groups(bins: &[usize], workers: usize) -> Vec<Range<usize>> {
    let all: usize = bins.iter().map(|bins| bins + 1).sum();
    let (mut end, mut filled) = (0, 0);
    (1..=workers)
        .map(|worker| {
            let start = end;
            while end < bins.len() && (filled * workers < all * worker || worker == workers) {
                filled += bins[end] + 1;
                end += 1;
            }
            start..end
        })
        .collect()
}

/// What the workers share while they grow one tree.
struct Team<'a> {
    binned: &'a Binned,
    cuts: &'a [Cut],
    size: Size,
    job: &'a Job<'a>,
    partials: &'a [RwLock<Partial>],
    groups: &'a [Range<usize>],
    slots: usize,
    meeting: Meeting,
    /// Each worker's best splits of the two leaves that are looked at.
    bests: Vec<Mutex<[Option<Split>; 2]>>,
    /// Rows and residuals of each leaf.
    totals: Mutex<Vec<(usize, i128)>>,
}

/// One worker at work on a tree.
struct Member<'t, 'w> {
    team: &'t Team<'t>,
    me: usize,
    seat: Seat<'t>,
    worker: &'w mut Worker,
    rules: Rules,
}

impl Team<'_> {
    /// The tree, the same for every worker; `None` if another one panicked.
    fn grow(&self, me: usize, worker: &mut Worker, mut leaf_of: Vec<&mut [u16]>) -> Option<(Tree, Vec<Leaf>)> {
        let seat = self.meeting.seat();
        worker.begin(self, me);
        let mut member = Member { team: self, me, seat, worker, rules: self.job.rules.clone() };
        let mut tree = Tree::default();
        let mut leaves = vec![member.root()?];
        while leaves.len() < self.size.leaves {
            let Some(at) = self.next(&leaves) else { break };
            let Some(split) = leaves[at].split.take() else { break };
            let added = leaves.len();
            member.worker.divide(at, &split, self.binned);
            let [mut left, mut right] = children(&leaves[at], &split, &member.rules);
            let node = self.hang(&mut tree, &leaves[at], at, added, &split);
            (left.parent, right.parent) = (Some((node, true)), Some((node, false)));
            let parent = leaves[at].histogram.take();
            leaves[at] = left;
            leaves.push(right);
            if leaves.len() < self.size.leaves && leaves[at].depth < self.size.depth {
                member.search(&mut leaves, [at, added], parent)?;
            } else {
                member.worker.free.extend(parent);
            }
        }
        tree.leaves = vec![0.0; leaves.len()];
        member.worker.label(&mut leaf_of, self.groups.len());
        self.sum(member.worker);
        Some((tree, leaves))
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

    /// Adds this worker's rows and residuals of each leaf to those of all.
    fn sum(&self, worker: &Worker) {
        let own = worker.places.iter().map(|place| {
            let rows = &worker.rows[place.clone()];
            (rows.len(), self.job.residual.map_or(0, |of| rows.iter().map(|&row| i128::from(of(row))).sum::<i128>()))
        });
        let own: Vec<(usize, i128)> = own.collect();
        let mut totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        totals.resize(own.len(), (0, 0));
        totals.iter_mut().zip(own).for_each(|(total, own)| *total = (total.0 + own.0, total.1 + own.1));
    }
}

impl Member<'_, '_> {
    fn root(&mut self) -> Option<Leaf> {
        let slot = self.worker.slot(self.team, &mut []);
        self.fill(0, slot)?;
        let parts = self.team.partials.iter().map(|part| part.read().unwrap_or_else(PoisonError::into_inner).total());
        let (sums, rows) = parts.fold((Sums::default(), 0), |all, part| (all.0.plus(part.0), all.1 + part.1));
        self.rules.rows_per_hessian = rows as f64 / (sums.hessian.max(1) as f64 * self.rules.hessian_unit);
        let mut root = Leaf::new(sums, Bounds::NONE, self.rules.lambda, 0);
        let own = self.best(slot, &root);
        [root.split, _] = self.agree([own, None])?;
        root.histogram = Some(slot);
        Some(root)
    }

    /// Finds the splits of two siblings: one's histogram is summed, the other's is what the parent has more.
    fn search(&mut self, leaves: &mut [Leaf], pair: [usize; 2], parent: Option<usize>) -> Option<()> {
        // Few rows have little hessian, if not always the least: either may be summed.
        let [left, right] = pair;
        let small_first = leaves[left].sums.hessian <= leaves[right].sums.hessian;
        let (small, large) = if small_first { (left, right) } else { (right, left) };
        let slot = self.worker.slot(self.team, leaves);
        self.fill(small, slot)?;
        let rest = match parent {
            Some(parent) => {
                let child = std::mem::replace(&mut self.worker.histograms[slot], Histogram::new(Vec::new()));
                self.worker.histograms[parent].subtract(&child);
                self.worker.histograms[slot] = child;
                parent
            }
            None => {
                self.seat.wait()?; // all have read the sums that are made anew now
                let rest = self.worker.slot(self.team, leaves);
                self.fill(large, rest)?;
                rest
            }
        };
        let own = [self.best(slot, &leaves[small]), self.best(rest, &leaves[large])];
        let splits = self.agree(own)?;
        for (leaf, slot, split) in [(small, slot, splits[0]), (large, rest, splits[1])] {
            leaves[leaf].split = split;
            if split.is_some() {
                leaves[leaf].histogram = Some(slot);
            } else {
                self.worker.free.push(slot);
            }
        }
        Some(())
    }

    /// Sums the leaf's own rows, then adds all workers' sums of the own features.
    fn fill(&mut self, leaf: usize, slot: usize) -> Option<()> {
        let Team { binned, job, partials, groups, .. } = self.team;
        let rows = &self.worker.rows[self.worker.places[leaf].clone()];
        partials[self.me].write().unwrap_or_else(PoisonError::into_inner).fill(binned, job.gradients, rows);
        self.seat.wait()?;
        let histogram = &mut self.worker.histograms[slot];
        let first = groups[self.me].start;
        for (at, part) in partials.iter().enumerate() {
            let part = part.read().unwrap_or_else(PoisonError::into_inner);
            if at == 0 { histogram.set(&part, first) } else { histogram.add(&part, first) }
        }
        Some(())
    }

    /// The best split by the own features.
    fn best(&self, slot: usize, leaf: &Leaf) -> Option<Split> {
        let group = self.team.groups[self.me].clone();
        let (cuts, allowed) = (&self.team.cuts[group.clone()], &self.team.job.allowed[group.clone()]);
        let search = Search { rules: &self.rules, first: group.start, cuts, allowed };
        search.best(&self.worker.histograms[slot], leaf.sums, leaf.bounds)
    }

    /// The best splits by all features; ties go to the lower one.
    fn agree(&self, own: [Option<Split>; 2]) -> Option<[Option<Split>; 2]> {
        *self.team.bests[self.me].lock().unwrap_or_else(PoisonError::into_inner) = own;
        self.seat.wait()?;
        let all: Vec<_> =
            self.team.bests.iter().map(|best| *best.lock().unwrap_or_else(PoisonError::into_inner)).collect();
        let better = |best: Split, other: Split| if other.gain > best.gain { other } else { best };
        Some([0, 1].map(|leaf| all.iter().filter_map(|best| best[leaf]).reduce(better)))
    }
}

impl Worker {
    /// All own rows that are in the sample, in one leaf.
    fn begin(&mut self, team: &Team<'_>, me: usize) {
        let (rows, stripe) = (team.binned.rows as u32, STRIPE as u32);
        let own = (me..).step_by(team.groups.len()).map(|at| at as u32 * stripe).take_while(|&first| first < rows);
        let own = own.flat_map(|first| first..rows.min(first + stripe));
        self.rows.clear();
        match team.job.sampled {
            None => self.rows.extend(own),
            Some(sampled) => self.rows.extend(own.filter(|&row| sampled(row))),
        }
        self.spare.resize(self.rows.len(), 0);
        self.places.clear();
        self.places.push(0..self.rows.len());
        self.free = (0..self.histograms.len()).collect();
    }

    /// A place for a histogram. When there is none, the leaf that gains least gives up its own: every worker takes the same.
    fn slot(&mut self, team: &Team<'_>, leaves: &mut [Leaf]) -> usize {
        if let Some(slot) = self.free.pop() {
            return slot;
        }
        let gain = |leaf: &&mut Leaf| leaf.split.map_or(f64::NEG_INFINITY, |split| split.gain);
        if self.histograms.len() >= team.slots
            && let Some(least) =
                leaves.iter_mut().filter(|leaf| leaf.histogram.is_some()).min_by(|a, b| gain(a).total_cmp(&gain(b)))
            && let Some(slot) = least.histogram.take()
        {
            return slot;
        }
        self.histograms.push(Histogram::new(self.bins.clone()));
        self.histograms.len() - 1
    }

    /// Sorts the leaf's own rows into those of its two children: the first takes its place, the second comes last.
    fn divide(&mut self, leaf: usize, split: &Split, binned: &Binned) {
        let place = self.places[leaf].clone();
        let (rows, spare) = (&mut self.rows[place.clone()], &mut self.spare[place.clone()]);
        let lefts = part(binned, split.feature, &split.table(), rows, spare);
        let rights = rows.len() - lefts;
        rows[lefts..].copy_from_slice(&spare[..rights]);
        self.places[leaf] = place.start..place.start + lefts;
        self.places.push(place.start + lefts..place.end);
    }

    /// Writes each own row's leaf into the own stripes, of which every `workers`-th is this worker's.
    fn label(&self, stripes: &mut [&mut [u16]], workers: usize) {
        stripes.iter_mut().for_each(|stripe| stripe.fill(ELSEWHERE));
        for (leaf, place) in self.places.iter().enumerate() {
            for &row in &self.rows[place.clone()] {
                stripes[row as usize / STRIPE / workers][row as usize % STRIPE] = leaf as u16;
            }
        }
    }
}

/// The leaf's children, without rows.
fn children(leaf: &Leaf, split: &Split, rules: &Rules) -> [Leaf; 2] {
    let right_sums = leaf.sums.minus(split.left_sums);
    let (low, high) = bounds(leaf.bounds, split, rules, right_sums);
    [(split.left_sums, low), (right_sums, high)]
        .map(|(sums, bounds)| Leaf::new(sums, bounds, split.lambda, leaf.depth + 1))
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

#[cfg(test)]
#[path = "grow_tests.rs"]
mod tests;
