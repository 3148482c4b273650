//! The tables: which topic each one holds, and its columns.
//!
//! A table's columns only ever grow: a column that stands here keeps its name and type for good. Every column is
//! nullable in Delta, so that a reader of another version never meets a rule it does not know. A new column stands
//! last: a table of an earlier version gets it there, with the first commit that has rows; until then SQL shows it as
//! null.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};

use super::records::attributions;
use crate::domain::topics;

/// Metadata key that Delta readers show as a column's comment.
pub const COMMENT: &str = "comment";

/// Metadata key under which a column of `rows` keeps the name that its contract gave it.
pub const CONTRACT_COLUMN: &str = "hokusai.column";

/// A table of the store, and the one topic that it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Headers, sizes, digests and positions of what outsiders sent; never payloads.
    Contributions,
    /// First-seen rows of all models, with PII as tokens.
    Rows,
    /// One row per refusal.
    Refusals,
    /// One row per receipt.
    Receipts,
    /// What could not be read at all.
    DeadLetters,
    /// Who did what.
    Audit,
    /// Each state that a model has had since the table began.
    ModelRevisions,
    /// Signed statements.
    Attestations,
    /// Each state that a training run has told.
    RunStates,
    /// What came of each trial of a search.
    TrialResults,
    /// What may be told of each evaluation.
    Evaluations,
    /// Who is credited with accepted improvements.
    Attributions,
}

/// What one table is: the one place that says it.
struct Facts {
    table: Table,
    name: &'static str,
    topic: &'static str,
    comment: &'static str,
    fields: fn() -> Vec<Field>,
}

const fn facts(
    table: Table,
    name: &'static str,
    topic: &'static str,
    comment: &'static str,
    fields: fn() -> Vec<Field>,
) -> Facts {
    Facts { table, name, topic, comment, fields }
}

/// One line per table, in the order of the enum: a table's place here is its discriminant.
#[rustfmt::skip] // one table, one or two lines
const TABLES: [Facts; 12] = [
    facts(Table::Contributions, "contributions", topics::CONTRIBUTIONS,
        "Headers, sizes, keyed digests and positions of contributed chunks; never payloads", contributions),
    facts(Table::Rows, "rows", topics::ACCEPTED,
        "First-seen rows with personal data as tokens; training counts only those of admitted receipts (view admitted_rows)", rows),
    facts(Table::Refusals, "refusals", topics::REFUSED,
        "One row per refusal: reason code, rule, column and the shape of the value, never the value", refusals),
    facts(Table::Receipts, "receipts", topics::RECEIPTS, "One row per receipt of a contribution", receipts),
    facts(Table::DeadLetters, "dead_letters", topics::DEAD_LETTERS, "Records that could not be read at all", dead_letters),
    facts(Table::Audit, "audit", topics::AUDIT, "Who did what to which resource, allowed or denied", audit),
    facts(Table::ModelRevisions, "model_revisions", topics::MODELS,
        "One row per revision of a model: its versions, aliases and tags as they were then", model_revisions),
    facts(Table::Attestations, "attestations", topics::ATTESTATIONS,
        "One row per signed statement in the log; `hokusai verify` checks them, a table does not", attestations),
    facts(Table::RunStates, "run_states", topics::TRAINING_RUNS,
        "One row per state that a training run has told; the view runs has the newest", run_states),
    facts(Table::TrialResults, "trial_results", topics::TRAINING_JOBS,
        "One row per trial and rung of a search: parameters, loss, metrics; the view trials ranks them", trial_results),
    facts(Table::Evaluations, "evaluation_records", topics::EVALUATIONS,
        "What may be told of each evaluation: of a refused one no figure but the Ladder's; the view evaluations has the newest", evaluations),
    facts(Table::Attributions, "attributions", topics::ATTRIBUTIONS,
        "Who is credited with each accepted improvement: values of a declared game, errors, shares or why there are none", attributions::fields),
];

impl Table {
    /// Every table, in the order in which they are listed.
    pub const ALL: [Self; TABLES.len()] = {
        let mut all = [Self::Contributions; TABLES.len()];
        let mut at = 0;
        while at < all.len() {
            all[at] = TABLES[at].table;
            assert!(all[at] as usize == at, "TABLES is not in the order of the enum");
            at += 1;
        }
        all
    };

    fn facts(self) -> &'static Facts {
        &TABLES[self as usize]
    }

    /// Name in SQL and of the folder under `tables/`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.facts().name
    }

    /// Topic that the table holds, without prefix.
    #[must_use]
    pub fn topic(self) -> &'static str {
        self.facts().topic
    }

    /// The table of a topic (without prefix).
    #[must_use]
    pub fn of_topic(topic: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.topic() == topic)
    }

    /// What the table is, in one sentence.
    #[must_use]
    pub fn comment(self) -> &'static str {
        self.facts().comment
    }

    /// Columns that a table has when this version makes it; `rows` adds those of the contracts.
    #[must_use]
    pub fn schema(self) -> SchemaRef {
        static SCHEMAS: LazyLock<[SchemaRef; TABLES.len()]> =
            LazyLock::new(|| TABLES.each_ref().map(|facts| Arc::new(Schema::new((facts.fields)()))));
        Arc::clone(&SCHEMAS[self as usize])
    }
}

/// Milliseconds on the wire, microseconds UTC in the tables: the one form that every Delta reader knows.
#[must_use]
pub fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

pub(super) fn column(name: &str, data_type: DataType, comment: &str) -> Field {
    let metadata = HashMap::from([(COMMENT.to_owned(), comment.to_owned())]);
    Field::new(name, data_type, true).with_metadata(metadata)
}

pub(super) fn text(name: &str, comment: &str) -> Field {
    column(name, DataType::Utf8, comment)
}

pub(super) fn long(name: &str, comment: &str) -> Field {
    column(name, DataType::Int64, comment)
}

pub(super) fn plain(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, true)
}

/// A list of structs, with the element name that Parquet readers expect.
pub(super) fn list_of(fields: Vec<Field>) -> DataType {
    DataType::List(Arc::new(plain("element", DataType::Struct(Fields::from(fields)))))
}

fn position() -> [Field; 2] {
    [
        column("source_partition", DataType::Int32, "Partition of `contributions` where the chunk stands"),
        long("source_offset", "Offset of the chunk in that partition"),
    ]
}

fn chunk_columns() -> Vec<Field> {
    vec![
        text("contribution_id", "Id of the contribution"),
        text("contributor", "Who contributed: an opaque name or wallet address"),
        text("model", "Model that the rows are for"),
        text("contract_digest", "Contract that the rows were checked against; empty without one"),
        long("chunk", "Number of the chunk in its contribution, from 0"),
    ]
}

fn contributions() -> Vec<Field> {
    let mut fields = vec![
        text("contribution_id", "Id that the record names, else its key; null when it has none and its id is derived"),
        text("contributor", "Who contributes"),
        text("model", "Model that the rows are for"),
        text("contract_digest", "Contract that the chunk names; null when it takes the one in force"),
        text("format", "json, csv, parquet, arrow or avro"),
        long("chunk", "Number of the chunk in its contribution, from 0"),
        long("chunks", "How many chunks the contribution has"),
        long("payload_bytes", "Size of the chunk's payload"),
        text("chunk_digest", "Keyed digest of the payload (HMAC under the model's dedup key), hex; null when sealed"),
        long("record_bytes", "Size of the record's value"),
        column("readable", DataType::Boolean, "False when the record is no contribution at all: see dead_letters"),
        column("appended", timestamp(), "When the broker appended the record"),
    ];
    fields.extend(position());
    fields.push(text("sealed", "Intake key that the payload is sealed to; null when it came plain"));
    fields
}

fn rows() -> Vec<Field> {
    let mut fields = chunk_columns();
    fields.extend([
        text("chunk_digest", "Keyed digest of the chunk as it was sent, hex"),
        column("shard", DataType::Int32, "Hash shard: partition of contributions.accepted"),
        long("row", "Row in the chunk, from 0"),
        text("row_hash", "Keyed hash of the canonical row, hex"),
    ]);
    fields
}

fn refusals() -> Vec<Field> {
    let mut fields = chunk_columns();
    fields.extend([
        text("chunk_digest", "Keyed digest of the chunk as it was sent, hex"),
        text("stage", "intake, dedup or receipts"),
        long("row", "Row in the chunk, from 0; -1 for the chunk as a whole"),
        text("code", "Reason code"),
        text("column", "Column; empty when the refusal is about none"),
        text("rule", "The rule that failed, as the contract names it"),
        text("expected", "What was expected"),
        text("shape", "Shape of what was seen, never the value"),
        text("row_digest", "Keyed digest of the row, hex; empty when there is no row"),
    ]);
    fields.extend(position());
    fields
}

fn receipts() -> Vec<Field> {
    let counts = |name: &str| list_of(vec![plain(name, DataType::Utf8), plain("count", DataType::Int64)]);
    let dimension = list_of(vec![
        plain("name", DataType::Utf8),
        plain("value", DataType::Float64),
        plain("weight", DataType::Float64),
        plain("loss", DataType::Float64),
        plain("measured", DataType::Boolean),
    ]);
    let quality = DataType::Struct(Fields::from(vec![
        plain("formula", DataType::Utf8),
        plain("score", DataType::Float64),
        plain("validity_lower", DataType::Float64),
        plain("gate", DataType::Utf8),
        plain("flags", DataType::List(Arc::new(plain("element", DataType::Utf8)))),
        plain("dimensions", dimension),
    ]));
    let bound = list_of(vec![
        plain("chunk", DataType::Int64),
        plain("chunk_digest", DataType::Utf8),
        plain("rows", DataType::Int64),
        plain("root", DataType::Utf8),
    ]);
    vec![
        text("contribution_id", "Id of the contribution"),
        text("contributor", "Who contributed"),
        text("model", "Model that the rows are for"),
        text("contract_digest", "Contract that the rows were checked against; empty without one"),
        text("status", "admitted, refused or incomplete"),
        long("received", "Rows received = accepted + the sum of refused"),
        long("accepted", "Rows accepted; 0 unless admitted"),
        column("refused", counts("reason"), "Rows refused, by reason code"),
        column("quality", quality, "Quality score with its dimensions"),
        column("pii", counts("type"), "Cells that held personal data, by type"),
        text("merkle_root", "RFC 6962 root over the chunks, hex; empty without rows"),
        long("merkle_rows", "Leaves under the chunk roots together"),
        long("chunks", "Chunks that were expected"),
        column("bound", bound, "The chunks that the receipt binds"),
        text("chunks_digest", "SHA-256 over the list of all bound chunks, hex"),
        column("last_appended", timestamp(), "Highest append time among the chunks"),
        column(
            "contributor_verified",
            DataType::Boolean,
            "Every chunk was signed by the key that the contributor's name is",
        ),
        text("contributor_signature", "How: ed25519 or eip191; null when the contributor is not verified"),
        text("leaf", "Leaf hash of its statement, hex: see attestations; empty (or null) in receipts made before it"),
    ]
}

fn dead_letters() -> Vec<Field> {
    vec![
        text("stage", "Stage that could not read the record"),
        text("source_topic", "Topic of the record, without prefix"),
        column("source_partition", DataType::Int32, "Partition of the record"),
        long("source_offset", "Offset of the record"),
        text("reason", "Why: a stable code"),
        text("detail", "What was wrong, without any byte of the record"),
        long("record_bytes", "Size of the record's value"),
        text("record_digest", "Keyed digest of the record's value, hex"),
        text("sealed_to", "Operator's key that the dead letter keeps the record sealed to; null when it is not kept"),
    ]
}

fn audit() -> Vec<Field> {
    vec![
        text("actor", "Key id of the actor, or what is known of it"),
        text("action", "What was asked"),
        text("resource", "On what"),
        column("allowed", DataType::Boolean, "Allowed or denied"),
        text("reason", "Why"),
        text("source_topic", "Topic where it was asked, without prefix"),
        column("source_partition", DataType::Int32, "Partition where it was asked"),
        long("source_offset", "Offset where it was asked"),
        text("command_id", "Id of the signed command or result; null when it could not be read"),
        long("revision", "Revision of the model after the decision; null when it is about no model"),
    ]
}

fn named_values() -> DataType {
    list_of(vec![plain("name", DataType::Utf8), plain("value", DataType::Utf8)])
}

pub(super) fn texts() -> DataType {
    DataType::List(Arc::new(plain("element", DataType::Utf8)))
}

/// The fields of a version, in the order in which `registry::versions` fills them.
fn version() -> Vec<Field> {
    let metrics =
        list_of(vec![plain("name", DataType::Utf8), plain("value", DataType::Utf8), plain("rows", DataType::Int64)]);
    let evaluation = |name: &str| plain(name, if name == "reasons" { texts() } else { DataType::Utf8 });
    let names =
        ["evaluation_id", "benchmark", "baseline", "status", "reasons", "metric", "delta", "lower", "statement"];
    let typed = |name: &str| match name {
        "revision" | "artefact_bytes" | "dataset_rows" | "contributions" => plain(name, DataType::Int64),
        _ => plain(name, DataType::Utf8),
    };
    let scalars = [
        "version",
        "stage",
        "origin",
        "revision",
        "artefact_digest",
        "artefact_bytes",
        "media_type",
        "contract_digest",
        "features_digest",
        "parent",
        "dataset_digest",
        "dataset_rows",
        "contributions",
        "run_id",
        "recipe_digest",
        "benchmark",
        "contributor",
        "signer",
        "command_id",
    ];
    let mut fields: Vec<Field> = scalars.into_iter().map(typed).collect();
    fields.push(plain("params", named_values()));
    fields.push(plain("metrics", metrics));
    fields.push(plain("tags", named_values()));
    fields.push(plain("evaluations", list_of(names.into_iter().map(evaluation).collect())));
    fields
}

fn model_revisions() -> Vec<Field> {
    let aliases = list_of(vec![plain("name", DataType::Utf8), plain("version", DataType::Utf8)]);
    vec![
        text("model", "Name of the model"),
        long("revision", "Number of events that changed it"),
        text("contract_digest", "Contract in force"),
        column("versions", list_of(version()), "Its versions, in the order in which they were registered"),
        column("aliases", aliases, "Movable names of versions"),
        column("tags", named_values(), "Tags of the model"),
    ]
}

fn attestations() -> Vec<Field> {
    vec![
        long("index", "Index in the log, from 0"),
        text("leaf", "Leaf hash, hex: what `hokusai attestation show` takes"),
        text("predicate_type", "Type of what is said"),
        text("subject", "What it is about"),
        text("contribution_id", "Contribution whose receipt it attests; null for other statements"),
        text("keyid", "Id of the key that the envelope names as its signer"),
        text("statement", "The statement: canonical JSON, the bytes that are signed"),
    ]
}

fn metrics() -> DataType {
    list_of(vec![plain("name", DataType::Utf8), plain("value", DataType::Utf8), plain("rows", DataType::Int64)])
}

fn trial_results() -> Vec<Field> {
    vec![
        text("run_id", "Run whose search it belongs to"),
        column("trial", DataType::Int32, "Number of the trial, from 0; 0 has the request's own parameters"),
        column("rung", DataType::Int32, "Rung of the search, from 0"),
        text("model", "Model"),
        text("algorithm", "Learner"),
        long("seed", "Seed of every random choice"),
        column("params", named_values(), "Complete parameters of the learner, values as JSON"),
        column("iterations", DataType::Int32, "Iterations that the learner kept"),
        column("loss", DataType::Float64, "Loss on the validation fold, lower is better; null when it failed"),
        column("metrics", metrics(), "Metrics on the validation fold"),
        text("reason", "Reason code when it failed; empty otherwise"),
        text("detail", "What is wrong; empty otherwise"),
    ]
}

fn run_states() -> Vec<Field> {
    vec![
        text("run_id", "Run: it follows from the request's id"),
        text("request_id", "Id of the request"),
        text("model", "Model"),
        text("status", "refused, admitted, running, waiting, finished, failed or cancelled"),
        text("algorithm", "Learner"),
        long("seed", "Seed of every random choice"),
        text("base_version", "Version that the model is compared with; null when there is none"),
        text("run_group", "Name that runs which belong together share; null without one"),
        text("contract_digest", "Contract whose columns the model reads; empty when refused"),
        text("dataset_digest", "Root over the rows that it learned from; null before they are read"),
        long("dataset_rows", "Rows of the dataset"),
        long("contributions", "Contributions that they come from"),
        text("recipe_digest", "Digest of everything that the model's bytes depend on"),
        column("iteration", DataType::Int32, "Iterations done; of an external trainer, answers looked at"),
        column("iterations", DataType::Int32, "Iterations at most"),
        text("artefact_digest", "SHA-256 of the model, hex; null before it is finished"),
        long("artefact_bytes", "Its size"),
        column("params", named_values(), "Complete parameters of the learner, values as JSON"),
        column("metrics", metrics(), "Metrics on the validation fold"),
        column("tags", named_values(), "Tags of the version that comes of it"),
        text("reason", "Reason code when it was refused, failed or cancelled; empty otherwise"),
        text("detail", "What is wrong and the way out; empty otherwise"),
        column("source_partition", DataType::Int32, "Partition of `training.requests` where the request stands"),
        long("source_offset", "Offset of the request in that partition"),
        text("benchmark", "Sealed benchmark that the model is evaluated on, NAME@VERSION; null without one"),
        text("evaluation_id", "Evaluation that the finished run asked for: see evaluations; null without one"),
        text("search", "The declared search over parameters, JSON; null without one"),
        column(
            "trial",
            DataType::Int32,
            "Trial that won the search: see trials; null without a search and before its end",
        ),
        text("job_digest", "SHA-256 of the job's description for an external trainer, hex; null for own learners"),
        column("requested_at", timestamp(), "When its request was appended; null when it is not known"),
    ]
}

fn evaluations() -> Vec<Field> {
    let stratum = list_of(vec![
        plain("name", DataType::Utf8),
        plain("rows", DataType::Int64),
        plain("delta", DataType::Utf8),
        plain("lower", DataType::Utf8),
        plain("margin", DataType::Utf8),
        plain("passed", DataType::Boolean),
    ]);
    vec![
        text("evaluation_id", "Evaluation: it follows from model, benchmark and recipe"),
        text("request_id", "Id of the request behind it"),
        text("run_id", "Run that made the candidate"),
        text("model", "Model"),
        text("benchmark", "Benchmark, NAME@VERSION"),
        text("family", "Attempts family"),
        text("candidate", "SHA-256 of the candidate's artefact, hex"),
        text("baseline", "SHA-256 of the baseline's artefact, hex"),
        text("baseline_version", "The baseline's version"),
        text("recipe_digest", "Digest of the candidate's recipe"),
        long("attempt", "Number of the attempt in its family, from 1; 0 for a request that was not counted"),
        text("alpha", "Level that the attempt spent, decimal string"),
        text("status", "accepted, refused, failed or cancelled"),
        column("reasons", texts(), "Reason codes, sorted; empty when it is accepted"),
        text("detail", "Why it was not scored, or the way out; empty otherwise"),
        text("metric", "Primary metric"),
        text("ladder_score", "Score on the Ladder in the metric's unit, decimal string"),
        text("baseline_value", "Baseline's value; only when accepted"),
        text("candidate_value", "Candidate's value; only when accepted"),
        text("delta", "By how much the candidate is better; only when accepted"),
        text("lower", "Lower bound of delta at the spent level; only when accepted"),
        text("p_value", "One-sided p, rounded up; only when accepted"),
        column("strata", stratum, "Comparison by stratum; only when accepted"),
        text("preregistration", "Leaf hash of the preregistration, hex: see attestations"),
        text("statement", "SHA-256 of the outcome's statement, hex"),
    ]
}
