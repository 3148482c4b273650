//! Keying: outsiders' records into the topics whose order counts, by the id *in the value*.
//!
//! Outsiders' clients hash keys in different ways, or send none, or a forged one; so their keys are ignored. What cannot
//! be read well enough to be routed goes to the dead letters; whether it is allowed is for the reading stage to say.
//!
//! An event carries the intake key that the platform publishes at that time, and the serial of the trust file. So the registry's
//! fold is a function of its events, and a key is published by whoever holds the key ring and by nobody who merely declares a model.

use crate::attest::dsse::MAX_BYTES;
use crate::attest::trust::LiveTrust;
use crate::codec::answer;
use crate::codec::training::{self, Asked};
use crate::codec::wire::WireError;
use crate::domain::keys::LiveKeys;
use crate::domain::records::{Command, IntakeKey, Position, RegistryEvent, TrainingJob};
use crate::domain::topics;
use crate::stages::registry::command::model_of;
use crate::stages::training::admission::run_id;
use crate::stream::stage::{Batch, Context, Destination, Message, Outputs, Stage, StageError};

/// The stage: see the module.
#[derive(Debug)]
pub struct Keying {
    keys: LiveKeys,
    trust: LiveTrust,
}

impl Keying {
    /// The stage with the tenant's keys.
    #[must_use]
    pub fn new(keys: impl Into<LiveKeys>) -> Self {
        Self { keys: keys.into(), trust: LiveTrust::default() }
    }

    /// The same, with the trust file whose serial events are stamped with.
    #[must_use]
    pub fn with_trust(self, trust: impl Into<LiveTrust>) -> Self {
        Self { trust: trust.into(), ..self }
    }
}

impl Stage for Keying {
    type State = ();

    fn name(&self) -> &'static str {
        "keying"
    }

    fn state(&self) -> Self::State {}

    fn process(
        &mut self,
        _context: &Context<'_>,
        _state: &mut (),
        batch: &Batch,
        out: &mut Outputs<'_>,
    ) -> Result<(), StageError> {
        let ring = self.keys.ring();
        let published = ring.intake_key().public();
        let serial = self.trust.now().serial();
        if batch.topic() == topics::TRAINING_REQUESTS {
            return batch.iter().try_for_each(|message| job(batch, &message, out));
        }
        if batch.topic() == topics::TRAINING_ANSWERS {
            return batch.iter().try_for_each(|message| answered(batch, &message, out));
        }
        for message in batch.iter() {
            match read(batch, &message, out) {
                Ok(mut event) => {
                    event.trust = serial;
                    event.intake_key = Some(IntakeKey { id: published.id().to_owned(), public: published.hex() });
                    out.send(topics::REGISTRY_EVENTS, Destination::ByKey, event.model.as_bytes(), &event)?;
                }
                Err(Unreadable::Record(error)) if error.is_retriable() => return Err(error.into()),
                Err(unreadable) => out.dead_letter(batch, &message, unreadable.code(), unreadable.to_string()),
            }
        }
        Ok(())
    }
}

/// Why a command goes to the dead letters.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error("no value")]
    Empty,
    #[error("{0} bytes; a command has at most {MAX_BYTES}")]
    TooLarge(usize),
    #[error(transparent)]
    Record(#[from] WireError),
    #[error(transparent)]
    Unroutable(#[from] crate::stages::registry::command::Unroutable),
}

impl Unreadable {
    fn code(&self) -> &'static str {
        match self {
            Self::TooLarge(_) => "TOO_LARGE",
            Self::Empty | Self::Record(_) | Self::Unroutable(_) => "COMMAND_UNREADABLE",
        }
    }
}

fn read(batch: &Batch, message: &Message<'_>, out: &Outputs<'_>) -> Result<RegistryEvent, Unreadable> {
    let value = message.value.ok_or(Unreadable::Empty)?;
    if value.len() > MAX_BYTES {
        return Err(Unreadable::TooLarge(value.len()));
    }
    let envelope = match bare_envelope(value) {
        Some(text) => text.to_owned(),
        None => out.wire().decode_outsider::<Command>(value)?.envelope,
    };
    let model = model_of(&envelope)?;
    let position = Position { topic: batch.topic().to_owned(), partition: batch.partition(), offset: message.offset };
    Ok(RegistryEvent { model, kind: RegistryEvent::COMMAND.to_owned(), envelope, position, intake_key: None, trust: 0 })
}

/// A request to train, under the run that follows from its id, or the cancellation of a run. A request that has an id is answered by
/// the stage `training`, whatever else is wrong with it; what has none goes to the dead letters.
fn job(batch: &Batch, message: &Message<'_>, out: &mut Outputs<'_>) -> Result<(), StageError> {
    let read = match message.value {
        Some(value) => training::decode(out.wire(), value),
        None => {
            out.dead_letter(batch, message, "REQUEST_UNREADABLE", "no value".to_owned());
            return Ok(());
        }
    };
    let position = Position { topic: batch.topic().to_owned(), partition: batch.partition(), offset: message.offset };
    let asked = TrainingJob { position, requested_at: message.timestamp, ..TrainingJob::default() };
    let job = match read {
        Ok(Asked::Run(request)) => {
            let run_id = run_id(&request.request_id);
            TrainingJob { run_id, request: Some(*request), ..asked }
        }
        Ok(Asked::Refused(refusal)) => {
            let run_id = run_id(&refusal.request_id);
            TrainingJob { run_id, refusal: Some(refusal), ..asked }
        }
        Ok(Asked::Cancel(run_id)) => TrainingJob { run_id, cancel: true, ..asked },
        Err(error) if error.is_retriable() => return Err(error.into()),
        Err(error @ WireError::TooLarge { .. }) => {
            out.dead_letter(batch, message, "TOO_LARGE", error.to_string());
            return Ok(());
        }
        Err(error) => {
            out.dead_letter(batch, message, "REQUEST_UNREADABLE", error.to_string());
            return Ok(());
        }
    };
    out.send(topics::TRAINING_JOBS, Destination::ByKey, job.run_id.as_bytes(), &job)
}

/// An external trainer's answer, under the run that it names; whether that run waits for one is for the stage `training` to say.
fn answered(batch: &Batch, message: &Message<'_>, out: &mut Outputs<'_>) -> Result<(), StageError> {
    let answer = match message.value.map(|value| answer::decode(out.wire(), value)) {
        Some(Ok(answer)) => answer,
        Some(Err(error)) if error.is_retriable() => return Err(error.into()),
        Some(Err(error @ WireError::TooLarge { .. })) => {
            out.dead_letter(batch, message, "TOO_LARGE", error.to_string());
            return Ok(());
        }
        Some(Err(error)) => {
            out.dead_letter(batch, message, "ANSWER_UNREADABLE", error.to_string());
            return Ok(());
        }
        None => {
            out.dead_letter(batch, message, "ANSWER_UNREADABLE", "no value".to_owned());
            return Ok(());
        }
    };
    let position = Position { topic: batch.topic().to_owned(), partition: batch.partition(), offset: message.offset };
    let run_id = answer.run_id.clone();
    let requested_at = message.timestamp;
    let job = TrainingJob { run_id, position, answer: Some(answer), requested_at, ..TrainingJob::default() };
    out.send(topics::TRAINING_JOBS, Destination::ByKey, job.run_id.as_bytes(), &job)
}

/// The text, if it is a JSON object with a `payloadType`: a DSSE envelope as it is, the usual form on this topic.
fn bare_envelope(value: &[u8]) -> Option<&str> {
    #[derive(serde::Deserialize)]
    struct Probe {
        #[serde(rename = "payloadType")]
        payload_type: Option<serde::de::IgnoredAny>,
    }
    let text = std::str::from_utf8(value).ok().filter(|text| text.trim_start().starts_with('{'))?;
    serde_json::from_str::<Probe>(text).ok()?.payload_type.map(|_| text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attest::dsse::Envelope;
    use crate::domain::keys::KeyRing;
    use crate::stages::testing::Task;

    fn task(values: &[Option<&[u8]>]) -> Task<Keying> {
        let mut batch = Batch::new(topics::MODEL_COMMANDS, 3);
        for (offset, value) in (40..).zip(values) {
            batch.push(offset, 0, Some(b"a forged key"), *value);
        }
        let mut task = Task::new(Keying::new(KeyRing::generate("t").unwrap()), 3, &[]);
        task.commit(&[batch]).unwrap();
        task
    }

    fn envelope(payload: &str) -> String {
        Envelope { payload_type: "t".to_owned(), payload: payload.as_bytes().to_vec(), signatures: Vec::new() }
            .to_json()
    }

    #[test]
    fn a_command_is_keyed_by_the_model_in_its_payload_in_every_form() {
        let bare = envelope(r#"{"model":"m"}"#);
        let json = serde_json::json!({"model": "another", "envelope": bare}).to_string();
        let command = Command { model: "another".to_owned(), envelope: bare.clone() };
        let avro = crate::codec::wire::Wire::default().encode(&command).unwrap();
        let task = task(&[Some(bare.as_bytes()), Some(json.as_bytes()), Some(&avro)]);
        let sent = task.sent::<RegistryEvent>(topics::REGISTRY_EVENTS);
        assert_eq!(sent.len(), 3, "{:?}", task.dead_letters);
        for (i, (destination, key, event)) in sent.iter().enumerate() {
            assert_eq!(
                (destination, key.as_slice(), event.envelope.as_str()),
                (&Destination::ByKey, &b"m"[..], bare.as_str())
            );
            let (partition, offset) = (event.position.partition, event.position.offset);
            assert_eq!((event.position.topic.as_str(), partition, offset), ("model.commands", 3, 40 + i as i64));
            let published = task.stage.keys.ring().intake_key().public().hex();
            assert_eq!(event.intake_key, Some(IntakeKey { id: "i1".to_owned(), public: published }));
        }
    }

    #[test]
    fn an_answer_is_keyed_by_its_run_and_one_in_no_form_goes_to_the_dead_letters_with_its_reason() {
        let run_id = "00112233445566778899aabbccddeeff";
        let good = format!(r#"{{"run_id":"{run_id}","error":"no luck"}}"#);
        let huge = vec![b'{'; answer::MAX_BYTES + 1];
        let mut batch = Batch::new(topics::TRAINING_ANSWERS, 2);
        let values =
            [Some(good.as_bytes()), None, Some(&b"{\"run_id\":\"secret\"}"[..]), Some(&b"\xff"[..]), Some(&huge)];
        for (offset, value) in (7..).zip(values) {
            batch.push(offset, 0, Some(b"a forged key"), value);
        }
        let mut task = Task::new(Keying::new(KeyRing::generate("t").unwrap()), 2, &[]);
        task.commit(&[batch]).unwrap();
        let sent = task.sent::<TrainingJob>(topics::TRAINING_JOBS);
        let [(Destination::ByKey, key, job)] = sent.as_slice() else { panic!("one job, {sent:?}") };
        assert_eq!((key.as_slice(), job.position.offset), (run_id.as_bytes(), 7));
        assert_eq!(job.answer.as_ref().and_then(|answer| answer.error.as_deref()), Some("no luck"));
        let reasons: Vec<&str> = task.dead_letters.iter().map(|letter| letter.reason.as_str()).collect();
        assert_eq!(reasons, ["ANSWER_UNREADABLE", "ANSWER_UNREADABLE", "ANSWER_UNREADABLE", "TOO_LARGE"]);
        assert!(!format!("{:?}", task.dead_letters).contains("secret"));
    }

    #[test]
    fn what_cannot_be_routed_goes_to_the_dead_letters_without_a_byte_of_it() {
        let nameless = envelope(r#"{"modell":"secret"}"#);
        let twice = envelope(r#"{"model":"m","model":"secret"}"#);
        let huge = vec![b'{'; MAX_BYTES + 1];
        let task = task(&[
            None,
            Some(b"\xff\xfe"),
            Some(b"{\"payload"),
            Some(nameless.as_bytes()),
            Some(twice.as_bytes()),
            Some(&huge),
            Some(br#"{"payloadType":"t","payload":"secret!","signatures":[]}"#),
        ]);
        assert_eq!(task.dead_letters.len(), 7);
        assert!(task.outputs.is_empty());
        assert!(!format!("{:?}", task.dead_letters).contains("secret"));
    }
}
