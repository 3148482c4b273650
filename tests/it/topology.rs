//! `topology apply` makes a cluster what the file declares, on both brokers: once, again, after somebody changed it.

use crate::on_both_brokers;
use crate::support::broker::Broker;
use crate::support::client::{admin, admin_options, partitions, wait};
use crate::support::{eventually, unique};
use hokusai::topology::Topology;
use hokusai::topology::apply::{Action, ApplyError, ApplyOptions, apply};
use rdkafka::ClientConfig;
use rdkafka::admin::{AlterConfig, NewPartitions, ResourceSpecifier};

on_both_brokers! {
    applying_again_does_nothing_and_what_was_changed_outside_is_set_right,
    a_keyed_topic_that_was_grown_outside_is_refused_and_nothing_is_done,
    an_outsiders_topic_grows_with_the_topology,
}

fn applied(broker: &Broker, topology: &Topology, prefix: &str) -> Result<Vec<Action>, ApplyError> {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", &broker.bootstrap);
    let options = ApplyOptions { prefix: prefix.to_owned(), replication: 1, dry_run: false };
    tokio::runtime::Runtime::new().unwrap().block_on(apply(topology, &client, &options))
}

fn applying_again_does_nothing_and_what_was_changed_outside_is_set_right(broker: &Broker) {
    let (topology, prefix) = (Topology::builtin().unwrap(), format!("{}.", unique("apply")));
    let first = applied(broker, &topology, &prefix).unwrap();
    assert_eq!(first.len(), topology.active_topics().count());
    assert!(first.iter().all(|action| matches!(action, Action::Create { .. })), "{first:?}");
    assert_eq!(applied(broker, &topology, &prefix).unwrap(), []);
    for topic in topology.active_topics() {
        let found = partitions(broker, &topic.full_name(&prefix));
        assert_eq!(i32::try_from(found).unwrap(), topic.partitions, "{}", topic.name);
    }

    let receipts = format!("{prefix}receipts");
    let alter = AlterConfig::new(ResourceSpecifier::Topic(&receipts))
        .set("cleanup.policy", "delete")
        .set("min.compaction.lag.ms", "7");
    wait(admin(broker).alter_configs([&alter], &admin_options())).unwrap();
    let again = applied(broker, &topology, &prefix).unwrap();
    let [Action::AlterConfig { topic, changes, configs }] = &again[..] else { panic!("{again:?}") };
    assert_eq!(topic, &receipts);
    assert!(changes.iter().any(|change| change.name == "cleanup.policy" && change.to == "compact"), "{changes:?}");
    assert_eq!(configs["min.compaction.lag.ms"], "7", "what the operator set stays");
    assert_eq!(applied(broker, &topology, &prefix).unwrap(), []);
}

fn a_keyed_topic_that_was_grown_outside_is_refused_and_nothing_is_done(broker: &Broker) {
    let (topology, prefix) = (Topology::builtin().unwrap(), format!("{}.", unique("grown")));
    applied(broker, &topology, &prefix).unwrap();
    let screened = format!("{prefix}contributions.screened");
    let contributions = format!("{prefix}contributions");
    wait(admin(broker).create_partitions([&NewPartitions::new(&screened, 5)], &admin_options())).unwrap();
    eventually("the new partitions are known", || match partitions(broker, &screened) {
        5 => Ok(()),
        found => Err(format!("{found} partitions")),
    });
    let wider = "version: 1\nextends: builtin\ntopics: [{name: contributions, partitions: 3}]\n";
    let error = applied(broker, &Topology::parse("wider.yaml", wider).unwrap(), &prefix).unwrap_err();
    assert!(matches!(error, ApplyError::Refused(_)), "{error}");
    assert!(error.to_string().contains("has 5 partitions, the topology declares 2"), "{error}");
    assert_eq!(partitions(broker, &contributions), 2, "a plan with a refusal is not executed in part");
}

fn an_outsiders_topic_grows_with_the_topology(broker: &Broker) {
    let prefix = format!("{}.", unique("wider"));
    applied(broker, &Topology::builtin().unwrap(), &prefix).unwrap();
    let wider = "version: 1\nextends: builtin\ntopics: [{name: contributions, partitions: 3}]\n";
    let wider = Topology::parse("wider.yaml", wider).unwrap();
    let done = applied(broker, &wider, &prefix).unwrap();
    let contributions = format!("{prefix}contributions");
    assert_eq!(done, [Action::GrowPartitions { topic: contributions.clone(), from: 2, to: 3 }]);
    assert_eq!(partitions(broker, &contributions), 3);
    // One that has grown beyond the topology is left alone.
    assert_eq!(applied(broker, &Topology::builtin().unwrap(), &prefix).unwrap(), []);
}
