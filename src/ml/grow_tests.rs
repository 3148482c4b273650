use super::*;
use crate::ml::histogram::pack;
use crate::ml::random::{Purpose, draw};

const ROWS: usize = 40_000;
const WIDTH: usize = 5;

fn rules() -> Rules {
    Rules {
        lambda: 1.0,
        min_gain: 0.0,
        min_hessian: 0.0,
        min_rows: 1.0,
        rows_per_hessian: 1.0,
        category_smooth: 10.0,
        category_lambda: 10.0,
        category_rows: 5.0,
        category_set: 32,
        monotone: vec![Monotone::Free; WIDTH],
        gradient_unit: 1e-3,
        hessian_unit: 1e-4,
    }
}

/// A tree of 60 leaves with everything that is known of its leaves, and each row's leaf.
fn grown(threads: usize, slots: Option<usize>) -> (String, Vec<u16>, usize) {
    // The last feature is the first one again, so that workers find equal gains.
    let at = |i: usize| draw(5, Purpose::Rows, 0, (if i % WIDTH == WIDTH - 1 { i + 1 - WIDTH } else { i }) as u64);
    let binned = Binned { bins: (0..ROWS * WIDTH).map(|i| (at(i) % 60) as u8).collect(), width: WIDTH, rows: ROWS };
    let gradient = |row: usize| i32::from(binned.row(row)[0] % 7) * 90 + i32::from(binned.row(row)[3] / 9) * 50 - 400;
    let gradients: Vec<u32> =
        (0..ROWS).map(|row| pack(gradient(row) + (at(row) >> 57) as i32, 2_000 + (at(row) >> 54) as i32)).collect();
    let mut cuts = vec![Cut::Number((0..59_u8).map(f32::from).collect()); WIDTH];
    cuts[3] = Cut::Category(60);
    let size = Size { leaves: 60, depth: 64, order: Order::Leaf };
    let mut grower = Grower::new(&binned, &cuts, size, threads);
    grower.slots = slots.unwrap_or(grower.slots);
    let sampled = |row: u32| !row.is_multiple_of(3);
    let residual = |row: u32| i64::from(row);
    let (rules, allowed) = (rules(), [true; WIDTH]);
    let job = Job {
        gradients: &gradients,
        rules: &rules,
        allowed: &allowed,
        sampled: Some(&sampled),
        residual: Some(&residual),
    };
    let mut leaf_of = vec![0; ROWS];
    grower.grow(&job, &mut leaf_of); // memory that is used again must not show
    let (tree, leaves) = grower.grow(&job, &mut leaf_of);
    assert_eq!(leaves.len(), 60);
    assert!(tree.nodes.iter().any(|node| node.feature == 0) && tree.nodes.iter().all(|node| node.feature < 4));
    let leaves: Vec<_> = leaves.iter().map(|leaf| (leaf.sums, leaf.bounds, leaf.rows, leaf.residual)).collect();
    let most = grower.workers.iter().map(|worker| worker.histograms.len()).max();
    (format!("{tree:?} {leaves:?}"), leaf_of, most.unwrap())
}

#[test]
fn neither_the_number_of_workers_nor_the_memory_for_histograms_shows_in_a_tree() {
    let (tree, leaf_of, most) = grown(1, None);
    assert!(most > 10);
    for threads in [1, 2, 4] {
        for slots in [None, Some(3), Some(5)] {
            let (same, leaves, held) = grown(threads, slots);
            assert_eq!((&same, &leaves), (&tree, &leaf_of), "{threads} {slots:?}");
            assert!(slots.is_none_or(|slots| held <= slots), "{held} histograms held");
        }
    }
}

#[test]
fn every_row_is_in_the_leaf_whose_sums_it_is_in_or_elsewhere() {
    let (_, leaf_of, _) = grown(2, None);
    assert!(leaf_of.iter().enumerate().all(|(row, &leaf)| (leaf == ELSEWHERE) == row.is_multiple_of(3)));
}

#[test]
fn features_are_shared_out_once_each_in_their_order() {
    for workers in 1..9 {
        let groups = groups(&[255, 1, 1, 1, 80, 254], workers);
        assert_eq!(groups.len(), workers);
        assert_eq!(groups.into_iter().flatten().collect::<Vec<_>>(), (0..6).collect::<Vec<_>>());
    }
    assert_eq!(groups(&[100, 100, 100, 100], 2), [0..2, 2..4]);
}

#[test]
fn of_leaves_that_gain_alike_the_oldest_is_split() {
    // The first feature parts the rows; in either half the second gains the same.
    let bins: Vec<u8> = (0..64).flat_map(|row| [row / 32, row % 2]).collect();
    let binned = Binned { bins, width: 2, rows: 64 };
    let gradient = |row: usize| if row < 32 { -900 } else { 900 } + if row.is_multiple_of(2) { 100 } else { -100 };
    let gradients: Vec<u32> = (0..64).map(|row| pack(gradient(row), 1_000)).collect();
    let cuts = [Cut::Number(vec![0.5]), Cut::Number(vec![0.5])];
    let rules = Rules { lambda: 0.0, monotone: vec![Monotone::Free; 2], ..rules() };
    let job = Job { gradients: &gradients, rules: &rules, allowed: &[true; 2], sampled: None, residual: None };
    for order in [Order::Leaf, Order::Depth] {
        let size = Size { leaves: 3, depth: 64, order };
        let (tree, _) = Grower::new(&binned, &cuts, size, 1).grow(&job, &mut [0; 64]);
        assert_eq!((tree.nodes[0].feature, tree.nodes[0].left, tree.nodes[0].right), (0, 1, !1), "{order:?}");
    }
}
