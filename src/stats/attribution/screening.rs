//! From many contributors to at most sixteen players: cheap values that rank, without training a model per coalition.

use super::game::MAX_PLAYERS;
use crate::stats::random::Seed;

/// Neighbours that vote in KNN-Shapley.
pub const NEIGHBOURS: usize = 10;

/// 2⁻⁶⁰: values of single test rows are added as integers, so that the order of test rows does not matter.
const QUANTUM: f64 = 1.0 / (1_u64 << 60) as f64;

/// Rows of a K-nearest-neighbour classification: features row-major with `width` columns, one label per row.
#[derive(Debug, Clone, Copy)]
pub struct Labelled<'a> {
    /// Features, row by row.
    pub features: &'a [f64],
    /// Labels.
    pub labels: &'a [i64],
}

/// KNN-Shapley (Jia et al. 2019, Theorem 1): each training row's exact Shapley value in the game whose utility is the mean share of a
/// test row's `neighbours` nearest that have its label. Squared Euclidean distance; ties by position. `None` if shapes do not
/// fit or a feature is NaN.
#[must_use]
pub fn knn_shapley(train: Labelled<'_>, test: Labelled<'_>, width: usize, neighbours: usize) -> Option<Vec<f64>> {
    let rows = train.labels.len();
    let fits = train.features.len() == rows.checked_mul(width)?
        && test.features.len() == test.labels.len().checked_mul(width)?;
    let numbers = train.features.iter().chain(test.features).all(|feature| !feature.is_nan());
    if !fits || !numbers || rows == 0 || test.labels.is_empty() || neighbours == 0 || width == 0 {
        return None;
    }
    let mut sums = vec![0_i128; rows];
    let mut order: Vec<(f64, usize)> = Vec::with_capacity(rows);
    for (point, label) in test.features.chunks_exact(width).zip(test.labels) {
        order.clear();
        order.extend(train.features.chunks_exact(width).map(|row| distance(row, point)).zip(0..));
        order.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let hit = |rank: usize| f64::from(u8::from(train.labels[order[rank].1] == *label));
        // From the farthest row to the nearest; rank r is the (r + 1)-th nearest.
        let mut value = hit(rows - 1) * neighbours.min(rows) as f64 / (neighbours as f64 * rows as f64);
        sums[order[rows - 1].1] += (value / QUANTUM) as i128;
        for rank in (0..rows - 1).rev() {
            let nearer = rank + 1;
            value += (hit(rank) - hit(nearer)) / neighbours as f64 * neighbours.min(nearer) as f64 / nearer as f64;
            sums[order[rank].1] += (value / QUANTUM) as i128;
        }
    }
    let tests = test.labels.len() as f64;
    Some(sums.into_iter().map(|sum| sum as f64 * QUANTUM / tests).collect())
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}

/// Random sets of players, each player in each set with probability one half: the draws of [`banzhaf`].
#[must_use]
pub fn draw_sets(players: usize, sets: usize, seed: Seed) -> Vec<Vec<bool>> {
    (0..sets as u64)
        .map(|set| {
            let mut stream = seed.stream(set);
            (0..players).map(|_| stream.bits() & 1 == 1).collect()
        })
        .collect()
}

/// Banzhaf values by maximum sample reuse (Wang & Jia 2023, §4): the mean utility of the sets with a player minus that of those
/// without. Every set serves every player. For ranking many players; `None` where all sets are on one side.
#[must_use]
pub fn banzhaf(players: usize, sets: &[(Vec<bool>, f64)]) -> Vec<Option<f64>> {
    let one = |player: usize| {
        let (mut with, mut without) = ((0.0, 0_u32), (0.0, 0_u32));
        for (set, utility) in sets {
            let side = if set.get(player).copied().unwrap_or(false) { &mut with } else { &mut without };
            *side = (side.0 + utility, side.1 + 1);
        }
        (with.1 > 0 && without.1 > 0).then(|| with.0 / f64::from(with.1) - without.0 / f64::from(without.1))
    };
    (0..players).map(one).collect()
}

/// A contributor with what screening says of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Contributor {
    /// Its id.
    pub id: String,
    /// Its accepted rows.
    pub rows: u64,
    /// Its screening value.
    pub value: f64,
}

/// A player of the game: one contributor, or the rest of them together.
#[derive(Debug, Clone, PartialEq)]
pub struct Player {
    /// The contributors, with their rows; by id.
    pub members: Vec<(String, u64)>,
}

/// At most `most` players, and never more than [`MAX_PLAYERS`]: if there are more contributors, those with the highest screening
/// values play alone and all others as one. Ties by rows, then by id. The players' order is that of their ids, the rest last.
#[must_use]
pub fn players(mut contributors: Vec<Contributor>, most: usize) -> Vec<Player> {
    let most = most.clamp(1, MAX_PLAYERS);
    contributors.sort_by(|a, b| b.value.total_cmp(&a.value).then(b.rows.cmp(&a.rows)).then_with(|| a.id.cmp(&b.id)));
    let alone = if contributors.len() > most { most - 1 } else { contributors.len() };
    let rest = contributors.split_off(alone);
    let member = |own: Contributor| (own.id, own.rows);
    let mut players: Vec<Player> = contributors.into_iter().map(|own| Player { members: vec![member(own)] }).collect();
    players.sort_by(|a, b| a.members.cmp(&b.members));
    if !rest.is_empty() {
        let mut members: Vec<_> = rest.into_iter().map(member).collect();
        members.sort();
        players.push(Player { members });
    }
    players
}
