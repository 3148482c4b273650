//! What must not be survived silently: each has a name and a way out.

use super::toy::{SOON, Tenant, total};
use crate::on_both_brokers;
use crate::support::broker::Broker;
use crate::support::client::{admin, admin_options, wait};
use hokusai::stream::Settings;
use rdkafka::admin::NewPartitions;

on_both_brokers! {
    a_topic_that_was_recreated_while_the_stages_were_down_stops_them,
    a_topic_that_is_recreated_while_the_stages_run_stops_them,
    a_changed_partition_count_stops_the_stage_before_one_record_is_processed,
    a_deleted_changelog_is_not_taken_for_a_new_beginning,
    records_that_expired_unread_stop_the_task,
    a_mark_that_cannot_be_made_stops_the_task_by_name,
}

fn watchful() -> Settings {
    Settings { check_interval: SOON, ..Settings::default() }
}

fn delete(tenant: &Tenant, topic: &str) {
    let name = tenant.topic(topic);
    wait(admin(&tenant.broker).delete_topics(&[&name], &admin_options())).unwrap();
    crate::support::eventually("the topic's end", || {
        let described = tenant.admin.describe(&[topic]).map_err(|e| e.to_string())?;
        if described[0].id.is_none() { Ok(()) } else { Err(format!("{described:?}")) }
    });
}

fn a_topic_that_was_recreated_while_the_stages_were_down_stops_them(broker: &Broker) {
    let tenant = Tenant::new(broker);
    let process = tenant.start().ready();
    tenant.write_amounts("amounts", 100);
    tenant.expect_sums(100, total(100));
    process.stop();
    delete(&tenant, "amounts");
    tenant.create_topics();
    tenant.write_amounts("amounts", 200);
    let process = tenant.start();
    let problem = process.problem("TOPIC_RECREATED");
    assert!(problem.contains("amounts") && problem.contains("help:"), "{problem}");
    assert_eq!(tenant.sums().len(), 100, "nothing of the new topic was processed");
    process.stop();
}

fn a_topic_that_is_recreated_while_the_stages_run_stops_them(broker: &Broker) {
    let tenant = Tenant::new(broker);
    let process = tenant.start_with(watchful()).ready();
    tenant.write_amounts("amounts", 100);
    tenant.expect_sums(100, total(100));
    delete(&tenant, "amounts");
    tenant.create_topics();
    process.problem("TOPIC_RECREATED");
    process.stop();
}

fn a_changed_partition_count_stops_the_stage_before_one_record_is_processed(broker: &Broker) {
    let tenant = Tenant::new(broker);
    let name = tenant.topic("more");
    let grow = NewPartitions::new(&name, 3);
    wait(admin(broker).create_partitions([&grow], &admin_options())).unwrap();
    crate::support::eventually("the third partition", || {
        let described = tenant.admin.describe(&["more"]).map_err(|e| e.to_string())?;
        if described[0].partitions == 3 { Ok(()) } else { Err(format!("{described:?}")) }
    });
    tenant.write_amounts("amounts", 50);
    let process = tenant.start_with(watchful());
    let problem = process.problem("PARTITIONS_CHANGED");
    assert!(problem.contains("more has 3 partitions, the topology declares 2"), "{problem}");
    assert!(tenant.sums().is_empty());
    process.stop();
}

fn a_deleted_changelog_is_not_taken_for_a_new_beginning(broker: &Broker) {
    let tenant = Tenant::new(broker);
    let process = tenant.start().ready();
    tenant.write_amounts("amounts", 100);
    tenant.expect_sums(100, total(100));
    process.stop();
    delete(&tenant, "hokusai.changelog.sums");
    tenant.create_topics();
    let process = tenant.start();
    process.problem("PROGRESS_LOST");
    assert_eq!(tenant.sums().len(), 100);
    process.stop();
}

fn records_that_expired_unread_stop_the_task(broker: &Broker) {
    let tenant = Tenant::new(broker);
    let process = tenant.start().ready();
    tenant.write_amounts("amounts", 100);
    tenant.expect_sums(100, total(100));
    process.stop();
    tenant.write_amounts("amounts", 100);
    let mut list = rdkafka::TopicPartitionList::new();
    for partition in 0..2 {
        list.add_partition_offset(&tenant.topic("amounts"), partition, rdkafka::Offset::End).unwrap();
    }
    wait(admin(broker).delete_records(&list, &admin_options())).unwrap();
    let process = tenant.start();
    let problem = process.problem("OFFSET_EXPIRED");
    assert!(problem.contains("expired unread"), "{problem}");
    process.stop();
}

fn a_mark_that_cannot_be_made_stops_the_task_by_name(broker: &Broker) {
    let tenant = Tenant::new(broker);
    let settings = Settings { mark_interval: SOON, idle_mark_interval: SOON, ..Settings::default() };
    let process = tenant.start_with(settings).ready();
    process.faults.marks_fail.store(true, std::sync::atomic::Ordering::Relaxed);
    let problem = process.problem("CANNOT_WRITE");
    assert!(problem.starts_with("relay-") && problem.contains("no clock") && problem.contains("help:"), "{problem}");
    // The other stage goes on.
    tenant.write_amounts("more", 100);
    tenant.expect_sums(100, total(100));
    process.stop();
}
