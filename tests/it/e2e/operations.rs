//! What an operator sees: health, readiness, metrics, clean ends.

use crate::on_both_own_clusters;
use crate::on_every_cluster;
use crate::support::cluster::Cluster;
use crate::support::flow::{account, contribute, contribution, reasons, receipt, rows, shop};
use crate::support::unique;

on_every_cluster! {
    health_readiness_and_metrics_are_served,
}

on_both_own_clusters! {
    a_signal_ends_it_cleanly_and_a_start_goes_on,
}

fn health_readiness_and_metrics_are_served(cluster: &Cluster) {
    let (model, _) = shop(cluster);
    let id = unique("metrics");
    let mut values = rows(0..20);
    values[3]["plan"] = "gold".into();
    contribute(cluster, &[contribution(&id, "alice", &model, &values)]);
    receipt(cluster, &id);
    let mut metrics = String::new();
    for worker in cluster.workers() {
        for path in ["/health", "/ready"] {
            let (status, text) = worker.get(path);
            assert_eq!(status, 200, "{path}: {text}");
        }
        let (status, text) = worker.get("/metrics");
        assert_eq!(status, 200);
        metrics.push_str(&text);
    }
    for needle in ["lag", "commit", "ENUM_UNKNOWN", "state"] {
        assert!(metrics.contains(needle), "{needle} in\n{metrics}");
    }
    assert!(!metrics.contains("@example.com") && !metrics.contains(&id), "no personal data, no ids in labels");
}

fn a_signal_ends_it_cleanly_and_a_start_goes_on(mut cluster: Cluster) {
    let (model, _) = shop(&cluster);
    let mut ids = Vec::new();
    for (round, signal) in ["TERM", "INT"].into_iter().enumerate() {
        let id = unique("signal");
        let first = 100 * i64::try_from(round).expect("small");
        contribute(&cluster, &[contribution(&id, "alice", &model, &rows(first..first + 100))]);
        ids.push(id);
        cluster.process.signal(signal);
        let status = cluster.process.wait();
        assert_eq!(status.code(), Some(0), "{signal}: {}", cluster.process.log());
        cluster.start_again();
    }
    for id in ids {
        assert_eq!(account(&receipt(&cluster, &id)), ("admitted".into(), 100, 100, reasons([])));
    }
    assert_eq!(cluster.count(&format!("select count(*) as n from rows where model = '{model}'")), 200);
}
