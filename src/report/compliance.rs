//! What a period was like for whoever has to answer for it: personal data found and what was done with it, who looked at what, what
//! was decided, what was promoted and who signed it.
//!
//! Receipts count by when the broker appended the contribution's last chunk, everything else by when it was recorded on its topic.
//! There is no value of a row in it, and of an evaluation only what its record tells.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::attest::decision::RegistryDecision;
use crate::attest::trust::Role;
use crate::domain::contract::{Policy, Spec};
use crate::domain::reason::Reason;
use crate::domain::records::{Audit, Evaluation, Model, Receipt};
use crate::ops::time::rfc3339;

/// Most entries of a list; how many there are is said.
pub const MAX_LISTED: usize = 1_000;

/// What the audit calls actions that bring a version into a stage: the roles that they need.
pub const TRANSITIONS: [Role; 4] =
    [Role::ModelPromote, Role::ModelRollback, Role::ModelArchive, Role::ExperimentDecide];

/// From (inclusive) to (exclusive), milliseconds UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    /// Beginning.
    pub from: i64,
    /// End.
    pub to: i64,
}

impl Period {
    /// Whether a time lies in it.
    #[must_use]
    pub fn holds(self, time: i64) -> bool {
        (self.from..self.to).contains(&time)
    }
}

/// Where a record stands, and when it came there: the order of lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct At {
    /// Milliseconds UTC.
    pub time: i64,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
}

/// A list of bounded length: the earliest entries, and how many there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed<T> {
    /// How many there are.
    pub total: u64,
    /// The first of them, at most [`MAX_LISTED`].
    pub listed: Vec<T>,
}

/// Gathers the earliest entries of a list, in order.
#[derive(Debug)]
struct Gathering<T> {
    total: u64,
    kept: BTreeMap<At, T>,
}

impl<T> Default for Gathering<T> {
    fn default() -> Self {
        Self { total: 0, kept: BTreeMap::new() }
    }
}

impl<T> Gathering<T> {
    fn add(&mut self, at: At, entry: T) {
        self.total += 1;
        self.kept.insert(at, entry);
        if self.kept.len() > MAX_LISTED {
            self.kept.pop_last();
        }
    }

    fn listed(self) -> Listed<T> {
        Listed { total: self.total, listed: self.kept.into_values().collect() }
    }
}

/// Cells with personal data of one kind, in the rows of one model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Found {
    /// Model that the rows were for, as contributors named it.
    pub model: String,
    /// Kind of personal data.
    #[serde(rename = "type")]
    pub kind: String,
    /// Cells that held some.
    pub cells: u64,
    /// Contributions with such cells.
    pub contributions: u64,
}

/// What a contract orders for a column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ColumnPolicy {
    /// Model.
    pub model: String,
    /// Contract, by its digest.
    pub contract_digest: String,
    /// Column.
    pub column: String,
    /// `hash`, `drop`, `generalise`, `keep` or `none`.
    pub policy: String,
    /// Kind of every cell, where the contract says it.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// What generalising leaves.
    pub to: Option<String>,
    /// Why, where something is kept or not looked at.
    pub reason: Option<String>,
}

/// Personal data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PersonalData {
    /// Receipts by status.
    pub receipts: BTreeMap<String, u64>,
    /// Rows received.
    pub rows_received: u64,
    /// Rows accepted.
    pub rows_accepted: u64,
    /// Rows of chunks that were refused because a column was full of personal data that nothing announced.
    pub rows_refused_undeclared: u64,
    /// What was found.
    pub found: Vec<Found>,
    /// What the contracts of these receipts order; what they do not name became keyed tokens.
    pub policies: Vec<ColumnPolicy>,
}

/// Something that somebody asked for, and the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Asked {
    /// When it was recorded.
    pub time: String,
    /// Key id of the actor, or what is known of it.
    pub actor: String,
    /// What was asked.
    pub action: String,
    /// On what.
    pub resource: String,
    /// The answer.
    pub allowed: bool,
    /// Why.
    pub reason: String,
    /// Id of the signed command.
    pub command_id: Option<String>,
}

/// An evaluation, with what its record tells: figures only when it was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Evaluated {
    /// When its outcome was recorded.
    pub time: String,
    /// What was told of it.
    #[serde(flatten)]
    pub told: Evaluation,
}

/// A version that came into a stage, by a signed command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Promotion {
    /// When the decision was recorded.
    pub time: String,
    /// Model.
    pub model: String,
    /// The version.
    pub version: String,
    /// `promote`, `rollback` or `archive`.
    pub action: String,
    /// Stage that it left.
    pub from_stage: Option<String>,
    /// Stage that it came into.
    pub stage: String,
    /// Version that it replaced there.
    pub replaced: Option<String>,
    /// Rule of the policy that let it through.
    pub rule: String,
    /// Id of the key that signed the command.
    pub signer: String,
    /// The command.
    pub command_id: String,
    /// Revision of the model that the decision made.
    pub revision: i64,
    /// Leaf hash of the attested decision, hex.
    pub leaf: String,
    /// Its index in the log.
    pub index: u64,
}

/// The report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Compliance {
    /// Beginning of the period, inclusive.
    pub from: String,
    /// Its end, exclusive.
    pub to: String,
    /// Personal data found, and the policy that was applied.
    pub personal_data: PersonalData,
    /// Who asked to see or change what is protected: plaintext, sealed rows, keys.
    pub access: Listed<Asked>,
    /// What was asked of models and what came of it.
    pub decisions: Listed<Asked>,
    /// Outcomes of evaluations.
    pub evaluations: Listed<Evaluated>,
    /// Versions that came into a stage, with who signed.
    pub promotions: Listed<Promotion>,
    /// Allowed commands of this kind without a statement in the log: repeated ones that changed nothing, and what is not attested yet.
    pub transitions_without_statement: u64,
}

/// Gathers the records of a period.
#[derive(Debug)]
pub struct Gather {
    period: Period,
    receipts: BTreeMap<String, u64>,
    rows: [u64; 3],
    found: BTreeMap<(String, String), (u64, u64)>,
    contracts: BTreeSet<(String, String)>,
    policies: Vec<ColumnPolicy>,
    access: Gathering<Asked>,
    decisions: Gathering<Asked>,
    /// Allowed transitions by model and command: when.
    wanted: BTreeMap<(String, String), At>,
    promotions: Gathering<Promotion>,
    evaluations: BTreeMap<String, (At, Evaluation)>,
}

fn whole(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

impl Gather {
    /// For a period.
    #[must_use]
    pub fn new(period: Period) -> Self {
        Self {
            period,
            receipts: BTreeMap::new(),
            rows: [0; 3],
            found: BTreeMap::new(),
            contracts: BTreeSet::new(),
            policies: Vec::new(),
            access: Gathering::default(),
            decisions: Gathering::default(),
            wanted: BTreeMap::new(),
            promotions: Gathering::default(),
            evaluations: BTreeMap::new(),
        }
    }

    /// A receipt.
    pub fn receipt(&mut self, receipt: &Receipt) {
        if !self.period.holds(receipt.last_appended) {
            return;
        }
        *self.receipts.entry(receipt.status.clone()).or_default() += 1;
        let undeclared = receipt.refused.iter().filter(|r| r.reason == Reason::PiiUndeclared.code());
        let counts = [receipt.received, receipt.accepted, undeclared.map(|r| r.count).fold(0, i64::saturating_add)];
        for (sum, count) in self.rows.iter_mut().zip(counts) {
            *sum = sum.saturating_add(whole(count));
        }
        for pii in &receipt.pii {
            let (cells, contributions) = self.found.entry((receipt.model.clone(), pii.kind.clone())).or_default();
            *cells = cells.saturating_add(whole(pii.count));
            *contributions += 1;
        }
        if !receipt.contract_digest.is_empty() {
            self.contracts.insert((receipt.model.clone(), receipt.contract_digest.clone()));
        }
    }

    /// A model, after all receipts: what its contracts order.
    pub fn model(&mut self, model: &Model) {
        for contract in &model.contracts {
            if !self.contracts.contains(&(model.model.clone(), contract.digest.clone())) {
                continue;
            }
            // A contract that this version does not read was written by another one: receipts name it all the same.
            let Ok(spec) = Spec::from_canonical_json(&contract.spec) else { continue };
            let columns = spec.schema.iter().flat_map(|table| &table.properties);
            let declared = columns.filter(|column| column.pii != Default::default());
            self.policies.extend(declared.map(|column| ColumnPolicy {
                model: model.model.clone(),
                contract_digest: contract.digest.clone(),
                column: column.name.clone(),
                policy: policy_name(column.pii.policy).to_owned(),
                kind: column.pii.kind.clone(),
                to: column.pii.to.and_then(|to| Some(serde_json::to_value(to).ok()?.as_str()?.to_owned())),
                reason: column.pii.reason.clone(),
            }));
        }
    }

    /// A record of `audit`.
    pub fn audit(&mut self, at: At, entry: Audit) {
        if !self.period.holds(at.time) {
            return;
        }
        let model = entry.resource.strip_prefix("model/").map(str::to_owned);
        let Audit { actor, action, resource, allowed, reason, command_id, .. } = entry;
        if let (Some(model), Some(id), true) = (&model, &command_id, allowed)
            && TRANSITIONS.iter().any(|role| role.name() == action)
        {
            self.wanted.entry((model.clone(), id.clone())).or_insert(at);
        }
        let list = if model.is_some() { &mut self.decisions } else { &mut self.access };
        list.add(at, Asked { time: rfc3339(at.time), actor, action, resource, allowed, reason, command_id });
    }

    /// An attested decision of the registry, after all of `audit`.
    pub fn decision(&mut self, index: u64, leaf: String, decision: &RegistryDecision) {
        let Some(at) = self.wanted.remove(&(decision.model.clone(), decision.command.id.clone())) else { return };
        let promotion = Promotion {
            time: rfc3339(at.time),
            model: decision.model.clone(),
            version: decision.version.clone(),
            action: decision.action.clone(),
            from_stage: decision.from_stage.clone(),
            stage: decision.stage.clone(),
            replaced: decision.replaced.as_ref().map(|replaced| replaced.version.clone()),
            rule: decision.rule.clone(),
            signer: decision.command.signer.clone(),
            command_id: decision.command.id.clone(),
            revision: decision.revision,
            leaf,
            index,
        };
        self.promotions.add(at, promotion);
    }

    /// What is told of an evaluation; of several records of one, that of the counted attempt stands.
    pub fn evaluation(&mut self, at: At, told: Evaluation) {
        match self.evaluations.get(&told.evaluation_id) {
            Some((_, known)) if known.attempt > told.attempt => {}
            _ => {
                self.evaluations.insert(told.evaluation_id.clone(), (at, told));
            }
        }
    }

    /// The report.
    #[must_use]
    pub fn finish(self) -> Compliance {
        let mut evaluations = Gathering::default();
        for (at, told) in self.evaluations.into_values().filter(|(at, _)| self.period.holds(at.time)) {
            evaluations.add(at, Evaluated { time: rfc3339(at.time), told });
        }
        let found = self.found.into_iter();
        let found = found.map(|((model, kind), (cells, contributions))| Found { model, kind, cells, contributions });
        let [rows_received, rows_accepted, rows_refused_undeclared] = self.rows;
        Compliance {
            from: rfc3339(self.period.from),
            to: rfc3339(self.period.to),
            personal_data: PersonalData {
                receipts: self.receipts,
                rows_received,
                rows_accepted,
                rows_refused_undeclared,
                found: found.collect(),
                policies: self.policies,
            },
            access: self.access.listed(),
            decisions: self.decisions.listed(),
            evaluations: evaluations.listed(),
            promotions: self.promotions.listed(),
            transitions_without_statement: self.wanted.len() as u64,
        }
    }
}

fn policy_name(policy: Policy) -> &'static str {
    match policy {
        Policy::Hash => "hash",
        Policy::Drop => "drop",
        Policy::Generalise => "generalise",
        Policy::Keep => "keep",
        Policy::None => "none",
    }
}

impl Compliance {
    /// One page: it loads and runs nothing.
    #[must_use]
    pub fn html(&self) -> String {
        super::compliance_page::page(self)
    }
}

#[cfg(test)]
#[path = "compliance_tests.rs"]
mod tests;
