//! Reading and changing the configuration of topics, and reading the broker's.

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError as E;
use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::incremental_alter_configs_response as incremental;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;

use super::text;
use super::topics::topic_error;
use crate::broker::flusher::Ticket;
use crate::broker::node::{NODE_ID, Node};
use crate::broker::topic_config::{self, ConfigError, KNOWN, Known, Overrides, Rule};
use crate::broker::topics::{Topic, TopicError};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

pub(super) const TOPIC_SOURCE: i8 = 1;
const STATIC_SOURCE: i8 = 4;
pub(super) const DEFAULT_SOURCE: i8 = 5;

/// The configuration of topics or of the broker.
pub(super) fn describe(node: &Node, version: i16, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let synonyms = request.include_synonyms;
    let results = request.resources.iter().map(|resource| {
        let answer = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        match describe_one(node, resource, version, synonyms) {
            Ok(configs) => answer.with_configs(configs),
            Err((error, message)) => answer.with_error_code(error.code()).with_error_message(Some(text(message))),
        }
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

type Refused = (E, String);

fn describe_one(
    node: &Node,
    resource: &DescribeConfigsResource,
    version: i16,
    synonyms: bool,
) -> Result<Vec<DescribeConfigsResourceResult>, Refused> {
    let wanted = |name: &str| match &resource.configuration_keys {
        None => true,
        Some(keys) => keys.iter().any(|key| &**key == name),
    };
    match resource.resource_type {
        TOPIC => {
            let topic = node.topics.get(&resource.resource_name).ok_or_else(unknown_topic)?;
            let overrides = topic.overrides();
            let shown = KNOWN.iter().filter(|known| wanted(known.name));
            Ok(shown.map(|known| describe_known(known, &overrides, version, synonyms)).collect())
        }
        BROKER if resource.resource_name.is_empty() || *resource.resource_name == *NODE_ID.to_string() => {
            let settings = broker_settings(node).into_iter().filter(|(name, _)| wanted(name));
            Ok(settings.map(|(name, value)| setting(name, value, version)).collect())
        }
        BROKER => Err((E::InvalidRequest, format!("Unexpected broker id, expected {NODE_ID}"))),
        other => Err((E::InvalidRequest, format!("resource type {other} has no configuration here"))),
    }
}

fn unknown_topic() -> Refused {
    (E::UnknownTopicOrPartition, TopicError::Unknown.to_string())
}

fn describe_known(known: &Known, overrides: &Overrides, version: i16, synonyms: bool) -> DescribeConfigsResourceResult {
    let own = overrides.get(known.name);
    let source = if own.is_some() { TOPIC_SOURCE } else { DEFAULT_SOURCE };
    let mut result = DescribeConfigsResourceResult::default()
        .with_name(text(known.name))
        .with_value(Some(text(own.map_or(known.default, String::as_str))))
        .with_config_source(source);
    if synonyms {
        let synonym = |value: &str, source| {
            DescribeConfigsSynonym::default()
                .with_name(text(known.name))
                .with_value(Some(text(value)))
                .with_source(source)
        };
        result.synonyms.extend(own.map(|own| synonym(own, TOPIC_SOURCE)));
        result.synonyms.push(synonym(known.default, DEFAULT_SOURCE));
    }
    if version >= 3 { result.with_config_type(kind(known.rule)) } else { result }
}

/// The protocol's number for a type.
fn kind(rule: Rule) -> i8 {
    match rule {
        Rule::Bool => 1,
        Rule::Choice(_) => 2,
        Rule::Int(..) => 3,
        Rule::Long(..) => 5,
        Rule::Ratio => 6,
        Rule::List(_) | Rule::FreeList => 7,
    }
}

fn broker_settings(node: &Node) -> Vec<(&'static str, String)> {
    let limits = &node.config.limits;
    vec![
        ("auto.create.topics.enable", node.config.auto_create_topics.to_string()),
        ("broker.id", NODE_ID.to_string()),
        ("default.replication.factor", "1".into()),
        ("group.initial.rebalance.delay.ms", "0".into()),
        ("group.max.session.timeout.ms", limits.max_session_timeout.as_millis().to_string()),
        ("group.min.session.timeout.ms", limits.min_session_timeout.as_millis().to_string()),
        ("message.max.bytes", topic_config::value_of(&Overrides::new(), "max.message.bytes").to_owned()),
        ("min.insync.replicas", "1".into()),
        ("node.id", NODE_ID.to_string()),
        ("num.partitions", node.config.default_partitions.to_string()),
        ("offsets.retention.minutes", (limits.offsets_retention.as_secs() / 60).to_string()),
        ("socket.request.max.bytes", limits.produce_request_bytes.to_string()),
        ("transaction.max.timeout.ms", limits.max_transaction_timeout.as_millis().to_string()),
        ("transactional.id.expiration.ms", limits.transactional_id_expiry.as_millis().to_string()),
    ]
}

fn setting(name: &str, value: String, version: i16) -> DescribeConfigsResourceResult {
    let result = DescribeConfigsResourceResult::default()
        .with_name(text(name))
        .with_value(Some(text(value)))
        .with_read_only(true)
        .with_config_source(STATIC_SOURCE);
    if version >= 3 { result.with_config_type(2) } else { result }
}

/// Replaces all configuration of topics.
pub(super) async fn alter(node: &Node, request: AlterConfigsRequest) -> AlterConfigsResponse {
    let mut responses = Vec::new();
    for resource in request.resources {
        let result =
            replace(node, resource.resource_type, &resource.resource_name, &resource.configs, request.validate_only);
        let (code, message) = outcome(node, result).await;
        responses.push(
            AlterConfigsResourceResponse::default()
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name)
                .with_error_code(code)
                .with_error_message(message),
        );
    }
    AlterConfigsResponse::default().with_responses(responses)
}

/// Changes single values.
pub(super) async fn alter_incrementally(
    node: &Node,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let mut responses = Vec::new();
    for resource in request.resources {
        let changes =
            resource.configs.iter().map(|config| (&config.name, config.config_operation, config.value.as_ref()));
        let result = change(node, resource.resource_type, &resource.resource_name, changes, request.validate_only);
        let (code, message) = outcome(node, result).await;
        responses.push(
            incremental::AlterConfigsResourceResponse::default()
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name)
                .with_error_code(code)
                .with_error_message(message),
        );
    }
    IncrementalAlterConfigsResponse::default().with_responses(responses)
}

async fn outcome(node: &Node, result: Result<Option<Ticket>, Refused>) -> (i16, Option<StrBytes>) {
    match result {
        Err((error, message)) => (error.code(), Some(text(message))),
        Ok(None) => (0, None),
        Ok(Some(ticket)) => match node.flusher.wait(ticket).await {
            Ok(()) => (0, None),
            Err(error) => (E::KafkaStorageError.code(), Some(text(error.to_string()))),
        },
    }
}

fn find_topic(node: &Node, kind: i8, name: &str) -> Result<std::sync::Arc<Topic>, Refused> {
    match kind {
        TOPIC => node.topics.get(name).ok_or_else(unknown_topic),
        _ => Err((
            E::InvalidRequest,
            "the broker's configuration is fixed at its start; help: restart it with other options".into(),
        )),
    }
}

fn replace(
    node: &Node,
    kind: i8,
    name: &str,
    configs: &[alter_configs_request::AlterableConfig],
    validate_only: bool,
) -> Result<Option<Ticket>, Refused> {
    let topic = find_topic(node, kind, name)?;
    let mut overrides = Overrides::new();
    for config in configs {
        topic_config::alter(&mut overrides, &config.name, 0, config.value.as_deref()).map_err(refused)?;
    }
    store(node, &topic, overrides, validate_only)
}

fn change<'a>(
    node: &Node,
    kind: i8,
    name: &str,
    changes: impl Iterator<Item = (&'a StrBytes, i8, Option<&'a StrBytes>)>,
    validate_only: bool,
) -> Result<Option<Ticket>, Refused> {
    let topic = find_topic(node, kind, name)?;
    let mut overrides = topic.overrides();
    let mut seen: BTreeMap<&str, ()> = BTreeMap::new();
    for (name, operation, value) in changes {
        if seen.insert(name, ()).is_some() {
            return Err((E::InvalidRequest, format!("Error due to duplicate config keys: {}", &**name)));
        }
        topic_config::alter(&mut overrides, name, operation, value.map(|value| &**value)).map_err(refused)?;
    }
    store(node, &topic, overrides, validate_only)
}

fn refused(error: ConfigError) -> Refused {
    let code = match error {
        ConfigError::Operation(_) | ConfigError::Null(_) => E::InvalidRequest,
        _ => E::InvalidConfig,
    };
    (code, error.to_string())
}

fn store(node: &Node, topic: &Topic, overrides: Overrides, validate_only: bool) -> Result<Option<Ticket>, Refused> {
    if validate_only {
        return Ok(None);
    }
    node.topics.configure(topic, overrides).map(Some).map_err(|error| (topic_error(&error), error.to_string()))
}
