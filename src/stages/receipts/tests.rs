mod attested;
mod interleaving;

use super::*;
use crate::attest::row::contribution_root;
use crate::domain::records::{ChunkId, Count, Position, Receipt, Refused, ScreenedEvent, ShardRows, Verdict};
use crate::stages::testing::{Task, batch};
use crate::stream::stage::{Destination, State};

const MINUTE: i64 = 60_000;

/// A chunk as a test names it.
#[derive(Debug, Clone, Copy)]
struct Sent {
    id: u8,
    who: u8,
    chunk: i64,
    chunks: i64,
    content: u8,
    contract: &'static str,
    passed: &'static str,
    appended: i64,
}

const CHUNK: Sent = Sent { id: 0, who: 0, chunk: 0, chunks: 1, content: 0, contract: "", passed: "p", appended: 0 };

fn count(name: &str, count: i64) -> Count {
    Count { name: name.to_owned(), count }
}

impl Sent {
    fn chunk_id(&self) -> ChunkId {
        ChunkId {
            contribution_id: format!("c{}", self.id),
            contributor: format!("p{}", self.who),
            model: "m".to_owned(),
            contract_digest: self.contract.to_owned(),
            chunk: self.chunk,
            chunk_digest: format!("{:064x}", 1 + i64::from(self.content)),
            passed: self.passed.to_owned(),
        }
    }

    /// Rows by shard: what content a chunk has decides it. Content 3 passes no row.
    fn shards(&self) -> Vec<(i32, i64)> {
        match self.content {
            0 => vec![(0, 3), (1, 2)],
            1 => vec![(1, 4)],
            2 => vec![(0, 1)],
            _ => Vec::new(),
        }
    }

    fn manifest(&self) -> Manifest {
        let rows: i64 = self.shards().iter().map(|s| s.1).sum();
        Manifest {
            id: self.chunk_id(),
            chunks: self.chunks,
            received: rows + 2,
            refused: vec![count("RANGE_HIGH", 2)],
            shards: self.shards().into_iter().map(|(shard, rows)| ShardRows { shard, rows }).collect(),
            quality: QualitySums { valid: rows, labels: vec![count("true", rows)], ..QualitySums::default() },
            pii: vec![count("email", 1)],
            chunk_root: if rows > 0 { format!("{:064x}", 100 + i64::from(self.content)) } else { String::new() },
            position: Position { topic: "contributions".to_owned(), partition: 0, offset: self.appended },
            appended: self.appended,
            contributor_pseudonyms: Vec::new(),
            contributor_signature: None,
            match_filters: Vec::new(),
            collision_ppm: 0,
        }
    }

    fn event(&self) -> ManifestEvent {
        ManifestEvent { manifest: Some(self.manifest()), mark: None }
    }

    /// Dedup's verdicts: two parts for a shard with three rows or more; the first row of shard 1 is a duplicate.
    fn verdicts(&self) -> Vec<Verdict> {
        let verdict = |shard: i32, part: i32, parts: i32, rows: i64| {
            let duplicates = i64::from(shard == 1 && part == 0);
            Verdict {
                id: self.chunk_id(),
                shard,
                part,
                parts,
                accepted: rows - duplicates,
                duplicates: if duplicates > 0 { vec![count("DUP_IN_POOL", 1)] } else { Vec::new() },
                label_conflicts: 0,
            }
        };
        let of_shard = |(shard, rows): (i32, i64)| {
            if rows < 3 {
                vec![verdict(shard, 0, 1, rows)]
            } else {
                vec![verdict(shard, 0, 2, rows - 1), verdict(shard, 1, 2, 1)]
            }
        };
        self.shards().into_iter().flat_map(of_shard).collect()
    }
}

fn mark(source: i32, sources: i32, high_time: i64, at_end: bool) -> ManifestEvent {
    ManifestEvent { manifest: None, mark: Some(Mark { source, sources, high_time, at_end }) }
}

fn task() -> Task<Receipts> {
    let config = ReceiptsConfig { contribution_timeout_ms: MINUTE, closed_retention_ms: DAY_MS, max_open: 2 };
    Task::new(Receipts::new(config), 0, &[(topics::SCREENED, 2)])
}

impl Task<Receipts> {
    fn manifests(&mut self, appended: i64, events: &[ManifestEvent]) -> &mut Self {
        self.commit(&[batch(topics::MANIFESTS, 0, 0, appended, events)]).unwrap();
        self
    }

    fn verdicts(&mut self, of: &[Sent]) -> &mut Self {
        let verdicts: Vec<_> = of.iter().flat_map(Sent::verdicts).collect();
        self.commit(&[batch(topics::VERDICTS, 0, 0, 0, &verdicts)]).unwrap();
        self
    }

    fn receipts(&self) -> Vec<Receipt> {
        self.values(topics::RECEIPTS)
    }

    fn only(&self) -> Receipt {
        let receipts = self.receipts();
        assert_eq!(receipts.len(), 1, "{receipts:?}");
        receipts[0].clone()
    }

    fn codes(&self) -> Vec<(String, String)> {
        let refused = self.values::<Refused>(topics::REFUSED);
        refused.iter().flat_map(|r| r.refusals.iter().map(|f| (f.code.clone(), f.rule.clone()))).collect()
    }

    /// (shard, contributor, contract, chunk, digest) of every released chunk.
    fn released(&self) -> Vec<(i32, String, String, i64, String)> {
        let mut released = Vec::new();
        for (destination, _, event) in self.sent::<ScreenedEvent>(topics::SCREENED) {
            let (Destination::Partition(shard), Some(release)) = (destination, event.release) else {
                panic!("no release")
            };
            for c in release.chunks {
                released.push((
                    shard,
                    release.contributor.clone(),
                    release.contract_digest.clone(),
                    c.chunk,
                    c.chunk_digest,
                ));
            }
        }
        released
    }
}

fn refused(receipt: &Receipt) -> Vec<(&str, i64)> {
    receipt.refused.iter().map(|r| (r.reason.as_str(), r.count)).collect()
}

fn balanced(receipt: &Receipt) -> bool {
    receipt.received == receipt.accepted + receipt.refused.iter().map(|r| r.count).sum::<i64>()
}

#[test]
fn a_contribution_is_admitted_when_every_row_has_its_verdict_whichever_topic_is_ahead() {
    let (mut one, mut other) = (task(), task());
    one.manifests(0, &[CHUNK.event()]);
    assert!(one.receipts().is_empty());
    one.verdicts(&[CHUNK]);
    other.verdicts(&[CHUNK]).manifests(0, &[CHUNK.event()]);
    let receipt = one.only();
    assert_eq!((receipt.status.as_str(), receipt.received, receipt.accepted), ("admitted", 7, 4));
    assert_eq!(refused(&receipt), [("DUP_IN_POOL", 1), ("RANGE_HIGH", 2)]);
    assert_eq!(receipt.pii[0].kind, "email");
    assert_eq!(one.outputs, other.outputs);
}

#[test]
fn the_root_of_a_contribution_is_the_tree_over_its_chunks_with_their_numbers_and_rows() {
    let chunks: Vec<_> = (0..3).map(|chunk| Sent { chunk, chunks: 3, content: chunk as u8 + 1, ..CHUNK }).collect();
    let mut task = task();
    let events: Vec<_> = [2, 0, 1].iter().map(|i| chunks[*i].event()).collect();
    task.verdicts(&chunks).manifests(0, &events);
    let root = |n: u8| [[0; 31].as_slice(), &[n]].concat().try_into().unwrap();
    let expected = contribution_root([(0, 4, root(101)), (1, 1, root(102)), (2, 0, crate::attest::tree::empty_root())]);
    let receipt = task.only();
    assert_eq!(receipt.merkle_root, data_encoding::HEXLOWER.encode(&expected));
    assert_eq!((receipt.merkle_rows, receipt.chunks, receipt.bound.len()), (5, 3, 3));
}

#[test]
fn a_contribution_without_an_accepted_row_gets_its_receipt_too() {
    let mut task = task();
    task.manifests(0, &[Sent { content: 3, ..CHUNK }.event()]);
    let receipt = task.only();
    assert_eq!((receipt.status.as_str(), receipt.received, receipt.accepted), ("refused", 2, 0));
    assert_eq!((receipt.merkle_root.as_str(), receipt.quality.score), ("", None));
    assert!(task.released().is_empty());
}

#[test]
fn behind_a_zero_gate_passed_rows_are_not_admitted_and_their_owner_gives_them_up() {
    let mut event = CHUNK.event();
    event.manifest.as_mut().unwrap().quality.incompatible_schema = true;
    let mut task = task();
    task.manifests(0, &[event]).verdicts(&[CHUNK]);
    let receipt = task.only();
    assert_eq!((receipt.status.as_str(), receipt.accepted, receipt.quality.score), ("refused", 0, Some(0.0)));
    assert_eq!(refused(&receipt), [("DUP_IN_POOL", 1), ("NOT_ADMITTED", 4), ("RANGE_HIGH", 2)]);
    let digest = CHUNK.chunk_id().chunk_digest;
    let of = |shard| (shard, "p0".to_owned(), String::new(), 0, digest.clone());
    assert_eq!(task.released(), [of(0), of(1)]);
    assert_eq!(task.codes(), [("NOT_ADMITTED".to_owned(), "quality_gate".to_owned())]);
}

#[test]
fn a_replay_changes_nothing_before_and_after_the_receipt() {
    let mut task = task();
    task.manifests(0, &[CHUNK.event(), CHUNK.event()]).verdicts(&[CHUNK, CHUNK]);
    let outputs = task.outputs.clone();
    task.manifests(0, &[CHUNK.event()]).verdicts(&[CHUNK]);
    assert_eq!(task.outputs, outputs);
    assert!(balanced(&task.only()));
}

#[test]
fn other_content_under_a_used_id_is_refused_and_released_and_the_first_receipt_stands() {
    for after_closing in [false, true] {
        let other = Sent { content: 1, ..CHUNK };
        let stranger = Sent { who: 1, content: 2, ..CHUNK };
        let mut task = task();
        task.manifests(0, &[CHUNK.event()]);
        if after_closing {
            task.verdicts(&[CHUNK]);
        }
        task.manifests(0, &[other.event(), stranger.event()]).verdicts(&[other, stranger]);
        if !after_closing {
            task.verdicts(&[CHUNK]);
        }
        assert_eq!((task.only().received, task.only().contributor.as_str()), (7, "p0"));
        assert_eq!(task.codes(), vec![("ID_REUSED".to_owned(), "contribution_id".to_owned()); 2]);
        let owners: Vec<_> = task.released().into_iter().map(|r| (r.0, r.1)).collect();
        assert_eq!(owners, [(1, "p0".to_owned()), (0, "p1".to_owned())]);
    }
}

#[test]
fn the_bytes_of_a_bound_chunk_in_strange_hands_release_the_strangers_rows_only() {
    let stranger = Sent { who: 1, ..CHUNK };
    let mut task = task();
    task.manifests(0, &[CHUNK.event()]).verdicts(&[CHUNK]).manifests(0, &[stranger.event()]);
    assert!(task.released().iter().all(|r| r.1 == "p1"));
    assert_eq!(task.released().len(), 2);
}

#[test]
fn a_bound_chunk_that_comes_again_under_another_number_of_chunks_keeps_its_rows() {
    let again = Sent { chunks: 2, ..CHUNK };
    let mut task = task();
    task.manifests(0, &[CHUNK.event(), again.event()]).verdicts(&[CHUNK]).manifests(0, &[again.event()]);
    assert_eq!(task.only().status, "admitted");
    assert_eq!(task.codes().len(), 2);
    assert!(task.released().is_empty());
}

#[test]
fn rows_that_were_released_under_a_wrong_number_of_chunks_are_never_bound() {
    let first = Sent { chunks: 2, ..CHUNK };
    let wrong = Sent { chunk: 1, chunks: 3, content: 2, ..CHUNK };
    let right = Sent { chunks: 2, ..wrong };
    let mut task = task();
    task.manifests(0, &[first.event(), wrong.event(), right.event()]).verdicts(&[first, wrong]);
    assert!(task.receipts().is_empty());
    task.manifests(2 * MINUTE, &[mark(0, 1, 0, true)]);
    assert_eq!(task.only().status, "incomplete");
}

#[test]
fn a_replay_under_a_newer_contract_is_ignored_and_what_it_brought_into_dedup_is_released() {
    let first = Sent { contract: "a", ..CHUNK };
    let again = Sent { contract: "b", ..CHUNK };
    for closed in [false, true] {
        let mut task = task();
        task.manifests(0, &[first.event()]);
        if closed {
            task.verdicts(&[first]);
        }
        task.manifests(0, &[again.event()]).verdicts(&[again, first]);
        assert_eq!(task.only().contract_digest, "a");
        assert!(task.released().iter().all(|r| r.2 == "b"));
        assert_eq!(task.released().len(), 2);
        assert!(task.codes().is_empty());
    }
}

#[test]
fn a_replay_that_passes_other_rows_is_ignored_and_what_it_brought_into_dedup_is_released() {
    let again = Sent { passed: "q", ..CHUNK };
    let mut task = task();
    task.manifests(0, &[CHUNK.event(), again.event()]).verdicts(&[again, CHUNK]).manifests(0, &[again.event()]);
    assert_eq!((task.only().status.as_str(), task.only().received), ("admitted", 7));
    assert_eq!(task.released().len(), 4);
    assert!(task.codes().is_empty());
}

#[test]
fn chunks_of_one_contribution_that_met_two_contracts_do_not_mix() {
    let first = Sent { contract: "a", chunks: 2, ..CHUNK };
    let second = Sent { contract: "b", chunk: 1, chunks: 2, content: 1, ..CHUNK };
    let mut task = task();
    task.manifests(0, &[first.event(), second.event()]);
    assert_eq!(task.codes(), [("ID_REUSED".to_owned(), "contract_digest".to_owned())]);
}

#[test]
fn a_contribution_is_incomplete_after_the_timeout_on_the_clock_of_the_marks() {
    let first = Sent { chunks: 2, appended: MINUTE, ..CHUNK };
    let mut task = task();
    task.manifests(0, &[first.event()]).verdicts(&[first]);
    task.manifests(9 * MINUTE, &[mark(0, 2, 8 * MINUTE, false)]);
    assert!(task.receipts().is_empty(), "source 1 was not heard from");
    task.manifests(9 * MINUTE, &[mark(1, 2, 2 * MINUTE - 1, false)]);
    assert!(task.receipts().is_empty(), "source 1 may still have written the chunk");
    task.manifests(9 * MINUTE, &[mark(1, 2, 2 * MINUTE, false)]);
    let receipt = task.only();
    assert_eq!((receipt.status.as_str(), receipt.received, receipt.accepted, receipt.chunks), ("incomplete", 7, 0, 2));
    assert_eq!(refused(&receipt), [("DUP_IN_POOL", 1), ("NOT_ADMITTED", 4), ("RANGE_HIGH", 2)]);
    assert_eq!(task.released().len(), 2);
}

#[test]
fn when_all_sources_are_at_their_end_the_marks_own_time_moves_the_clock() {
    let first = Sent { chunks: 2, ..CHUNK };
    let mut task = task();
    task.verdicts(&[first]).manifests(0, &[first.event(), mark(0, 2, 0, true), mark(1, 2, 0, true)]);
    assert!(task.receipts().is_empty());
    task.manifests(MINUTE, &[mark(0, 2, 0, true)]);
    assert_eq!(task.only().status, "incomplete");
}

#[test]
fn each_chunk_starts_the_timeout_anew() {
    let chunk = |chunk, appended| Sent { chunk, chunks: 3, content: chunk as u8, appended, ..CHUNK };
    let mut task = task();
    task.manifests(0, &[chunk(0, 0).event(), chunk(1, MINUTE - 1).event(), mark(0, 1, MINUTE + 5, false)]);
    task.manifests(0, &[mark(0, 1, 2 * MINUTE - 2, false)]).verdicts(&[chunk(0, 0), chunk(1, 0)]);
    assert!(task.receipts().is_empty());
    task.manifests(0, &[mark(0, 1, 2 * MINUTE - 1, false)]);
    assert_eq!(task.only().status, "incomplete");
}

#[test]
fn a_chunk_after_the_timeout_is_refused_even_while_verdicts_are_missing() {
    let first = Sent { chunks: 2, ..CHUNK };
    let late = Sent { chunk: 1, chunks: 2, content: 1, appended: 3 * MINUTE, ..CHUNK };
    let mut task = task();
    task.manifests(0, &[first.event(), mark(0, 1, 2 * MINUTE, false), late.event()]);
    assert!(task.receipts().is_empty());
    task.verdicts(&[late, first]).manifests(0, &[late.event()]);
    assert_eq!((task.only().status.as_str(), task.only().received), ("incomplete", 7));
    let late_code = ("ID_REUSED".to_owned(), "contribution_timeout".to_owned());
    assert_eq!(task.codes().iter().filter(|c| **c == late_code).count(), 2);
}

#[test]
fn past_the_limit_of_open_contributions_a_new_one_is_refused_by_name() {
    let open = |id| Sent { id, chunks: 2, ..CHUNK };
    let mut task = task();
    task.manifests(0, &[open(0).event(), open(1).event(), open(2).event(), Sent { id: 3, ..CHUNK }.event()]);
    task.verdicts(&[open(0), open(1), open(2), Sent { id: 3, ..CHUNK }]);
    let statuses: Vec<_> = task.receipts().iter().map(|r| (r.contribution_id.clone(), r.status.clone())).collect();
    assert_eq!(statuses, [("c2".to_owned(), "refused".to_owned()), ("c3".to_owned(), "admitted".to_owned())]);
    assert_eq!(task.codes(), [("TOO_LARGE".to_owned(), "open_contributions".to_owned())]);
}

#[test]
fn what_a_closed_contribution_keeps_is_small_and_goes_when_its_time_is_over() {
    let chunks: Vec<_> = (0..300).map(|chunk| Sent { chunk, chunks: 300, content: 1, ..CHUNK }).collect();
    let events: Vec<_> = chunks.iter().map(Sent::event).collect();
    let mut task = task();
    task.manifests(0, &events).verdicts(&chunks);
    assert_eq!(task.only().bound.len(), 300);
    assert!(task.state.size().entries <= 6, "{:?}", task.state.size());
    let later = DAY_MS + 1;
    task.manifests(later, &[mark(0, 1, 0, true)]);
    assert_eq!(task.state.size().entries, 3, "clock, mark and counter");
}

#[test]
fn a_chunk_costs_the_changelog_the_same_in_a_small_and_in_a_large_contribution() {
    let bytes_of_the_last = |chunks: i64| {
        let mut task = task();
        for chunk in 0..chunks - 1 {
            task.manifests(0, &[Sent { chunk, chunks, ..CHUNK }.event()]);
        }
        let changes = task.changelog.len();
        task.manifests(0, &[Sent { chunk: chunks - 1, chunks: chunks + 1, ..CHUNK }.event()]);
        task.changelog[changes..].iter().map(|c| c.key.len() + c.value.as_ref().map_or(0, |v| v.len())).sum::<usize>()
    };
    assert!(bytes_of_the_last(300) <= bytes_of_the_last(3) + 16);
}

#[test]
fn numbers_that_do_not_add_up_name_the_contribution_and_give_no_receipt() {
    let mut verdicts = CHUNK.verdicts();
    verdicts[0].accepted += 1;
    let mut task = task();
    task.manifests(0, &[CHUNK.event()]);
    let error = task.commit(&[batch(topics::VERDICTS, 0, 0, 0, &verdicts)]).unwrap_err();
    assert!(error.to_string().contains("c0"), "{error}");
    let mut manifest = CHUNK.event();
    manifest.manifest.as_mut().unwrap().received += 1;
    task.state.abort();
    task.manifests(0, &[manifest]);
    assert!(task.dead_letters[0].detail.contains("c0"));
    assert!(task.receipts().is_empty());
}

#[test]
fn an_unknown_contract_asks_for_the_broadcast_before_anything_changes() {
    let mut task = task();
    let events = batch(topics::MANIFESTS, 0, 0, 0, &[CHUNK.event(), Sent { id: 1, contract: "new", ..CHUNK }.event()]);
    let wire = Wire::default();
    let mut out = Outputs::new(&wire);
    let context = Context { partition: 0, broadcast_is_current: false, partitions: &task.partitions };
    let result = task.stage.process(&context, &mut task.state, &events, &mut out);
    assert!(matches!(result, Err(StageError::NeedsBroadcast)));
    assert!(task.state.changes().is_empty());
}
