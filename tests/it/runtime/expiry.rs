//! Transactional ids that the broker has forgotten, as after weeks of idleness: the stages go on, without a restart.

use super::toy::{Tenant, total};
use crate::support::broker::{Broker, Kind, Own};
use crate::support::eventually;
use crate::support::raw::{Raw, error, text};
use kafka_protocol::messages::{DescribeTransactionsRequest, TransactionalId};

#[test]
fn the_stages_go_on_when_the_embedded_broker_has_forgotten_their_transactional_ids() {
    forgotten(Kind::Embedded);
}

#[test]
fn the_stages_go_on_when_apache_kafka_has_forgotten_their_transactional_ids() {
    forgotten(Kind::ApacheKafka);
}

fn wait_until_forgotten(broker: &Broker, ids: &[String]) {
    let ids = ids.iter().map(|id| TransactionalId(text(id))).collect();
    let request = DescribeTransactionsRequest::default().with_transactional_ids(ids);
    let mut raw = Raw::connect(broker);
    eventually("the end of the transactional ids", || {
        let states = raw.call(0, &request).transaction_states;
        let codes: Vec<String> = states.iter().map(|state| error(state.error_code)).collect();
        if codes.iter().all(|code| code == "TransactionalIdNotFound") { Ok(()) } else { Err(format!("{codes:?}")) }
    });
}

fn forgotten(kind: Kind) {
    let Some(own) = Own::start_forgetful(kind) else { return };
    let tenant = Tenant::new(&own.broker());
    let process = tenant.start().ready();
    let ids: Vec<String> = (0..2).map(|partition| format!("{}-{partition}", tenant.cluster.group("sums"))).collect();
    for round in 1..=2 {
        tenant.write_amounts("amounts", 100);
        tenant.expect_sums(100 * round, i64::try_from(round).unwrap() * total(100));
        wait_until_forgotten(&own.broker(), &ids);
    }
    tenant.write_amounts("amounts", 100);
    tenant.expect_sums(300, 3 * total(100));
    assert!(tenant.dead_letters().is_empty(), "that is nobody's fault");
    process.stop();
}
