//! Two processes: partitions move, and a task has one owner.

use std::sync::atomic::Ordering;

use super::toy::{Tenant, total};
use crate::on_both_brokers;
use crate::support::broker::Broker;
use crate::support::client::config;
use crate::support::raw::{Raw, error, text};
use crate::support::{DEADLINE, eventually};
use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{GroupId, JoinGroupRequest, SyncGroupRequest};
use rdkafka::consumer::{BaseConsumer, Consumer};

on_both_brokers! {
    two_processes_exchange_partitions_under_load_without_loss_or_duplicates,
    a_task_that_another_process_took_over_commits_nothing_more,
    a_generation_that_is_over_is_an_ordinary_abort_and_retry,
}

fn two_processes_exchange_partitions_under_load_without_loss_or_duplicates(broker: &Broker) {
    let tenant = Tenant::new(broker);
    let first = tenant.start().ready();
    let mut written = 0;
    let mut amount = 0;
    let mut write = |tenant: &Tenant| {
        tenant.write_amounts("amounts", 200);
        tenant.write_amounts("more", 50);
        written += 250;
        amount += total(200) + total(50);
        (written, amount)
    };
    write(&tenant);
    for _ in 0..2 {
        let second = tenant.start();
        eventually("both have a task of sums", || {
            write(&tenant);
            let has = |p: &super::toy::Process| p.health.tasks().keys().filter(|t| t.stage == "sums").count();
            if has(&first) == 1 && has(&second) == 1 {
                Ok(())
            } else {
                Err(format!("{} {}", has(&first), has(&second)))
            }
        });
        write(&tenant);
        second.stop();
        write(&tenant);
    }
    let (count, amount) = write(&tenant);
    tenant.expect_sums(count, amount);
    first.stop();
}

fn a_task_that_another_process_took_over_commits_nothing_more(broker: &Broker) {
    use hokusai::stream::client::TransactionTimes;
    use rdkafka::producer::{BaseProducer, Producer};
    let tenant = Tenant::new(broker);
    let process = tenant.start().ready();
    tenant.write_amounts("amounts", 100);
    tenant.expect_sums(100, total(100));
    // A successor fences both tasks of the stage, as another process would.
    for partition in 0..2 {
        let id = format!("{}-{partition}", tenant.cluster.group("sums"));
        let fencer: BaseProducer = tenant.cluster.producer(Some(&id), &TransactionTimes::default()).create().unwrap();
        fencer.init_transactions(std::time::Duration::from_secs(30)).unwrap();
    }
    tenant.write_amounts("amounts", 100);
    tenant.expect_sums(200, 2 * total(100));
    process.stop();
}

/// Ends the generation of a group's only member, as a rebalance does that the member has not heard of yet: joins in its name.
fn end_generation(broker: &Broker, group: &str) {
    let client: BaseConsumer = config(broker, &[]).create().unwrap();
    let groups = client.fetch_group_list(Some(group), DEADLINE).unwrap();
    let member = groups.groups()[0].members()[0].id().to_owned();
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(text("range"))
        .with_metadata(Bytes::from_static(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
    let join = JoinGroupRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_session_timeout_ms(10_000)
        .with_rebalance_timeout_ms(10_000)
        .with_member_id(text(&member))
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol]);
    let mut raw = Raw::connect(broker);
    let joined = raw.settled(5, &join, |r| r.error_code);
    assert_eq!(error(joined.error_code), "None");
    let assignment = SyncGroupRequestAssignment::default()
        .with_member_id(text(&member))
        .with_assignment(Bytes::from_static(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
    let sync = SyncGroupRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_generation_id(joined.generation_id)
        .with_member_id(text(&member))
        .with_assignments(vec![assignment]);
    // The member itself may be back already: its generation is over either way.
    let synced = error(raw.settled(3, &sync, |r| r.error_code).error_code);
    assert!(["None", "RebalanceInProgress", "IllegalGeneration"].contains(&synced.as_str()), "{synced}");
}

fn a_generation_that_is_over_is_an_ordinary_abort_and_retry(broker: &Broker) {
    let tenant = Tenant::new(broker);
    let process = tenant.start().ready();
    tenant.write_amounts("amounts", 100);
    tenant.expect_sums(100, total(100));
    let faults = &process.faults;
    let (restored, calls) = (faults.restored.load(Ordering::Relaxed), faults.calls.load(Ordering::Relaxed));
    faults.holds_process.store(true, Ordering::Relaxed);
    tenant.write_amounts("amounts", 100);
    eventually("an open transaction", || match faults.calls.load(Ordering::Relaxed) {
        now if now > calls => Ok(()),
        _ => Err("none yet".into()),
    });
    end_generation(broker, &tenant.cluster.group("sums"));
    faults.holds_process.store(false, Ordering::Relaxed);
    tenant.expect_sums(200, 2 * total(100));
    assert!(faults.records.load(Ordering::Relaxed) > 200, "what was aborted was processed again");
    assert_eq!(faults.restored.load(Ordering::Relaxed), restored, "by the same tasks: none was started anew");
    assert!(tenant.dead_letters().is_empty());
    process.stop();
}
