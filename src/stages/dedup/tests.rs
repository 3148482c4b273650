use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{FixedSizeBinaryArray, RecordBatch, StringArray, UInt32Array};
use arrow::ipc::writer::StreamWriter;
use proptest::prelude::*;

use super::*;
use crate::domain::records::ReleasedChunk;
use crate::stages::testing::{End, Task, batch};
use crate::stream::stage::State;

/// A row as a test names it: features and label.
type Row = (u8, u8);

/// Accepted, in batch, in pool, other owner, label conflicts.
type Tally = (i64, i64, i64, i64, i64);

fn hashes(row: Row) -> (u128, u128) {
    let features = (u128::from(row.0) + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
    (features ^ (u128::from(row.1) + 1).wrapping_mul(0xD6E8_FEB8_6659_FD93), features)
}

fn stream(rows: &[Row]) -> Vec<u8> {
    let column = |pick: fn((u128, u128)) -> u128| {
        let bytes = rows.iter().map(|r| pick(hashes(*r)).to_be_bytes().to_vec());
        FixedSizeBinaryArray::try_from_iter(bytes).unwrap()
    };
    let text = StringArray::from_iter_values(rows.iter().map(|(f, l)| format!("{f}-{l}")));
    let batch = RecordBatch::try_from_iter([
        (rows::ROW, Arc::new(UInt32Array::from_iter_values(0..rows.len() as u32)) as _),
        (rows::ROW_HASH, Arc::new(column(|h| h.0)) as _),
        (rows::FEATURE_HASH, Arc::new(column(|h| h.1)) as _),
        ("text", Arc::new(text) as _),
    ])
    .unwrap();
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

fn chunk_id(contribution: &str, contributor: &str, chunk: i64) -> ChunkId {
    ChunkId {
        contribution_id: contribution.to_owned(),
        contributor: contributor.to_owned(),
        model: "m".to_owned(),
        contract_digest: "c0".to_owned(),
        chunk,
        chunk_digest: format!("{contribution}/{chunk}"),
        passed: "p".to_owned(),
    }
}

fn screened_part(
    contribution: &str,
    contributor: &str,
    chunk: i64,
    part: i32,
    parts: i32,
    rows: &[Row],
) -> ScreenedEvent {
    ScreenedEvent {
        rows: Some(ScreenedRows {
            refuse_label_conflicts: false,
            id: chunk_id(contribution, contributor, chunk),
            shard: 0,
            part,
            parts,
            rows: rows.len() as i64,
            batch: stream(rows),
        }),
        release: None,
    }
}

fn screened(contribution: &str, contributor: &str, rows: &[Row]) -> ScreenedEvent {
    screened_part(contribution, contributor, 0, 0, 1, rows)
}

fn release(contribution: &str, contributor: &str) -> ScreenedEvent {
    let id = chunk_id(contribution, contributor, 0);
    ScreenedEvent {
        rows: None,
        release: Some(Release {
            contribution_id: id.contribution_id,
            contributor: id.contributor,
            model: id.model,
            contract_digest: id.contract_digest,
            chunks: vec![ReleasedChunk { chunk: 0, chunk_digest: id.chunk_digest, passed: id.passed }],
        }),
    }
}

fn task() -> Task<Dedup> {
    Task::new(Dedup::new(), 0, &[(topics::SCREENED, 1)])
}

fn run(events: &[ScreenedEvent]) -> Task<Dedup> {
    let mut task = task();
    task.commit(&[batch(topics::SCREENED, 0, 0, 0, events)]).unwrap();
    task
}

/// (accepted, in batch, in pool, other owner, label conflicts) of each verdict.
fn verdicts(task: &Task<Dedup>) -> Vec<Tally> {
    let count =
        |v: &Verdict, reason: Reason| v.duplicates.iter().find(|c| c.name == reason.code()).map_or(0, |c| c.count);
    let of = |v: &Verdict| {
        let dups = [Reason::DupInBatch, Reason::DupInPool, Reason::DupOtherOwner].map(|r| count(v, r));
        (v.accepted, dups[0], dups[1], dups[2], v.label_conflicts)
    };
    task.values::<Verdict>(topics::VERDICTS).iter().map(of).collect()
}

#[test]
fn the_first_contributor_owns_a_row_and_each_kind_of_duplicate_is_told_apart() {
    let task = run(&[
        screened("a1", "alice", &[(1, 0), (2, 0), (1, 0)]),
        screened("a2", "alice", &[(2, 0), (3, 0)]),
        screened("b1", "bob", &[(1, 0), (3, 0), (4, 0), (4, 0)]),
    ]);
    assert_eq!(verdicts(&task), [(2, 1, 0, 0, 0), (1, 0, 1, 0, 0), (1, 1, 0, 2, 0)]);
}

#[test]
fn who_owns_a_row_of_somebody_else_stands_in_no_refusal() {
    let task = run(&[screened("secret-id", "alice", &[(1, 0)]), screened("b1", "bob", &[(1, 0)])]);
    let refused = task.values::<Refused>(topics::REFUSED);
    let refusal = &refused[0].refusals[0];
    assert_eq!((refusal.code.as_str(), refusal.shape.as_str()), ("DUP_OTHER_OWNER", ""));
    assert!(!format!("{refused:?}").contains("alice") && !format!("{refused:?}").contains("secret-id"));
}

#[test]
fn a_row_with_another_label_is_accepted_and_counts_as_a_label_conflict() {
    let task = run(&[screened("a1", "alice", &[(1, 0), (1, 1)]), screened("b1", "bob", &[(1, 2), (1, 1), (2, 0)])]);
    assert_eq!(verdicts(&task), [(2, 0, 0, 0, 1), (2, 0, 0, 1, 1)]);
}

#[test]
fn a_row_with_another_label_is_refused_when_its_contract_says_so_and_owns_nothing() {
    let strict = |mut event: ScreenedEvent| {
        event.rows.as_mut().unwrap().refuse_label_conflicts = true;
        event
    };
    let chunk = strict(screened("b1", "bob", &[(1, 2), (1, 1), (2, 0)]));
    let task = run(&[screened("a1", "alice", &[(1, 0)]), chunk.clone(), chunk, screened("c1", "carol", &[(1, 2)])]);
    assert_eq!(verdicts(&task), [(1, 0, 0, 0, 0), (1, 0, 0, 0, 2), (1, 0, 0, 0, 2), (1, 0, 0, 0, 1)]);
    let refused = &task.values::<Verdict>(topics::VERDICTS)[1].duplicates;
    assert_eq!(refused.iter().map(|c| (c.name.as_str(), c.count)).collect::<Vec<_>>(), [("LABEL_CONFLICT", 2)]);
    let refusals: Vec<_> = task.values::<Refused>(topics::REFUSED).into_iter().flat_map(|r| r.refusals).collect();
    assert_eq!(
        refusals.iter().map(|r| (r.row, r.code.as_str())).collect::<Vec<_>>(),
        [(0, "LABEL_CONFLICT"), (1, "LABEL_CONFLICT")]
    );
}

#[test]
fn a_replayed_part_gets_its_old_verdict_and_its_rows_are_not_accepted_again() {
    let chunk = screened("a1", "alice", &[(1, 0), (1, 0)]);
    let task = run(&[chunk.clone(), screened("b1", "bob", &[(2, 0)]), chunk]);
    assert_eq!(verdicts(&task), [(1, 1, 0, 0, 0), (1, 0, 0, 0, 0), (1, 1, 0, 0, 0)]);
    assert_eq!(task.values::<Accepted>(topics::ACCEPTED).len(), 2);
    assert_eq!(task.values::<Refused>(topics::REFUSED).len(), 1);
}

#[test]
fn released_rows_pass_to_the_next_contributor_and_do_not_return() {
    let task = run(&[
        screened("a1", "alice", &[(1, 0), (2, 0)]),
        release("a1", "alice"),
        screened("b1", "bob", &[(1, 0)]),
        screened("a2", "alice", &[(1, 0), (2, 0), (2, 1)]),
    ]);
    assert_eq!(verdicts(&task)[1..], [(1, 0, 0, 0, 0), (2, 0, 0, 1, 1)]);
}

#[test]
fn a_release_frees_the_rows_of_the_named_contributor_only() {
    let task = run(&[screened("a1", "alice", &[(1, 0)]), release("a1", "mallory"), screened("b1", "bob", &[(1, 0)])]);
    assert_eq!(verdicts(&task), [(1, 0, 0, 0, 0), (0, 0, 0, 1, 0)]);
}

#[test]
fn the_same_id_in_other_hands_is_another_contribution() {
    let task = run(&[screened("id", "alice", &[(1, 0)]), screened("id", "mallory", &[(1, 0), (2, 0)])]);
    assert_eq!(verdicts(&task), [(1, 0, 0, 0, 0), (1, 0, 0, 1, 0)]);
}

#[test]
fn accepted_batches_hold_the_first_seen_rows_and_an_untouched_batch_keeps_its_bytes() {
    let untouched = stream(&[(5, 0)]);
    let task = run(&[screened("a1", "alice", &[(5, 0)]), screened("a2", "alice", &[(6, 0), (5, 0), (7, 0)])]);
    let accepted = task.sent::<Accepted>(topics::ACCEPTED);
    assert_eq!(accepted[0].2.batch, untouched);
    assert_eq!(accepted[1].2.rows, 2);
    let kept = rows::read(&accepted[1].2.batch, 2).unwrap().1;
    assert_eq!(kept.iter().map(|r| r.row).collect::<Vec<_>>(), [0, 2]);
    assert_eq!(accepted[1].0, Destination::Partition(0));
}

#[test]
fn unreadable_records_go_to_the_dead_letters_and_the_stage_goes_on() {
    let mut cut = screened("a1", "alice", &[(1, 0)]);
    cut.rows.as_mut().unwrap().batch.truncate(40);
    let mut miscounted = screened("a2", "alice", &[(2, 0)]);
    miscounted.rows.as_mut().unwrap().rows = 7;
    let mut misplaced = screened("a3", "alice", &[(3, 0)]);
    misplaced.rows.as_mut().unwrap().shard = 3;
    let task = run(&[cut, miscounted, misplaced, screened("a4", "alice", &[(1, 0)])]);
    assert_eq!(task.dead_letters.len(), 3);
    assert_eq!(verdicts(&task), [(1, 0, 0, 0, 0)]);
}

#[test]
fn refusals_of_a_large_part_are_split_below_what_a_broker_takes() {
    let rows = vec![(1, 0); 20_000];
    let task = run(&[screened("a1", "alice", &rows)]);
    let refused = task.values::<Refused>(topics::REFUSED);
    assert!(refused.len() > 1);
    assert_eq!(refused.iter().map(|r| r.refusals.len()).sum::<usize>(), 19_999);
    assert!(
        task.outputs.iter().filter(|o| o.topic == topics::REFUSED).all(|o| o.value.as_ref().unwrap().len() < 1_000_000)
    );
}

/// What a test may send.
#[derive(Debug, Clone)]
enum Step {
    Rows { contribution: u8, chunk: i64, part: i32, rows: Vec<Row> },
    Release { contribution: u8 },
}

fn event(step: &Step) -> ScreenedEvent {
    let names = |c: u8| (format!("c{c}"), format!("p{}", c % 3));
    match step {
        Step::Rows { contribution, chunk, part, rows } => {
            let (id, who) = names(*contribution);
            screened_part(&id, &who, *chunk, *part, 2, rows)
        }
        Step::Release { contribution } => {
            let (id, who) = names(*contribution);
            release(&id, &who)
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let rows = prop::collection::vec((0..12_u8, 0..3_u8), 1..12);
    let step = prop_oneof![
        8 => (0..6_u8, 0..2_i64, 0..2_i32, rows).prop_map(|(contribution, chunk, part, rows)| Step::Rows { contribution, chunk, part, rows }),
        1 => (0..6_u8).prop_map(|contribution| Step::Release { contribution }),
    ];
    prop::collection::vec(step, 1..30)
}

/// The rules in their plainest form, to compare the stage with.
#[derive(Default)]
struct Plain {
    owner: HashMap<Row, (u8, i64)>,
    released: HashSet<(u8, i64)>,
    given: HashMap<(u8, i64, i32), Tally>,
    seen: HashSet<(u8, i64)>,
}

impl Plain {
    fn step(&mut self, step: &Step) -> Option<Tally> {
        let (contribution, chunk, part, rows) = match step {
            Step::Release { contribution } => {
                if self.seen.contains(&(*contribution, 0)) {
                    self.released.insert((*contribution, 0));
                }
                return None;
            }
            Step::Rows { contribution, chunk, part, rows } => (*contribution, *chunk, *part, rows),
        };
        if let Some(old) = self.given.get(&(contribution, chunk, part)) {
            return Some(*old);
        }
        self.seen.insert((contribution, chunk));
        let mut verdict = (0, 0, 0, 0, 0);
        for row in rows {
            match self.owner.get(row).filter(|o| !self.released.contains(o)) {
                Some((owner, _)) if *owner == contribution => verdict.1 += 1,
                Some((owner, _)) if owner % 3 == contribution % 3 => verdict.2 += 1,
                Some(_) => verdict.3 += 1,
                None => {
                    let conflict = self
                        .owner
                        .iter()
                        .any(|(other, owner)| other.0 == row.0 && other.1 != row.1 && !self.released.contains(owner));
                    verdict.0 += 1;
                    verdict.4 += i64::from(conflict);
                    self.owner.insert(*row, (contribution, chunk));
                }
            }
        }
        self.given.insert((contribution, chunk, part), verdict);
        Some(verdict)
    }
}

fn ends() -> impl Strategy<Value = Vec<(usize, Option<End>, bool)>> {
    let end = prop_oneof![
        Just(End::Clean),
        Just(End::Killed),
        Just(End::BeforeManifest),
        Just(End::Torn),
        Just(End::Elsewhere)
    ];
    prop::collection::vec((1..5_usize, prop::option::weighted(0.4, end), any::<bool>()), 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn batch_borders_aborts_kills_and_restarts_change_no_byte_and_the_verdicts_follow_the_plain_rules(
        steps in steps(),
        cuts in ends(),
        // From every commit going to disk to none.
        memory in prop_oneof![Just(None), Just(Some(0)), Just(Some(1_000)), Just(Some(1 << 20))],
    ) {
        let events: Vec<_> = steps.iter().map(event).collect();
        let whole = run(&events);
        let mut plain = Plain::default();
        prop_assert_eq!(verdicts(&whole), steps.iter().filter_map(|s| plain.step(s)).collect::<Vec<_>>());

        let on_disk = |memory| Task::on_disk(Dedup::new(), 0, &[(topics::SCREENED, 1)], memory);
        let mut cut = memory.map_or_else(task, on_disk);
        let (mut at, mut cuts) = (0, cuts.iter().cycle());
        while at < events.len() {
            let (length, end, aborts) = cuts.next().unwrap();
            let last = (at + length).min(events.len());
            let piece = batch(topics::SCREENED, 0, at as i64, 0, &events[at..last]);
            if *aborts {
                cut.abort(std::slice::from_ref(&piece));
            }
            if let Some(end) = end {
                cut.end(*end).unwrap();
            }
            let middle = piece.len() / 2;
            cut.commit(&[piece.slice(0, middle), piece.slice(middle, piece.len())]).unwrap();
            at = last;
        }
        prop_assert_eq!(&cut.outputs, &whole.outputs);
        if memory.is_none() {
            prop_assert_eq!(cut.state.size().entries, whole.state.size().entries);
        }
    }
}

/// SplitMix64 of a number: as uniform as a keyed hash.
fn mix(seed: u64) -> u64 {
    let z = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB)
}

#[test]
fn four_hundred_thousand_rows_in_a_megabyte_of_memory_are_each_known_exactly() {
    const ROWS: u64 = 400_000;
    let key = |i: u64| RowKey { features: (u128::from(mix(2 * i)) << 64) | u128::from(mix(2 * i + 1)), tag: mix(i) };
    let owner = |i: u64| OwnerFacts { ident: u128::from(mix(i)), batch: u128::from(i), contributor: 7, chunk: 0 };
    let mut task = Task::on_disk(Dedup::new(), 0, &[(topics::SCREENED, 1)], 1 << 20);
    for first in (0..ROWS).step_by(2_000) {
        let number = task.state.intern(&owner(first)).unwrap();
        for i in first..first + 2_000 {
            assert_eq!(task.state.look_up(key(i)).unwrap().owner, None);
            task.state.accept(key(i), number, (i - first) as u32);
        }
        task.commit(&[]).unwrap();
    }
    let size = task.state.size();
    assert_eq!(size.entries, ROWS);
    assert!(size.bytes < 4 << 20, "a map in memory takes 13 MB or more: {size:?}");
    assert!(size.disk > 32 * (ROWS - 30_000), "{size:?}");
    task.end(End::Killed).unwrap();
    for i in (0..ROWS).step_by(37) {
        let (number, row) = task.state.look_up(key(i)).unwrap().owner.unwrap();
        assert_eq!((number, row), ((i / 2_000) as u32, (i % 2_000) as u32));
        let relation = task.state.relation(number, &owner(i / 2_000 * 2_000)).unwrap();
        assert_eq!(relation, Some(Relation::SameContribution(0)));
    }
    assert_eq!(task.state.size().entries, ROWS);
}
