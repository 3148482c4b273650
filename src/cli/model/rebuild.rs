//! `models` made anew from `registry.events`: the log is the history, the topic its fold.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::json;

use super::{Failure, Outcome, Settings, say};
use crate::cli::reader::{METADATA_TIMEOUT, Reader, Start, ends};
use crate::domain::records::{Model, RegistryEvent};
use crate::domain::topics;
use crate::ops::secrets;
use crate::stages::registry::refold::Refold;
use crate::stream::partitioner::partition_of;

/// How long the brokers may take to acknowledge what is written.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Folds the log and compares it with `models`; writes what is missing or different unless only a check is wanted.
pub(super) fn run(settings: &Settings, keys: &Path, check: bool) -> Outcome<()> {
    if !check {
        refuse_while_running(settings)?;
    }
    let folded = fold(settings, keys)?;
    let mut present: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    Reader::scan(settings, topics::MODELS, &Start::Beginning)?.for_each_to_end(|message| {
        let key = message.key().unwrap_or_default().to_vec();
        match message.payload() {
            Some(value) => present.insert(key, value.to_vec()),
            None => present.remove(&key),
        };
        Ok(())
    })?;
    let mut differing = Vec::new();
    for (name, model) in &folded {
        let value = settings.wire.encode(model).map_err(Failure::failed)?;
        if present.remove(name.as_bytes()).as_ref() != Some(&value) {
            differing.push((name, value));
        }
    }
    let strangers = present.len();
    if !check {
        write(settings, &differing)?;
    }
    let (models, found) = (folded.len(), differing.len());
    if settings.json() {
        say(json!({"models": models, "differing": found, "strangers": strangers, "written": !check}))?;
    } else {
        say(format_args!(
            "{models} models in the log, {found} missing or different in `models`{}, {strangers} that the log does not know",
            if check { "" } else { " and written" }
        ))?;
    }
    if check && found + strangers > 0 {
        return Err(Failure::because(
            "`models` is not what registry.events say\nhelp: stop the stage registry and run `hokusai model rebuild`",
        ));
    }
    Ok(())
}

/// Two writers of one fold could put an older state behind a newer one.
fn refuse_while_running(settings: &Settings) -> Outcome<()> {
    let group = settings.cluster().group("registry");
    let consumer: BaseConsumer = settings.client().create().map_err(|e| Failure::Usage(e.to_string()))?;
    let groups = consumer.fetch_group_list(Some(&group), METADATA_TIMEOUT).map_err(|e| settings.no_broker(e))?;
    if groups.groups().iter().any(|g| g.name() == group && !g.members().is_empty()) {
        return Err(Failure::because(
            "the stage registry is running, and two writers of `models` would overtake each other\nhelp: stop `hokusai up` or \
             the workers that run it (`hokusai broker` runs the embedded broker alone), or use --check",
        ));
    }
    Ok(())
}

fn fold(settings: &Settings, keys: &Path) -> Outcome<BTreeMap<String, Model>> {
    let trust = secrets::load_trust(&secrets::trust_path(keys)).map_err(Failure::failed)?;
    let check = |spec: &crate::domain::contract::Spec| crate::pipeline::usable(spec);
    let mut folds: BTreeMap<i32, Refold> = BTreeMap::new();
    Reader::scan(settings, topics::REGISTRY_EVENTS, &Start::Beginning)?.for_each_to_end(|message| {
        let Some(payload) = message.payload() else { return Ok(()) };
        // The stage put what it could not read to the dead letters; the fold goes on without it, as the stage did.
        let Ok(event) = settings.wire.decode::<RegistryEvent>(payload) else { return Ok(()) };
        let fold = folds.entry(message.partition()).or_default();
        fold.take(&trust, &check, &event, message.offset()).map_err(Failure::failed)
    })?;
    Ok(folds.into_values().flat_map(Refold::into_models).collect())
}

fn write(settings: &Settings, records: &[(&String, Vec<u8>)]) -> Outcome<()> {
    let partitions = i32::try_from(ends(settings, topics::MODELS)?.len()).unwrap_or(i32::MAX);
    let producer: BaseProducer = settings
        .client()
        .set("enable.idempotence", "true")
        .set("message.timeout.ms", TIMEOUT.as_millis().to_string())
        .create()
        .map_err(|e| Failure::Usage(e.to_string()))?;
    let topic = settings.topic(topics::MODELS);
    for (name, value) in records {
        let partition = partition_of(name.as_bytes(), partitions);
        let record = BaseRecord::to(&topic).key(name.as_bytes()).payload(value).partition(partition);
        producer.send(record).map_err(|(e, _)| Failure::failed(e))?;
        producer.flush(TIMEOUT).map_err(|e| settings.no_broker(e))?;
    }
    Ok(())
}
