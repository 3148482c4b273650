//! Names of the topics and stages of the first half, as `topology/hokusai.yaml` declares them (without prefix).
//!
//! Code names a topic only through these constants, so that a topic that is renamed is renamed once.

/// Outsiders' chunks of rows.
pub const CONTRIBUTIONS: &str = "contributions";
/// Outsiders' signed commands on models.
pub const MODEL_COMMANDS: &str = "model.commands";
/// Outsiders' requests to train a candidate.
pub const TRAINING_REQUESTS: &str = "training.requests";
/// Outsiders' answers to jobs that wait for an external trainer.
pub const TRAINING_ANSWERS: &str = "training.answers";
/// Requests and answers in the order that counts.
pub const TRAINING_JOBS: &str = "training.jobs";
/// One trial of a search each.
pub const TRAINING_TRIALS: &str = "training.trials";
/// State of each run.
pub const TRAINING_RUNS: &str = "training.runs";
/// Attempts and the acknowledgements of their preregistration, by attempts family.
pub const EVALUATION_REQUESTS: &str = "evaluation.requests";
/// What may be told of each evaluation.
pub const EVALUATIONS: &str = "evaluations";
/// Who is credited with accepted improvements.
pub const ATTRIBUTIONS: &str = "attributions";
/// Valid, tokenised rows by hash shard, and release marks.
pub const SCREENED: &str = "contributions.screened";
/// One manifest per chunk, and intake's time marks.
pub const MANIFESTS: &str = "contributions.manifests";
/// Dedup's verdict per chunk and shard.
pub const VERDICTS: &str = "contributions.verdicts";
/// First-seen rows by hash shard.
pub const ACCEPTED: &str = "contributions.accepted";
/// Refusals, batched: code, rule, column and shape, never the value.
pub const REFUSED: &str = "contributions.refused";
/// One receipt per contribution.
pub const RECEIPTS: &str = "receipts";
/// What is to be attested, in log order.
pub const ATTESTATION_REQUESTS: &str = "attestations.requests";
/// Signed statements.
pub const ATTESTATIONS: &str = "attestations";
/// Signed tree heads.
pub const CHECKPOINTS: &str = "attestations.checkpoints";
/// Inclusion proofs.
pub const PROOFS: &str = "attestations.proofs";
/// Trust roots for verifiers.
pub const TRUST: &str = "attestations.trust";
/// Key of everything that goes into the one log.
pub const LOG_KEY: &[u8] = b"log";
/// Commands as they came and decisions, in the order that counts.
pub const REGISTRY_EVENTS: &str = "registry.events";
/// The fold of `registry.events`.
pub const MODELS: &str = "models";
/// Sealed benchmarks, retired ones too.
pub const BENCHMARKS: &str = "benchmarks";
/// Who did what to which resource, allowed or denied.
pub const AUDIT: &str = "audit";
/// What could not be read at all.
pub const DEAD_LETTERS: &str = "dead-letters";
/// What a person should see.
pub const ALERTS: &str = "alerts";
/// Progress of stateless stages.
pub const PROGRESS: &str = "hokusai.progress";
