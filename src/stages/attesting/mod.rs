//! Attesting: signs statements, grows the log, and publishes signed tree heads and proofs.
//!
//! ```text
//!  transaction n    requests ──► statement ──► DSSE by the attester ──► attestations; right edge into the state
//!  transaction n+1  what is committed ──► tree head by the log's key ──► fsynced beside the key ──► put into the store, where
//!                   another one of its size is refused ──► attestations.checkpoints, attestations.proofs, and for each
//!                   preregistration under it {leaf, index, tree head} ──► evaluation.requests: only that releases scoring
//! ```
//!
//! Invariants:
//! * a statement is signed as it was asked for, byte for byte; Ed25519 is deterministic: whatever is killed when, payloads,
//!   signatures and leaves are the same bytes;
//! * no leaf twice;
//! * a tree head is signed only over entries that are committed, and is durable in two places before anybody sees it. So two tree
//!   heads of one size are the same bytes, also when a killed process, a fenced one and its successor all sign it;
//! * a log that is shorter than a tree head that was signed, or contradicts it, stops the stage and leaves evidence;
//! * keys change by entries of the log that the key before has signed; another key than the log's stops the stage.

pub mod keeper;
pub mod log;
#[cfg(test)]
mod tests;

use crate::attest::checkpoint::{Checkpoint, TlogProof};
use crate::attest::dsse::{Envelope, key_id};
use crate::attest::nodes;
use crate::attest::note::{Algorithm, NoteKey};
use crate::attest::predicate::KeyEvent;
use crate::attest::statement::{PAYLOAD_TYPE, Predicate, Statement, Subject, leaf_of};
use crate::domain::records::{Attestation, AttestationRequest, EvaluationAcknowledgement, EvaluationRequest};
use crate::domain::topics;
use crate::stream::stage::{Batch, Context, Destination, Outputs, Stage, StageError};
use crate::stream::state::KeyValue;
use ed25519_dalek::SigningKey;
use keeper::{Keeper, LogKeys};
use log::{Awaited, Identity, KeyInForce, Log, View};

/// The stage: see the module.
pub struct Attesting {
    tenant: String,
    keeper: Box<dyn Keeper>,
    keys: Option<LogKeys>,
    /// What was kept has been compared with the log.
    compared: bool,
}

impl std::fmt::Debug for Attesting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attesting").field("tenant", &self.tenant).field("keys", &self.keys).finish_non_exhaustive()
    }
}

impl Attesting {
    /// The stage of a tenant.
    #[must_use]
    pub fn new(tenant: &str, keeper: Box<dyn Keeper>) -> Self {
        Self { tenant: tenant.to_owned(), keeper, keys: None, compared: false }
    }
}

impl Stage for Attesting {
    type State = KeyValue;

    fn name(&self) -> &'static str {
        "attesting"
    }

    fn state(&self) -> KeyValue {
        KeyValue::default()
    }

    fn owes(&self, state: &KeyValue) -> Result<bool, StageError> {
        let view = View(state);
        Ok(!self.compared || view.published()? < view.frontier()?.size() || view.awaits()?)
    }

    fn settle(
        &mut self,
        _context: &Context<'_>,
        state: &mut KeyValue,
        out: &mut Outputs<'_>,
    ) -> Result<(), StageError> {
        let keys = self.keeper.keys()?;
        let mut desk = Desk { keeper: &*self.keeper, keys: &keys, log: Log(state), out };
        if !self.compared {
            desk.compare()?;
        }
        if let Some((size, note)) = desk.publish()? {
            desk.acknowledge(size, &note)?;
        }
        desk.follow_keys()?;
        (self.compared, self.keys) = (true, Some(keys));
        Ok(())
    }

    fn process(
        &mut self,
        _context: &Context<'_>,
        state: &mut KeyValue,
        batch: &Batch,
        out: &mut Outputs<'_>,
    ) -> Result<(), StageError> {
        let missing = || StageError::Outside("the log's keys are not at hand yet".to_owned());
        let keys = self.keys.clone().ok_or_else(missing)?;
        let mut requests = Vec::with_capacity(batch.len());
        for message in batch.iter() {
            match message.value.map(|value| out.wire().decode::<AttestationRequest>(value)) {
                Some(Ok(request)) => match check(&request) {
                    Ok(awaited) => requests.push((request, awaited)),
                    Err(detail) => out.dead_letter(batch, &message, "STATEMENT_REFUSED", detail),
                },
                Some(Err(error)) if error.is_retriable() => return Err(error.into()),
                Some(Err(error)) => out.dead_letter(batch, &message, "REQUEST_UNREADABLE", error.to_string()),
                None => out.dead_letter(batch, &message, "REQUEST_UNREADABLE", "no value".to_owned()),
            }
        }
        let mut desk = Desk { keeper: &*self.keeper, keys: &keys, log: Log(state), out };
        if !requests.is_empty() {
            let identity = desk.begun(&self.tenant)?;
            let signer = desk.key(&identity.attester)?.clone();
            for (request, awaited) in requests {
                let index = desk.enter(request.statement, &signer)?;
                if let Some(awaited) = awaited {
                    desk.log.put_awaited(index, &awaited)?;
                }
            }
        }
        Ok(())
    }
}

/// What may be signed: a statement in its one form, of the type that the request names. Keys are the log's own affair. An
/// acknowledgement is for a preregistration of the evaluation that asks for it.
fn check(request: &AttestationRequest) -> Result<Option<Awaited>, String> {
    let statement = Statement::read(&request.statement).map_err(|e| e.to_string())?;
    if statement.predicate.uri() != request.predicate_type {
        return Err("the statement is of another type than its request says".to_owned());
    }
    match (statement.predicate, &request.acknowledge) {
        (Predicate::KeyEvent(_), _) => Err("a key event comes from the log itself".to_owned()),
        (Predicate::Preregistration(laid), Some(id)) if laid.evaluation_id == *id => {
            Ok(Some(Awaited { family: laid.attempt.family, evaluation_id: laid.evaluation_id }))
        }
        (_, None) => Ok(None),
        (_, Some(_)) => Err("only the preregistration of the evaluation that it names is acknowledged".to_owned()),
    }
}

/// Everything that entries and tree heads are made with.
struct Desk<'a, 'w> {
    keeper: &'a dyn Keeper,
    keys: &'a LogKeys,
    log: Log<'a>,
    out: &'a mut Outputs<'w>,
}

impl Desk<'_, '_> {
    /// The secret of a key in force.
    fn key(&self, key: &KeyInForce) -> Result<&SigningKey, StageError> {
        self.keys.by_id(&key.keyid).ok_or_else(|| StageError::Halt {
            what: format!(
                "LOG_KEY_MISSING: the log goes on under the key {}, which this machine does not have",
                key.keyid
            ),
            help: "copy the key folder of the machine that began the log (attester-*.pem, log-*.pem)".to_owned(),
        })
    }

    /// Signs a statement and appends it, unless it stands in the log already; its index.
    fn enter(&mut self, payload: Vec<u8>, signer: &SigningKey) -> Result<u64, StageError> {
        let leaf = leaf_of(&payload);
        if let Some(index) = self.log.view().index(&leaf)? {
            return Ok(index);
        }
        let index = self.log.append(leaf)?;
        let leaf = data_encoding::HEXLOWER.encode(&leaf);
        let envelope = Envelope::sign(PAYLOAD_TYPE, payload, signer).to_json().into_bytes();
        let record = Attestation { leaf: leaf.clone(), index: i64::try_from(index).unwrap_or(i64::MAX), envelope };
        metrics::counter!("hokusai_attestations_total").increment(1);
        self.out.send(topics::ATTESTATIONS, Destination::ByKey, leaf.as_bytes(), &record)?;
        Ok(index)
    }

    /// The log's name and keys; a log without entries begins with those of this machine.
    fn begun(&mut self, tenant: &str) -> Result<Identity, StageError> {
        if let Some(identity) = self.log.view().identity()? {
            return Ok(identity);
        }
        let (attester, log) = (self.keys.attester.clone(), self.keys.log.clone());
        let identity = Identity::begin(tenant, &attester.verifying_key(), &log.verifying_key());
        self.log.put_identity(&identity)?;
        for (role, key) in [("attester", &attester), ("log", &log)] {
            let event = key_event(&identity.origin, role, key, 0, None)?;
            self.enter(event, &attester)?;
        }
        Ok(identity)
    }

    /// Enters the keys that this machine has come to have, signed by the attester before.
    fn follow_keys(&mut self) -> Result<(), StageError> {
        let Some(mut identity) = self.log.view().identity()? else { return Ok(()) };
        let (attester, log) = (self.keys.attester.clone(), self.keys.log.clone());
        if key_id(&attester.verifying_key()) != identity.attester.keyid {
            let signer = self.key(&identity.attester)?.clone();
            // The predecessor signs its successor in; from the next entry on the successor signs.
            let from = self.log.view().frontier()?.size() + 1;
            let before = &identity.attester.keyid;
            self.enter(key_event(&identity.origin, "attester", &attester, from, Some(before))?, &signer)?;
            identity.attester = KeyInForce { keyid: key_id(&attester.verifying_key()), from };
            self.log.put_identity(&identity)?;
        }
        if key_id(&log.verifying_key()) != identity.log.keyid {
            self.key(&identity.log)?;
            // The tree head over this entry is the successor's first.
            let from = self.log.view().frontier()?.size();
            let before = &identity.log.keyid;
            self.enter(key_event(&identity.origin, "log", &log, from, Some(before))?, &attester)?;
            identity.log = KeyInForce { keyid: key_id(&log.verifying_key()), from };
            self.log.put_identity(&identity)?;
        }
        Ok(())
    }

    /// Compares what was signed before with the log.
    fn compare(&self) -> Result<(), StageError> {
        let view = self.log.view();
        let (size, identity) = (view.frontier()?.size(), view.identity()?);
        for text in self.keeper.newest()? {
            let (head, note) = match Checkpoint::parse(text.as_bytes()) {
                Ok(read) => read,
                Err(error) => return self.halt("LOG_HEAD_UNREADABLE", &text, size, &error.to_string()),
            };
            let Some(identity) = identity.as_ref().filter(|identity| identity.origin == head.origin) else {
                return self.halt("LOG_TRUNCATED", &text, size, "the topics hold another log, or none");
            };
            let keys = [&self.keys.log].into_iter().chain(&self.keys.earlier);
            let signed = keys.into_iter().any(|key| {
                let (name, key) = (identity.origin.clone(), key.verifying_key());
                note.verify(&NoteKey { name, algorithm: Algorithm::Log, key }).is_ok()
            });
            if !signed {
                return self.halt("LOG_HEAD_FORGED", &text, size, "no key of this log has signed it");
            }
            if head.size > size {
                return self.halt("LOG_TRUNCATED", &text, size, "the log is shorter than what was signed");
            }
            if nodes::root(&view, head.size)? != head.root {
                return self.halt("LOG_INCONSISTENT", &text, size, "the log has another root at that size");
            }
        }
        Ok(())
    }

    fn halt(&self, name: &str, signed: &str, size: u64, why: &str) -> Result<(), StageError> {
        let root = nodes::root(&self.log.view(), size)?;
        let text = serde_json::json!({
            "outcome": name, "why": why, "signed": signed,
            "log": {"size": size, "root": data_encoding::HEXLOWER.encode(&root)},
        });
        let place = self.keeper.evidence(&text.to_string())?;
        Err(StageError::Halt {
            what: format!("{name}: {why}; a tree head that was signed is kept, the log has {size} leaves; evidence: {place}"),
            help: "the brokers lost acknowledged records, or topics were made anew: restore them, or begin a new log with new keys"
                .to_owned(),
        })
    }

    /// Signs, keeps and publishes the tree head over everything that is committed; what is published now. None before the log
    /// has begun.
    fn publish(&mut self) -> Result<Option<(u64, String)>, StageError> {
        let view = self.log.view();
        let (frontier, published) = (view.frontier()?, view.published()?);
        let size = frontier.size();
        let due = published < size || view.awaits()?;
        let Some(identity) = view.identity()?.filter(|_| due) else { return Ok(None) };
        let checkpoint = Checkpoint { origin: identity.origin.clone(), size, root: frontier.root() };
        let note = checkpoint.sign(self.key(&identity.log)?);
        let note = note.map_err(|e| StageError::Compute { what: "a tree head".to_owned(), detail: e.to_string() })?;
        if published == size {
            return Ok(Some((size, note.to_string())));
        }
        self.keeper.keep(size, published, &note.to_string())?;
        for index in published..size {
            let path = nodes::inclusion_proof(&view, index, size);
            let path = path.map_err(|e| StageError::State { what: "a proof".to_owned(), detail: e.to_string() })?;
            let leaf = data_encoding::HEXLOWER.encode(&nodes::Nodes::node(&view, 0, index)?);
            let proof = TlogProof { index, path, checkpoint: checkpoint.clone(), note: note.clone() };
            self.out.send_bytes(topics::PROOFS, Destination::ByKey, leaf.as_bytes(), proof.to_string());
        }
        self.out.send_bytes(topics::CHECKPOINTS, Destination::ByKey, identity.origin.as_bytes(), note.to_string());
        self.log.put_published(size)?;
        Ok(Some((size, note.to_string())))
    }

    /// Tells evaluation which preregistrations stand under the tree head, which is durable by now.
    fn acknowledge(&mut self, size: u64, note: &str) -> Result<(), StageError> {
        for (index, awaited) in self.log.view().awaited()? {
            if index >= size {
                break;
            }
            let leaf = data_encoding::HEXLOWER.encode(&nodes::Nodes::node(&self.log.view(), 0, index)?);
            let Awaited { family, evaluation_id } = awaited;
            let acknowledgement = Some(EvaluationAcknowledgement {
                leaf,
                index: i64::try_from(index).unwrap_or(i64::MAX),
                checkpoint: note.to_owned(),
            });
            let record = EvaluationRequest { family, evaluation_id, acknowledgement, ..EvaluationRequest::default() };
            self.out.send(topics::EVALUATION_REQUESTS, Destination::ByKey, record.family.as_bytes(), &record)?;
            self.log.delete_awaited(index)?;
        }
        Ok(())
    }
}

fn key_event(
    origin: &str,
    role: &str,
    key: &SigningKey,
    from: u64,
    replaces: Option<&String>,
) -> Result<Vec<u8>, StageError> {
    let public = key.verifying_key();
    let event = KeyEvent {
        event: if replaces.is_some() { "rotate" } else { "begin" }.to_owned(),
        origin: origin.to_owned(),
        role: role.to_owned(),
        keyid: key_id(&public),
        public: data_encoding::HEXLOWER.encode(public.as_bytes()),
        from_index: i64::try_from(from).unwrap_or(i64::MAX),
        replaces: replaces.cloned(),
    };
    let digest = <sha2::Sha256 as sha2::Digest>::digest(public.as_bytes());
    let subject = Subject::new(format!("{role} key of {origin}"), "sha256", &digest);
    let statement = Statement { subject, predicate: Predicate::KeyEvent(event) };
    statement.payload().map_err(|e| StageError::Compute { what: "a key event".to_owned(), detail: e.to_string() })
}
