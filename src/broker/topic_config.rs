//! Per-topic configuration: the names Apache Kafka knows, their rules and defaults, and the parsed form.
//!
//! Invariant: what is stored has passed [`TopicConfig::parse`]; an unknown name or a value outside its rule is
//! refused when it is set. Names that concern replication or the file layout of Apache Kafka are accepted, so
//! that clients and tools written for it work, and have no effect on one node.

use std::collections::BTreeMap;

use super::log::codec::Codec;

/// What a value may be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Rule {
    /// A whole number that Kafka calls INT.
    Int(i64, i64),
    /// A whole number that Kafka calls LONG.
    Long(i64, i64),
    /// A fraction.
    Ratio,
    Bool,
    /// One of these.
    Choice(&'static [&'static str]),
    /// Any of these, separated by commas.
    List(&'static [&'static str]),
    /// Any text.
    FreeList,
}

/// One configuration name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    pub name: &'static str,
    pub rule: Rule,
    pub default: &'static str,
}

const fn known(name: &'static str, rule: Rule, default: &'static str) -> Known {
    Known { name, rule, default }
}

const MAX: i64 = i64::MAX;
const MAX_INT: i64 = i32::MAX as i64;
const FOREVER: &str = "9223372036854775807";

/// Every name, in the order of the alphabet.
pub(crate) const KNOWN: &[Known] = &[
    known("cleanup.policy", Rule::List(&["compact", "delete"]), "delete"),
    known("compression.gzip.level", Rule::Int(-1, 9), "-1"),
    known("compression.lz4.level", Rule::Int(1, 17), "9"),
    known("compression.type", Rule::Choice(&["producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"]), "producer"),
    known("compression.zstd.level", Rule::Int(-131_072, 22), "3"),
    known("delete.retention.ms", Rule::Long(0, MAX), "86400000"),
    known("file.delete.delay.ms", Rule::Long(0, MAX), "60000"),
    known("flush.messages", Rule::Long(1, MAX), FOREVER),
    known("flush.ms", Rule::Long(0, MAX), FOREVER),
    known("follower.replication.throttled.replicas", Rule::FreeList, ""),
    known("index.interval.bytes", Rule::Int(0, MAX_INT), "4096"),
    known("leader.replication.throttled.replicas", Rule::FreeList, ""),
    known("max.compaction.lag.ms", Rule::Long(1, MAX), FOREVER),
    known("max.message.bytes", Rule::Int(0, MAX_INT), "1048588"),
    known("message.timestamp.after.max.ms", Rule::Long(0, MAX), "3600000"),
    known("message.timestamp.before.max.ms", Rule::Long(0, MAX), FOREVER),
    known("message.timestamp.type", Rule::Choice(&["CreateTime", "LogAppendTime"]), "CreateTime"),
    known("min.cleanable.dirty.ratio", Rule::Ratio, "0.5"),
    known("min.compaction.lag.ms", Rule::Long(0, MAX), "0"),
    known("min.insync.replicas", Rule::Int(1, MAX_INT), "1"),
    known("preallocate", Rule::Bool, "false"),
    known("retention.bytes", Rule::Long(i64::MIN, MAX), "-1"),
    known("retention.ms", Rule::Long(-1, MAX), "604800000"),
    known("segment.bytes", Rule::Int(14, MAX_INT), "1073741824"),
    known("segment.index.bytes", Rule::Int(4, MAX_INT), "10485760"),
    known("segment.jitter.ms", Rule::Long(0, MAX), "0"),
    known("segment.ms", Rule::Long(1, MAX), "604800000"),
    known("unclean.leader.election.enable", Rule::Bool, "false"),
];

/// The values a topic sets itself; the rest are defaults.
pub(crate) type Overrides = BTreeMap<String, String>;

/// Why a configuration is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("Unknown topic config name: {0}")]
    Unknown(String),
    #[error("Invalid value {value} for configuration {name}: {rule}")]
    Invalid { name: String, value: String, rule: String },
    #[error("Null value not supported for topic configs: {0}")]
    Null(String),
    #[error("the configuration {0} is not a list: it can be set and deleted only")]
    NotAList(String),
    #[error("unknown operation on the configuration {0}")]
    Operation(String),
}

/// What the log does with a topic.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TopicConfig {
    pub compact: bool,
    pub delete: bool,
    pub compression: Option<Codec>,
    pub delete_retention_ms: i64,
    pub max_message_bytes: usize,
    pub max_compaction_lag_ms: i64,
    pub timestamp_after_max_ms: i64,
    pub timestamp_before_max_ms: i64,
    pub log_append_time: bool,
    pub min_cleanable_dirty_ratio: f64,
    pub min_compaction_lag_ms: i64,
    /// `None` keeps everything.
    pub retention_bytes: Option<u64>,
    /// `None` keeps everything.
    pub retention_ms: Option<i64>,
    pub segment_bytes: u64,
    pub segment_ms: i64,
}

/// The entry of a name.
pub(crate) fn find(name: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.name == name)
}

/// Checks one name and value.
pub(crate) fn check(name: &str, value: &str) -> Result<(), ConfigError> {
    let known = find(name).ok_or_else(|| ConfigError::Unknown(name.into()))?;
    let invalid = |rule: String| ConfigError::Invalid { name: name.into(), value: value.into(), rule };
    let whole = |low: i64, high: i64| match value.trim().parse::<i64>() {
        Ok(number) if (low..=high).contains(&number) => Ok(()),
        Ok(_) => Err(invalid(format!("Value must be between {low} and {high}"))),
        Err(_) => Err(invalid("Not a number of type LONG".into())),
    };
    let one_of = |choices: &[&str], value: &str| match choices.contains(&value.trim()) {
        true => Ok(()),
        false => Err(invalid(format!("String must be one of: {}", choices.join(", ")))),
    };
    match known.rule {
        Rule::Int(low, high) | Rule::Long(low, high) => whole(low, high),
        Rule::Ratio => match value.trim().parse::<f64>() {
            Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(()),
            _ => Err(invalid("Value must be between 0 and 1".into())),
        },
        Rule::Bool => one_of(&["true", "false"], &value.to_ascii_lowercase()),
        Rule::Choice(choices) => one_of(choices, value),
        Rule::List(choices) => value.split(',').try_for_each(|item| one_of(choices, item)),
        Rule::FreeList => Ok(()),
    }
}

impl TopicConfig {
    /// The configuration of a topic that sets `overrides`.
    pub(crate) fn parse(overrides: &Overrides) -> Result<Self, ConfigError> {
        for (name, value) in overrides {
            check(name, value)?;
        }
        let text = |name: &str| value_of(overrides, name).trim();
        let number = |name: &str| text(name).parse::<i64>().unwrap_or_default();
        let policy: Vec<&str> = text("cleanup.policy").split(',').map(str::trim).collect();
        Ok(Self {
            compact: policy.contains(&"compact"),
            delete: policy.contains(&"delete"),
            compression: match text("compression.type") {
                "uncompressed" => Some(Codec::None),
                "gzip" => Some(Codec::Gzip),
                "snappy" => Some(Codec::Snappy),
                "lz4" => Some(Codec::Lz4),
                "zstd" => Some(Codec::Zstd),
                _ => None,
            },
            delete_retention_ms: number("delete.retention.ms"),
            max_message_bytes: usize::try_from(number("max.message.bytes")).unwrap_or(0),
            max_compaction_lag_ms: number("max.compaction.lag.ms"),
            timestamp_after_max_ms: number("message.timestamp.after.max.ms"),
            timestamp_before_max_ms: number("message.timestamp.before.max.ms"),
            log_append_time: text("message.timestamp.type") == "LogAppendTime",
            min_cleanable_dirty_ratio: text("min.cleanable.dirty.ratio").parse().unwrap_or(0.5),
            min_compaction_lag_ms: number("min.compaction.lag.ms"),
            retention_bytes: u64::try_from(number("retention.bytes")).ok(),
            retention_ms: Some(number("retention.ms")).filter(|ms| *ms >= 0),
            segment_bytes: u64::try_from(number("segment.bytes")).unwrap_or(u64::MAX),
            segment_ms: number("segment.ms"),
        })
    }
}

/// The value in force: the topic's own or the default.
pub(crate) fn value_of<'a>(overrides: &'a Overrides, name: &str) -> &'a str {
    overrides.get(name).map(String::as_str).or_else(|| find(name).map(|known| known.default)).unwrap_or_default()
}

/// The overrides after an incremental change: 0 sets, 1 deletes, 2 appends to and 3 subtracts from a list.
pub(crate) fn alter(
    overrides: &mut Overrides,
    name: &str,
    operation: i8,
    value: Option<&str>,
) -> Result<(), ConfigError> {
    let known = find(name).ok_or_else(|| ConfigError::Unknown(name.into()))?;
    if operation == 1 {
        overrides.remove(name);
        return Ok(());
    }
    let value = value.ok_or_else(|| ConfigError::Null(name.into()))?;
    let value = match operation {
        0 => value.to_owned(),
        2 | 3 if matches!(known.rule, Rule::List(_) | Rule::FreeList) => {
            let mut items: Vec<&str> = value_of(overrides, name).split(',').filter(|item| !item.is_empty()).collect();
            for item in value.split(',') {
                items.retain(|old| *old != item);
                if operation == 2 {
                    items.push(item);
                }
            }
            items.join(",")
        }
        2 | 3 => return Err(ConfigError::NotAList(name.into())),
        _ => return Err(ConfigError::Operation(name.into())),
    };
    check(name, &value)?;
    overrides.insert(name.into(), value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_satisfies_its_own_rule() {
        for known in KNOWN {
            check(known.name, known.default).unwrap();
        }
        let config = TopicConfig::parse(&Overrides::new()).unwrap();
        assert!(config.delete && !config.compact && config.retention_bytes.is_none());
        assert_eq!(config.retention_ms, Some(604_800_000));
    }

    #[test]
    fn unknown_names_and_values_outside_the_rule_are_refused() {
        assert!(matches!(check("retention.sm", "1"), Err(ConfigError::Unknown(_))));
        assert!(matches!(check("retention.ms", "soon"), Err(ConfigError::Invalid { .. })));
        assert!(matches!(check("cleanup.policy", "burn"), Err(ConfigError::Invalid { .. })));
        check("cleanup.policy", "compact,delete").unwrap();
    }

    #[test]
    fn lists_grow_and_shrink_by_item() {
        let mut overrides = Overrides::new();
        alter(&mut overrides, "cleanup.policy", 2, Some("compact")).unwrap();
        assert_eq!(overrides["cleanup.policy"], "delete,compact");
        alter(&mut overrides, "cleanup.policy", 3, Some("delete")).unwrap();
        assert_eq!(overrides["cleanup.policy"], "compact");
        alter(&mut overrides, "cleanup.policy", 1, None).unwrap();
        assert!(overrides.is_empty());
        assert!(matches!(alter(&mut overrides, "segment.ms", 2, Some("5")), Err(ConfigError::NotAList(_))));
    }
}
