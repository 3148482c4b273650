//! One process: outputs, state and progress are one thing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::toy::{SOON, Tenant, total};
use crate::on_both_brokers;
use crate::support::broker::Broker;
use crate::support::client::{admin, admin_options, config, wait};
use crate::support::eventually;
use hokusai::stream::Settings;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};

on_both_brokers! {
    every_input_gives_one_output_and_sums_follow_from_one_another,
    aborted_transactions_leave_nothing_behind,
    state_and_progress_come_back_from_the_changelog,
    deleted_group_offsets_change_nothing,
    a_record_that_cannot_be_processed_becomes_one_dead_letter,
    an_output_that_is_too_large_becomes_a_dead_letter_and_the_partition_lives_on,
    an_unknown_fact_is_looked_up_before_it_is_refused,
    what_is_owed_is_told_once_though_the_batch_behind_it_waits_for_a_fact,
    what_is_owed_for_a_fact_is_told_though_no_record_comes,
    an_unreadable_broadcast_record_is_reported_and_leaves_the_earlier_value,
    time_marks_are_recorded_facts,
    what_every_reader_has_read_is_purged_and_nothing_else,
    a_purge_waits_for_what_an_outside_reader_has_kept_whatever_its_group_says,
}

fn every_input_gives_one_output_and_sums_follow_from_one_another(broker: &Broker) {
    let tenant = Tenant::new(broker);
    let process = tenant.start().ready();
    tenant.write_amounts("amounts", 1_000);
    tenant.write_amounts("more", 500);
    tenant.expect_sums(1_500, total(1_000) + total(500));
    process.stop();
}

fn aborted_transactions_leave_nothing_behind(broker: &Broker) {
    let tenant = Tenant::new(broker);
    let process = tenant.start().ready();
    for _ in 0..10 {
        process.faults.failing_calls.store(1, Ordering::Relaxed);
        tenant.write_amounts("amounts", 100);
        tenant.write_amounts("more", 20);
    }
    tenant.expect_sums(1_200, 10 * (total(100) + total(20)));
    assert!(tenant.dead_letters().is_empty(), "a cause that goes away gives nothing up");
    process.stop();
}

fn state_and_progress_come_back_from_the_changelog(broker: &Broker) {
    let tenant = Tenant::new(broker);
    for round in 1..=3 {
        let process = tenant.start().ready();
        tenant.write_amounts("amounts", 300);
        tenant.expect_sums(round * 300, i64::try_from(round).unwrap() * total(300));
        process.stop();
    }
}

fn deleted_group_offsets_change_nothing(broker: &Broker) {
    let tenant = Tenant::new(broker);
    let process = tenant.start().ready();
    tenant.write_amounts("amounts", 300);
    tenant.expect_sums(300, total(300));
    process.stop();
    let groups = [tenant.cluster.group("sums"), tenant.cluster.group("relay")];
    let names: Vec<&str> = groups.iter().map(String::as_str).collect();
    eventually("the groups' end", || {
        let results = wait(admin(broker).delete_groups(&names, &admin_options())).map_err(|e| e.to_string())?;
        let open: Vec<_> = results.into_iter().filter_map(Result::err).filter(|(g, _)| *g == groups[0]).collect();
        if open.is_empty() { Ok(()) } else { Err(format!("{open:?}")) }
    });
    let process = tenant.start().ready();
    tenant.write_amounts("amounts", 10);
    tenant.expect_sums(310, total(300) + total(10));
    process.stop();
}

fn a_record_that_cannot_be_processed_becomes_one_dead_letter(broker: &Broker) {
    let tenant = Tenant::new(broker);
    tenant.write_amounts("amounts", 200);
    tenant.write("amounts", &[("k1", "poison"), ("k2", "no number")]);
    tenant.write_amounts("amounts", 200);
    let process = tenant.start().ready();
    tenant.expect_sums(400, 2 * total(200));
    let mut letters = eventually("the dead letters", || {
        let letters = tenant.dead_letters();
        if letters.len() >= 2 { Ok(letters) } else { Err(format!("{letters:?}")) }
    });
    letters.sort_by(|a, b| a.reason.cmp(&b.reason));
    let reasons: Vec<_> = letters.iter().map(|l| (l.stage.as_str(), l.reason.as_str(), l.digest.as_str())).collect();
    let expected = [("sums", "NO_NUMBER", "digest of 9 bytes"), ("sums", "STAGE_FAILED", "digest of 6 bytes")];
    assert_eq!(reasons, expected);
    process.stop();
}

fn an_output_that_is_too_large_becomes_a_dead_letter_and_the_partition_lives_on(broker: &Broker) {
    let tenant = Tenant::new(broker);
    let process = tenant.start().ready();
    tenant.write("amounts", &[("k1", "1"), ("k1", "999"), ("k1", "2")]);
    tenant.expect_sums(2, 3);
    let letters = tenant.dead_letters();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].reason, "OUTPUT_TOO_LARGE");
    process.stop();
}

fn an_unknown_fact_is_looked_up_before_it_is_refused(broker: &Broker) {
    let tenant = Tenant::new(broker);
    let process = tenant.start().ready();
    for round in 1..=20 {
        let key = format!("key-{round}");
        tenant.write("facts", &[(&key, "known")]);
        tenant.write("raw", &[(&key, "1"), ("unknown", "1")]);
    }
    tenant.expect_sums(40, 20);
    process.stop();
}

fn what_is_owed_is_told_once_though_the_batch_behind_it_waits_for_a_fact(broker: &Broker) {
    let tenant = Tenant::new(broker);
    let process = tenant.start_with(Settings { commit_interval: Duration::ZERO, ..Settings::default() }).ready();
    for round in 1..=10 {
        let before = process.faults.calls.load(Ordering::Relaxed);
        process.faults.holds_process.store(true, Ordering::Relaxed);
        tenant.write("amounts", &[("k", "owe 7")]);
        eventually("the stage at work", || {
            if process.faults.calls.load(Ordering::Relaxed) > before { Ok(()) } else { Err(String::new()) }
        });
        // Behind the one that is held, so that it meets what is owed.
        tenant.write("amounts", &[("k", "ask"), ("k", "1")]);
        process.faults.holds_process.store(false, Ordering::Relaxed);
        eventually("what was owed, and the sum behind it", || {
            let sums = tenant.sums();
            let owed = sums.iter().filter(|(name, amount)| name == "owed" && *amount == 7).count();
            if owed >= round && sums.contains(&("k".to_owned(), i64::try_from(round).unwrap())) {
                return Ok(());
            }
            Err(format!("{sums:?}"))
        });
    }
    assert_eq!(tenant.sums().len(), 20, "each once");
    process.stop();
}

fn what_is_owed_for_a_fact_is_told_though_no_record_comes(broker: &Broker) {
    let tenant = Tenant::new(broker);
    let process = tenant.start().ready();
    tenant.write("facts", &[("due", "known")]);
    eventually("what is owed for the fact", || {
        let sums = tenant.sums();
        if sums.iter().any(|(name, _)| name == "due") { Ok(()) } else { Err(format!("{sums:?}")) }
    });
    process.stop();
}

fn an_unreadable_broadcast_record_is_reported_and_leaves_the_earlier_value(broker: &Broker) {
    let tenant = Tenant::new(broker);
    tenant.write("facts", &[("a", "known"), ("a", "unreadable"), ("b", "known")]);
    // Compaction keeps only the newest record of a key, so the earlier value may be gone; `b` must be there either way.
    let process = tenant.start().ready();
    tenant.write("raw", &[("b", "5")]);
    tenant.expect_sums(1, 5);
    tenant.write("raw", &[("hokusai", "1"), ("a", "1"), ("c", "1"), ("d", "1")]);
    let letters = eventually("the dead letter", || {
        let letters = tenant.dead_letters();
        if letters.is_empty() { Err(String::new()) } else { Ok(letters) }
    });
    assert_eq!((letters[0].reason.as_str(), letters[0].position.topic.as_str()), ("BROADCAST", "facts"));
    process.stop();
}

fn time_marks_are_recorded_facts(broker: &Broker) {
    let tenant = Tenant::new(broker);
    let settings = Settings { mark_interval: SOON, idle_mark_interval: SOON, ..Settings::default() };
    let process = tenant.start_with(settings).ready();
    tenant.write("facts", &[("a", "known")]);
    tenant.write("raw", &[("a", "5")]);
    tenant.expect_sums(1, 5);
    eventually("idle marks of both sources, one of which has seen a record", || {
        let marks = process.faults.marks.lock().unwrap();
        let idle = |source| marks.iter().filter(|t| t.source == source && t.at_end && t.sources == 2).count();
        let (zero, one) = (idle(0), idle(1));
        let seen = marks.iter().any(|t| t.at_end && t.high_time > 0);
        if zero > 2 && one > 2 && seen { Ok(()) } else { Err(format!("{marks:?}")) }
    });
    process.stop();
}

fn what_every_reader_has_read_is_purged_and_nothing_else(broker: &Broker) {
    let tenant = Tenant::new(broker);
    let settings = Settings { purge_interval: SOON, ..Settings::default() };
    let process = tenant.start_with(settings.clone()).ready();
    tenant.write_amounts("more", 100);
    tenant.expect_sums(100, total(100));
    let starts = || {
        let ends = tenant.admin.end_offsets(&["more", "sums.out"]).map_err(|e| e.to_string())?;
        let of = |topic: &str| ends.iter().filter(|e| e.topic == topic).map(|e| e.start).sum::<i64>();
        Ok::<_, String>((of("more"), of("sums.out")))
    };
    eventually("the purge", || match starts()? {
        (100, 0) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    process.stop();
    // Nothing is lost for a stage that was down meanwhile.
    tenant.write_amounts("more", 100);
    let process = tenant.start_with(settings).ready();
    tenant.expect_sums(200, 2 * total(100));
    process.stop();
}

fn a_purge_waits_for_what_an_outside_reader_has_kept_whatever_its_group_says(broker: &Broker) {
    let (kept, asked) = (Arc::new(Mutex::new(BTreeMap::new())), Arc::new(AtomicU64::new(0)));
    let tenant = Tenant::with_an_outside_reader(broker, {
        let (kept, asked) = (Arc::clone(&kept), Arc::clone(&asked));
        Arc::new(move |topic| {
            assert!(topic.name.ends_with("more") && topic.id.is_some());
            asked.fetch_add(1, Ordering::Relaxed);
            let kept = kept.lock().unwrap().clone();
            Box::pin(async move { Ok(kept) })
        })
    });
    tenant.write_amounts("more", 100);
    // Somebody has moved its group to the end.
    let group = [("group.id", tenant.cluster.group("archive"))];
    let group: BaseConsumer = config(broker, &[(group[0].0, &group[0].1)]).create().unwrap();
    let mut list = rdkafka::TopicPartitionList::new();
    for end in tenant.admin.end_offsets(&["more"]).unwrap() {
        list.add_partition_offset(&tenant.topic("more"), end.partition, rdkafka::Offset::Offset(end.end)).unwrap();
    }
    group.commit(&list, CommitMode::Sync).unwrap();
    let process = tenant.start_with(Settings { purge_interval: SOON, ..Settings::default() }).ready();
    tenant.expect_sums(100, total(100));
    let looks = |more: u64| {
        let before = asked.load(Ordering::Relaxed);
        eventually("purges", || match asked.load(Ordering::Relaxed) - before {
            n if n >= more => Ok(()),
            n => Err(format!("{n}")),
        });
    };
    let starts = || -> Vec<i64> { tenant.admin.end_offsets(&["more"]).unwrap().iter().map(|e| e.start).collect() };
    looks(3);
    assert_eq!(starts(), [0, 0], "it has kept nothing yet");
    *kept.lock().unwrap() = BTreeMap::from([(0, 7)]);
    looks(3);
    assert_eq!(starts(), [7, 0], "and of the second partition still nothing");
    process.stop();
}
