//! Whatever the order in which the two topics are read: the same receipts.

use proptest::prelude::*;

use super::*;
use crate::stages::testing::End;
use crate::stream::stage::OutputRecord;

#[derive(Debug, Clone)]
enum Step {
    Chunk(Sent),
    Mark(Box<ManifestEvent>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let contract = prop_oneof![8 => Just("a"), 1 => Just("b")];
    let passed = prop_oneof![8 => Just("p"), 1 => Just("q")];
    let chunk = (0..3_u8, 0..8_u8, 1..4_i64, 0..4_i64, 0..4_u8, contract, passed, 0..5_i64).prop_map(
        |(id, who, chunks, chunk, content, contract, passed, time)| {
            // Most chunks fit together: the number of chunks and the content follow from id and number.
            let chunks = if who < 6 { 1 + i64::from(id) } else { chunks };
            let content = if who < 6 { (id + chunk as u8) % 4 } else { content };
            Step::Chunk(Sent {
                id,
                who: who / 7,
                chunk: chunk % chunks,
                chunks,
                content,
                contract,
                passed,
                appended: time * MINUTE / 2,
            })
        },
    );
    let time = (0..2_i32, 0..10_i64, any::<bool>())
        .prop_map(|(source, time, at_end)| Step::Mark(Box::new(mark(source, 2, time * MINUTE / 2, at_end))));
    prop::collection::vec(prop_oneof![5 => chunk, 1 => time], 1..25)
}

fn sorted(task: &Task<Receipts>) -> Vec<OutputRecord> {
    let mut outputs = task.outputs.clone();
    outputs.sort_by(|a, b| {
        (a.topic, &a.key, &a.value, format!("{:?}", a.destination)).cmp(&(
            b.topic,
            &b.key,
            &b.value,
            format!("{:?}", b.destination),
        ))
    });
    outputs
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn receipts_and_outputs_do_not_depend_on_how_the_inputs_interleave_nor_on_batches_aborts_kills_and_restarts(
        steps in steps(),
        // Of those on disk, some write every commit, some only what they end with.
        memory in prop_oneof![6 => Just(None), 1 => Just(Some(0)), 1 => Just(Some(1 << 20))],
        order in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>(), 1..4_usize, 0..8_u8), 1..60),
    ) {
        let manifests: Vec<_> = steps.iter().enumerate().map(|(i, step)| {
            let at = i as i64 * MINUTE / 10;
            match step { Step::Chunk(sent) => (at, sent.event()), Step::Mark(mark) => (at, ManifestEvent::clone(mark)) }
        }).collect();
        let mut verdicts: Vec<_> = steps.iter().flat_map(|s| match s { Step::Chunk(sent) => sent.verdicts(), Step::Mark(_) => Vec::new() }).collect();

        let mut plain = task();
        for (at, event) in &manifests {
            plain.manifests(*at, std::slice::from_ref(event));
        }
        plain.commit(&[batch(topics::VERDICTS, 0, 0, 0, &verdicts)]).unwrap();

        let on_disk = |memory| Task::on_disk(task().stage, 0, &[(topics::SCREENED, 2)], memory);
        let mut mixed = memory.map_or_else(task, on_disk);
        let mut manifests = std::collections::VecDeque::from(manifests);
        let mut order = order.iter().cycle();
        while !manifests.is_empty() || !verdicts.is_empty() {
            let (pick, lead, length, fate) = order.next().unwrap();
            let mut piece;
            if verdicts.is_empty() || (*lead && !manifests.is_empty()) {
                piece = Batch::new(topics::MANIFESTS, 0);
                for (at, event) in manifests.drain(..(*length).min(manifests.len())) {
                    piece.push(0, at, None, Some(&mixed.wire.encode(&event).unwrap()));
                }
            } else {
                piece = Batch::new(topics::VERDICTS, 0);
                for _ in 0..(*length).min(verdicts.len()) {
                    let verdict = verdicts.swap_remove(pick.index(verdicts.len()));
                    piece.push(0, 0, None, Some(&mixed.wire.encode(&verdict).unwrap()));
                }
            }
            match fate {
                0 => mixed.abort(std::slice::from_ref(&piece)),
                1 => mixed.restart().unwrap(),
                2 => mixed.end([End::Killed, End::Clean, End::BeforeManifest, End::Torn][*length]).unwrap(),
                _ => {}
            }
            mixed.commit(&[piece]).unwrap();
        }

        prop_assert_eq!(sorted(&mixed), sorted(&plain));
        let receipts = mixed.receipts();
        prop_assert!(receipts.iter().all(balanced));
        let ids: std::collections::BTreeSet<_> = receipts.iter().map(|r| r.contribution_id.clone()).collect();
        prop_assert_eq!(ids.len(), receipts.len(), "one receipt each");
    }
}
