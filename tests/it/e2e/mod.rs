//! From a contribution to its receipt, through what other programs rely on, on both brokers.
//!
//! Tests share running clusters, one with a single worker and one with two per broker, and keep apart by models of their own; those that stop
//! a cluster start their own.

mod alerts;
mod attestation;
mod attribution;
mod benchmarks;
mod calibration;
mod canaries;
mod cli;
mod contributions;
mod crowd;
mod custom_metrics;
mod dead_letters;
mod evaluation;
mod external;
mod flags;
mod folders;
mod formats;
mod identity;
mod keys;
mod malformed;
mod operations;
mod partitions;
mod predict;
mod privacy;
mod python;
mod readme;
mod recomputation;
mod recovery;
mod refusals;
mod registry;
mod reports;
mod s3;
mod sealed_rows;
mod sealing;
mod sql_features;
mod tables;
mod training;
mod trials;

/// Makes each named case a test on the embedded broker and one on Apache Kafka, each with one worker and with two, on shared clusters.
#[macro_export]
macro_rules! on_every_cluster {
    ($($case:ident),+ $(,)?) => {
        mod embedded {
            $(#[test] fn $case() { $crate::support::cluster::with($crate::support::broker::Kind::Embedded, 0, super::$case); })+
        }
        mod embedded_two_workers {
            $(#[test] fn $case() { $crate::support::cluster::with($crate::support::broker::Kind::Embedded, 1, super::$case); })+
        }
        mod apache_kafka {
            $(#[test] fn $case() { $crate::support::cluster::with($crate::support::broker::Kind::ApacheKafka, 0, super::$case); })+
        }
        mod apache_kafka_two_workers {
            $(#[test] fn $case() { $crate::support::cluster::with($crate::support::broker::Kind::ApacheKafka, 1, super::$case); })+
        }
    };
}

/// The same on a cluster of the test's own.
#[macro_export]
macro_rules! on_both_own_clusters {
    ($($case:ident),+ $(,)?) => {
        mod embedded_own {
            $(#[test] fn $case() { $crate::support::cluster::with_own($crate::support::broker::Kind::Embedded, super::$case); })+
        }
        mod apache_kafka_own {
            $(#[test] fn $case() { $crate::support::cluster::with_own($crate::support::broker::Kind::ApacheKafka, super::$case); })+
        }
    };
}
