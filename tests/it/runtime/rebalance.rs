//! Two processes: partitions move, and a task has one owner.

use super::toy::{Tenant, total};
use crate::on_both_brokers;
use crate::support::broker::Broker;
use crate::support::eventually;

on_both_brokers! {
    two_processes_exchange_partitions_under_load_without_loss_or_duplicates,
    a_task_that_another_process_took_over_commits_nothing_more,
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
