//! Makes the topics of a cluster what the topology declares: [`plan`] decides (pure), [`apply`] executes.
//!
//! Invariants:
//! * idempotent: on a cluster that is as declared the plan is empty;
//! * a keyed topic's partition count is never changed: its keys would move away from their state;
//! * settings that the operator made and the topology does not name stay.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, ConfigSource, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;
use serde::Serialize;

use super::Topology;

const ADMIN_TIMEOUT: Duration = Duration::from_secs(30);
const METADATA_TIMEOUT: Duration = Duration::from_secs(10);

/// How the topics are made.
#[derive(Debug, Clone)]
pub struct ApplyOptions {
    /// Prefix of the topics' names.
    pub prefix: String,
    /// Replication factor of new topics; from 3 on a write needs two replicas.
    pub replication: i32,
    /// Only plan.
    pub dry_run: bool,
}

/// A topic as it is on the brokers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ActualTopic {
    /// Partitions.
    pub partitions: i32,
    /// Every configuration entry that is in force.
    pub configs: BTreeMap<String, String>,
    /// Names of the entries that were set on this topic itself.
    pub own: Vec<String>,
}

/// A configuration entry that is to be set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Name as Kafka has it.
    pub name: String,
    /// Value that it has; none when the brokers do not tell.
    pub from: Option<String>,
    /// Value that it gets.
    pub to: String,
}

/// Something to do, or to refuse. Topics are named with their prefix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Action {
    /// Make a topic.
    Create {
        /// Topic.
        topic: String,
        /// Partitions.
        partitions: i32,
        /// Replication factor.
        replication: i32,
        /// Configuration.
        configs: Vec<(String, String)>,
    },
    /// Set configuration entries.
    AlterConfig {
        /// Topic.
        topic: String,
        /// What changes.
        changes: Vec<Change>,
        /// All entries of the topic afterwards: Kafka replaces them as a whole.
        #[serde(skip)]
        configs: BTreeMap<String, String>,
    },
    /// Add partitions to an outsiders' topic.
    GrowPartitions {
        /// Topic.
        topic: String,
        /// Partitions that it has.
        from: i32,
        /// Partitions that it gets.
        to: i32,
    },
    /// A change that would break what is stored.
    Refuse {
        /// Topic.
        topic: String,
        /// Why.
        reason: String,
        /// The way out.
        help: String,
    },
}

impl Action {
    /// The action as JSON.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!(self)
    }
}

impl Action {
    fn is_refusal(&self) -> bool {
        matches!(self, Self::Refuse { .. })
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create { topic, partitions, .. } => write!(f, "create {topic} with {partitions} partitions"),
            Self::AlterConfig { topic, changes, .. } => {
                write!(f, "alter {topic}:")?;
                for Change { name, from, to } in changes {
                    write!(f, " {name}={to} (was {})", from.as_deref().unwrap_or("unknown"))?;
                }
                Ok(())
            }
            Self::GrowPartitions { topic, from, to } => write!(f, "grow {topic} from {from} to {to} partitions"),
            Self::Refuse { topic, reason, help } => write!(f, "refused: {topic} {reason}; help: {help}"),
        }
    }
}

/// Why the topics could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// No broker answers.
    #[error("no broker answers: {0}; help: check --brokers, the network and the security settings")]
    NoBroker(KafkaError),
    /// The plan holds refusals; nothing was done.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Refused(Vec<Action>),
    /// A broker refused one action.
    #[error("{action} failed: {detail}")]
    Failed {
        /// The action.
        action: String,
        /// What the broker answered.
        detail: String,
    },
    /// The client cannot be made from its configuration.
    #[error("the Kafka client cannot be made: {0}")]
    Client(KafkaError),
}

impl ApplyError {
    /// Whether the brokers were not reached at all.
    #[must_use]
    pub fn no_broker(&self) -> bool {
        matches!(self, Self::NoBroker(_))
    }
}

/// What is to be done so that the active topics are as declared; sorted by topic. `actual` is by full name.
#[must_use]
pub fn plan(topology: &Topology, actual: &BTreeMap<String, ActualTopic>, options: &ApplyOptions) -> Vec<Action> {
    let mut actions = Vec::new();
    for spec in topology.active_topics() {
        let topic = spec.full_name(&options.prefix);
        let declared = spec.configs();
        let Some(found) = actual.get(&topic) else {
            let mut configs = declared;
            if options.replication >= 3 {
                configs.push(("min.insync.replicas".to_owned(), "2".to_owned()));
            }
            let (partitions, replication) = (spec.partitions, options.replication);
            actions.push(Action::Create { topic, partitions, replication, configs });
            continue;
        };
        if spec.is_outsiders() {
            if found.partitions < spec.partitions {
                let (from, to) = (found.partitions, spec.partitions);
                actions.push(Action::GrowPartitions { topic: topic.clone(), from, to });
            }
        } else if found.partitions != spec.partitions {
            actions.push(Action::Refuse {
                topic: topic.clone(),
                reason: format!("has {} partitions, the topology declares {}", found.partitions, spec.partitions),
                help:
                    "a keyed topic keeps its partition count for life; choose the --partitions or --topology that it \
                       was made with, or a new --prefix (`hokusai topology migrate`, which will move a topic to \
                       another count, is not in this version)"
                        .to_owned(),
            });
            continue;
        }
        if let Some(alter) = alter(topic, &declared, found) {
            actions.push(alter);
        }
    }
    actions.sort_by(|a, b| topic_of(a).cmp(topic_of(b)));
    actions
}

fn topic_of(action: &Action) -> &str {
    match action {
        Action::Create { topic, .. }
        | Action::AlterConfig { topic, .. }
        | Action::GrowPartitions { topic, .. }
        | Action::Refuse { topic, .. } => topic,
    }
}

fn alter(topic: String, declared: &[(String, String)], found: &ActualTopic) -> Option<Action> {
    let change = |(name, to): &(String, String)| {
        let from = found.configs.get(name);
        (from != Some(to)).then(|| Change { name: name.clone(), from: from.cloned(), to: to.clone() })
    };
    let changes: Vec<Change> = declared.iter().filter_map(change).collect();
    if changes.is_empty() {
        return None;
    }
    let own = found.own.iter().filter_map(|name| Some((name.clone(), found.configs.get(name)?.clone())));
    let mut configs: BTreeMap<String, String> = own.collect();
    configs.extend(declared.iter().cloned());
    Some(Action::AlterConfig { topic, changes, configs })
}

/// Plans against the brokers and, unless `dry_run`, executes. Gives what was (or would be) done.
///
/// # Errors
/// When no broker answers, when the plan holds a refusal (nothing is done then, and a dry run lists it instead),
/// or when a broker refuses an action.
pub async fn apply(
    topology: &Topology,
    client: &ClientConfig,
    options: &ApplyOptions,
) -> Result<Vec<Action>, ApplyError> {
    let (admin, actions) = planned(topology, client, options).await?;
    if options.dry_run {
        return Ok(actions);
    }
    let refused: Vec<Action> = actions.iter().filter(|a| a.is_refusal()).cloned().collect();
    if !refused.is_empty() {
        return Err(ApplyError::Refused(refused));
    }
    carry_out(&admin, &actions).await?;
    Ok(actions)
}

/// The same for a process that runs stages anyway: what is refused is left as it is and given back, the rest is done. The stages
/// that a refused topic concerns stop by name, the others need the rest.
///
/// # Errors
/// When no broker answers, or when a broker refuses an action.
pub async fn apply_the_rest(
    topology: &Topology,
    client: &ClientConfig,
    options: &ApplyOptions,
) -> Result<Vec<Action>, ApplyError> {
    let (admin, actions) = planned(topology, client, options).await?;
    let (refused, rest): (Vec<Action>, Vec<Action>) = actions.into_iter().partition(Action::is_refusal);
    carry_out(&admin, &rest).await?;
    Ok(refused)
}

async fn planned(
    topology: &Topology,
    client: &ClientConfig,
    options: &ApplyOptions,
) -> Result<(Admin, Vec<Action>), ApplyError> {
    let admin: AdminClient<DefaultClientContext> = client.create().map_err(ApplyError::Client)?;
    let admin = std::sync::Arc::new(admin);
    let actual = actual(topology, &admin, options).await?;
    Ok((admin, plan(topology, &actual, options)))
}

async fn carry_out(admin: &Admin, actions: &[Action]) -> Result<(), ApplyError> {
    create(admin, actions).await?;
    for action in actions {
        execute(admin, action).await?;
    }
    wait_until_led(admin, actions).await
}

type Admin = std::sync::Arc<AdminClient<DefaultClientContext>>;

fn admin_options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(ADMIN_TIMEOUT)).operation_timeout(Some(ADMIN_TIMEOUT))
}

/// Topics on the brokers, by name: number of partitions, and of those how many have a leader.
async fn metadata(admin: &Admin) -> Result<BTreeMap<String, (i32, i32)>, ApplyError> {
    let admin = std::sync::Arc::clone(admin);
    let fetched = tokio::task::spawn_blocking(move || admin.inner().fetch_metadata(None, METADATA_TIMEOUT)).await;
    let metadata = match fetched {
        Ok(metadata) => metadata.map_err(ApplyError::NoBroker)?,
        Err(_) => return Err(ApplyError::NoBroker(KafkaError::Canceled)),
    };
    let topics = metadata.topics().iter().filter(|topic| topic.error().is_none()).map(|topic| {
        let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
        let led = topic.partitions().iter().filter(|p| p.leader() >= 0).count();
        (topic.name().to_owned(), (count(topic.partitions().len()), count(led)))
    });
    Ok(topics.collect())
}

async fn actual(
    topology: &Topology,
    admin: &Admin,
    options: &ApplyOptions,
) -> Result<BTreeMap<String, ActualTopic>, ApplyError> {
    let there = metadata(admin).await?;
    let names: Vec<String> = topology
        .active_topics()
        .map(|spec| spec.full_name(&options.prefix))
        .filter(|name| there.contains_key(name))
        .collect();
    let mut actual: BTreeMap<String, ActualTopic> = BTreeMap::new();
    if names.is_empty() {
        return Ok(actual);
    }
    let specifiers: Vec<ResourceSpecifier<'_>> = names.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
    let described = admin.describe_configs(&specifiers, &admin_options()).await.map_err(ApplyError::NoBroker)?;
    for (name, resource) in names.iter().zip(described) {
        let failed = |code: RDKafkaErrorCode| ApplyError::Failed {
            action: format!("describe {name}"),
            detail: code.to_string(),
        };
        let resource = resource.map_err(failed)?;
        let mut topic = ActualTopic { partitions: there.get(name).map_or(0, |(n, _)| *n), ..ActualTopic::default() };
        for entry in resource.entries {
            if entry.source == ConfigSource::DynamicTopic {
                topic.own.push(entry.name.clone());
            }
            if let Some(value) = entry.value {
                topic.configs.insert(entry.name, value);
            }
        }
        actual.insert(name.clone(), topic);
    }
    Ok(actual)
}

/// New topics are made in one request: on a cluster each request waits for the controller.
async fn create(admin: &Admin, actions: &[Action]) -> Result<(), ApplyError> {
    let new: Vec<NewTopic<'_>> = actions
        .iter()
        .filter_map(|action| match action {
            Action::Create { topic, partitions, replication, configs } => {
                let new = NewTopic::new(topic, *partitions, TopicReplication::Fixed(*replication));
                Some(configs.iter().fold(new, |new, (name, value)| new.set(name, value)))
            }
            _ => None,
        })
        .collect();
    if new.is_empty() {
        return Ok(());
    }
    let results = admin.create_topics(&new, &admin_options()).await.map_err(ApplyError::NoBroker)?;
    for result in results {
        match result {
            // Another process made it at the same moment.
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => {
                return Err(ApplyError::Failed { action: format!("create {topic}"), detail: code.to_string() });
            }
        }
    }
    Ok(())
}

async fn execute(admin: &Admin, action: &Action) -> Result<(), ApplyError> {
    let failed = |code: RDKafkaErrorCode| ApplyError::Failed { action: action.to_string(), detail: code.to_string() };
    match action {
        Action::Create { .. } | Action::Refuse { .. } => {}
        Action::AlterConfig { topic, configs, .. } => {
            let alter = AlterConfig::new(ResourceSpecifier::Topic(topic));
            let alter = configs.iter().fold(alter, |alter, (name, value)| alter.set(name, value));
            let results = admin.alter_configs([&alter], &admin_options()).await.map_err(ApplyError::NoBroker)?;
            for result in results {
                result.map_err(|(_, code)| failed(code))?;
            }
        }
        Action::GrowPartitions { topic, to, .. } => {
            let new = NewPartitions::new(topic, usize::try_from(*to).unwrap_or(0));
            let results = admin.create_partitions([&new], &admin_options()).await.map_err(ApplyError::NoBroker)?;
            for result in results {
                result.map_err(|(_, code)| failed(code))?;
            }
        }
    }
    Ok(())
}

/// A topic or partition that was just made may be unknown to some brokers for a moment: clients would fail on it.
async fn wait_until_led(admin: &Admin, actions: &[Action]) -> Result<(), ApplyError> {
    let wanted: Vec<(&str, i32)> = actions
        .iter()
        .filter_map(|action| match action {
            Action::Create { topic, partitions, .. } => Some((topic.as_str(), *partitions)),
            Action::GrowPartitions { topic, to, .. } => Some((topic.as_str(), *to)),
            Action::AlterConfig { .. } | Action::Refuse { .. } => None,
        })
        .collect();
    let deadline = Instant::now() + ADMIN_TIMEOUT;
    loop {
        let there = if wanted.is_empty() { BTreeMap::new() } else { metadata(admin).await? };
        let missing = wanted.iter().find(|(topic, n)| there.get(*topic).is_none_or(|(_, led)| led < n));
        match missing {
            None => return Ok(()),
            Some((topic, _)) if Instant::now() > deadline => {
                let detail = "its partitions have no leader yet; help: check the brokers and the replication factor";
                return Err(ApplyError::Failed { action: format!("make {topic}"), detail: detail.to_owned() });
            }
            Some(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Profile;

    fn options() -> ApplyOptions {
        ApplyOptions { prefix: "t.".to_owned(), replication: 1, dry_run: false }
    }

    /// A cluster that is exactly as declared.
    fn as_declared(topology: &Topology) -> BTreeMap<String, ActualTopic> {
        let actual = topology.active_topics().map(|spec| {
            let configs: BTreeMap<_, _> = spec.configs().into_iter().collect();
            let own = configs.keys().cloned().collect();
            (spec.full_name("t."), ActualTopic { partitions: spec.partitions, configs, own })
        });
        actual.collect()
    }

    #[test]
    fn an_empty_cluster_gets_every_active_topic_and_no_other() {
        let topology = Topology::builtin().unwrap();
        let actions = plan(&topology, &BTreeMap::new(), &options());
        assert_eq!(actions.len(), topology.active_topics().count());
        assert!(actions.iter().all(|a| matches!(a, Action::Create { replication: 1, .. })));
        assert!(!actions.iter().any(|a| topic_of(a) == "t.predictions"));
        let three = plan(&topology, &BTreeMap::new(), &ApplyOptions { replication: 3, ..options() });
        let Action::Create { configs, .. } = &three[0] else { panic!("{three:?}") };
        assert!(configs.contains(&("min.insync.replicas".to_owned(), "2".to_owned())));
    }

    #[test]
    fn a_cluster_that_is_as_declared_needs_nothing() {
        let topology = Topology::builtin().unwrap();
        assert_eq!(plan(&topology, &as_declared(&topology), &options()), []);
    }

    #[test]
    fn a_keyed_topic_with_another_count_is_refused_and_an_outsiders_topic_grows() {
        let topology = Topology::builtin().unwrap();
        let actual = as_declared(&topology);
        let cluster = topology.with_profile(Profile::Cluster);
        let actions = plan(&cluster, &actual, &options());
        let grown = Action::GrowPartitions { topic: "t.contributions".to_owned(), from: 2, to: 16 };
        assert!(actions.contains(&grown), "{actions:?}");
        let refused = actions.iter().find(|a| topic_of(a) == "t.contributions.screened").unwrap().to_string();
        assert!(refused.contains("has 2 partitions, the topology declares 16"), "{refused}");
        assert!(refused.contains("topology migrate"), "{refused}");
    }

    #[test]
    fn an_outsiders_topic_that_has_grown_is_left_alone() {
        let topology = Topology::builtin().unwrap();
        let mut actual = as_declared(&topology);
        actual.get_mut("t.contributions").unwrap().partitions = 40;
        assert_eq!(plan(&topology, &actual, &options()), []);
    }

    #[test]
    fn altering_keeps_what_the_operator_set() {
        let topology = Topology::builtin().unwrap();
        let mut actual = as_declared(&topology);
        let receipts = actual.get_mut("t.receipts").unwrap();
        receipts.configs.insert("cleanup.policy".to_owned(), "delete".to_owned());
        receipts.configs.insert("min.insync.replicas".to_owned(), "2".to_owned());
        receipts.configs.insert("segment.bytes".to_owned(), "1".to_owned());
        receipts.own.push("min.insync.replicas".to_owned());
        let actions = plan(&topology, &actual, &options());
        let [Action::AlterConfig { topic, changes, configs }] = &actions[..] else { panic!("{actions:?}") };
        assert_eq!((topic.as_str(), changes.len(), changes[0].to.as_str()), ("t.receipts", 1, "compact"));
        assert_eq!(configs["min.insync.replicas"], "2");
        assert_eq!(configs["cleanup.policy"], "compact");
        assert!(!configs.contains_key("segment.bytes"), "a broker's default is not made a setting of the topic");
        assert_eq!(actions[0].to_string(), "alter t.receipts: cleanup.policy=compact (was delete)");
    }
}
