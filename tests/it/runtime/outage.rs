//! The broker goes away under load and comes back: the stages wait for it and go on, without loss or duplicates.

use super::toy::{Tenant, total};
use crate::support::broker::{Kind, Own};

#[test]
fn the_stages_outlive_the_embedded_broker() {
    outage(Kind::Embedded);
}

#[test]
fn the_stages_outlive_apache_kafka() {
    outage(Kind::ApacheKafka);
}

fn outage(kind: Kind) {
    let Some(mut own) = Own::start(kind) else { return };
    let tenant = Tenant::new(&own.broker());
    let process = tenant.start().ready();
    let (mut written, mut amount) = (0, 0);
    for _ in 0..3 {
        for topic in ["amounts", "more"] {
            tenant.write_amounts(topic, 500);
            (written, amount) = (written + 500, amount + total(500));
        }
        own.restart();
    }
    tenant.write_amounts("amounts", 100);
    tenant.expect_sums(written + 100, amount + total(100));
    assert!(tenant.dead_letters().is_empty(), "an outage is nobody's fault");
    process.stop();
}
