//! The topics of the broker and their partitions.
//!
//! Invariants: a topic exists once its record is in the metadata log; its folder is named by its id, so that a
//! topic that is deleted and created again never meets old records; a folder without a record is removed at start.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, RwLock};

use serde::{Deserialize, Serialize};

use super::config::Limits;
use super::disk::Disk;
use super::error::BrokerError;
use super::flusher::{Flusher, Ticket};
use super::lock;
use super::log::partition::{Partition, Shared};
use super::log::recover;
use super::meta::{Key, Meta, forget, put};
use super::topic_config::{ConfigError, Overrides, TopicConfig};

/// A topic's identity, which outlives its name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TopicId([u8; 16]);

impl TopicId {
    /// A random (version 4) UUID.
    pub(crate) fn random() -> std::io::Result<Self> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|error| std::io::Error::other(error.to_string()))?;
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Ok(Self(bytes))
    }

    fn parse(text: &str) -> Option<Self> {
        let digits: String = text.chars().filter(|character| *character != '-').collect();
        u128::from_str_radix(&digits, 16).ok().map(|number| Self(number.to_be_bytes()))
    }

    /// The protocol's UUID type, which this crate does not name.
    pub(crate) fn wire<T: TryFrom<Vec<u8>> + Default>(self) -> T {
        T::try_from(self.0.to_vec()).unwrap_or_default()
    }

    /// From the protocol's UUID type; `None` for the zero UUID, which stands for "not given".
    pub(crate) fn from_wire(uuid: impl AsRef<[u8]>) -> Option<Self> {
        let bytes: [u8; 16] = uuid.as_ref().try_into().ok()?;
        (bytes != [0; 16]).then_some(Self(bytes))
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = format!("{:032x}", u128::from_be_bytes(self.0));
        let groups = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
        f.write_str(&groups.join("-"))
    }
}

/// What the metadata log says of a topic.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct TopicRecord {
    id: String,
    partitions: i32,
    configs: Overrides,
}

/// One topic.
pub(crate) struct Topic {
    pub(crate) name: String,
    pub(crate) id: TopicId,
    partitions: RwLock<Arc<[Arc<Partition>]>>,
    overrides: Mutex<Overrides>,
}

impl Topic {
    /// Its partitions, in order.
    pub(crate) fn partitions(&self) -> Arc<[Arc<Partition>]> {
        Arc::clone(&self.partitions.read().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    /// One partition.
    pub(crate) fn partition(&self, index: i32) -> Option<Arc<Partition>> {
        let partitions = self.partitions.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        partitions.get(usize::try_from(index).ok()?).map(Arc::clone)
    }

    /// The values it sets itself.
    pub(crate) fn overrides(&self) -> Overrides {
        lock(&self.overrides).clone()
    }

    fn record(&self, partitions: i32, configs: Overrides) -> super::meta::Change {
        put(Key::Topic(self.name.clone()), &TopicRecord { id: self.id.to_string(), partitions, configs })
    }
}

/// Why a topic is not created or changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TopicError {
    #[error("Topic '{0}' already exists.")]
    Exists(String),
    #[error("This server does not host this topic-partition.")]
    Unknown,
    #[error("{0}")]
    InvalidName(String),
    #[error("{0}")]
    InvalidPartitions(String),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{0} partitions are the most this broker keeps; help: raise the limit")]
    TooMany(usize),
    #[error("the broker cannot store the change: {0}")]
    Storage(String),
}

impl From<std::io::Error> for TopicError {
    fn from(error: std::io::Error) -> Self {
        Self::Storage(error.to_string())
    }
}

impl From<BrokerError> for TopicError {
    fn from(error: BrokerError) -> Self {
        Self::Storage(error.to_string())
    }
}

#[derive(Default)]
struct Names {
    by_name: HashMap<String, Arc<Topic>>,
    by_id: HashMap<TopicId, Arc<Topic>>,
    partitions: usize,
}

/// All topics.
pub(crate) struct Topics {
    names: RwLock<Names>,
    /// Held while topics are created, changed or deleted.
    changing: Mutex<()>,
    folder: PathBuf,
    shared: Arc<Shared>,
    meta: Arc<Meta>,
    max_partitions: usize,
}

impl Topics {
    /// Opens every topic of the metadata log and removes folders of topics that are gone.
    pub(crate) fn open(
        disk: &Arc<Disk>,
        flusher: &Arc<Flusher>,
        meta: &Arc<Meta>,
        limits: &Limits,
    ) -> Result<Self, BrokerError> {
        let shared = Arc::new(Shared {
            disk: Arc::clone(disk),
            flusher: Arc::clone(flusher),
            decompressed_batch_bytes: limits.decompressed_batch_bytes,
            compaction_keys: limits.compaction_keys,
        });
        let folder = disk.root().join("topics");
        std::fs::create_dir_all(&folder).map_err(BrokerError::io(&folder))?;
        let topics = Self {
            names: RwLock::default(),
            changing: Mutex::new(()),
            folder,
            shared,
            meta: Arc::clone(meta),
            max_partitions: limits.partitions,
        };
        let log_starts: HashMap<(String, i32), i64> = meta
            .read(|key| match key {
                Key::LogStart(id, partition) => Some((id.clone(), *partition)),
                _ => None,
            })?
            .into_iter()
            .collect();
        let records = meta.read(|key| if let Key::Topic(name) = key { Some(name.clone()) } else { None })?;
        for (name, record) in records {
            let topic = topics.load(name, &record, &log_starts)?;
            topics.insert(topic);
        }
        topics.remove_strays()?;
        Ok(topics)
    }

    fn load(
        &self,
        name: String,
        record: &TopicRecord,
        log_starts: &HashMap<(String, i32), i64>,
    ) -> Result<Topic, BrokerError> {
        let damaged = |rule: String| BrokerError::Damaged { path: self.folder.clone(), at: 0, rule };
        let id = TopicId::parse(&record.id).ok_or_else(|| damaged(format!("topic {name} has a UUID as id")))?;
        let config = TopicConfig::parse(&record.configs).map_err(|error| damaged(format!("topic {name}: {error}")))?;
        let config = Arc::new(config);
        let start = |partition| log_starts.get(&(record.id.clone(), partition)).copied().unwrap_or(0);
        let partitions: Result<Vec<_>, _> =
            (0..record.partitions).map(|index| self.open_partition(&name, id, index, &config, start(index))).collect();
        Ok(Topic {
            name,
            id,
            partitions: RwLock::new(partitions?.into()),
            overrides: Mutex::new(record.configs.clone()),
        })
    }

    fn open_partition(
        &self,
        topic: &str,
        id: TopicId,
        index: i32,
        config: &Arc<TopicConfig>,
        log_start: i64,
    ) -> Result<Arc<Partition>, BrokerError> {
        let folder = self.folder.join(id.to_string()).join(index.to_string());
        recover::open(topic, index, folder, Arc::clone(&self.shared), Arc::clone(config), log_start)
    }

    fn insert(&self, topic: Topic) -> Arc<Topic> {
        let topic = Arc::new(topic);
        let mut names = self.write_names();
        names.partitions += topic.partitions().len();
        names.by_id.insert(topic.id, Arc::clone(&topic));
        names.by_name.insert(topic.name.clone(), Arc::clone(&topic));
        topic
    }

    fn remove_strays(&self) -> Result<(), BrokerError> {
        let entries = std::fs::read_dir(&self.folder).map_err(BrokerError::io(&self.folder))?;
        for entry in entries.flatten() {
            let id = entry.file_name().to_str().and_then(TopicId::parse);
            if let Some(id) = id
                && self.by_id(id).is_none()
            {
                let path = entry.path();
                self.shared.disk.remove_tree(&path).map_err(BrokerError::io(path))?;
            }
        }
        Ok(())
    }

    fn read_names(&self) -> std::sync::RwLockReadGuard<'_, Names> {
        self.names.read().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn write_names(&self) -> std::sync::RwLockWriteGuard<'_, Names> {
        self.names.write().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// A topic by name.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<Topic>> {
        self.read_names().by_name.get(name).map(Arc::clone)
    }

    /// A topic by id.
    pub(crate) fn by_id(&self, id: TopicId) -> Option<Arc<Topic>> {
        self.read_names().by_id.get(&id).map(Arc::clone)
    }

    /// A partition by topic name and number.
    pub(crate) fn partition(&self, topic: &str, index: i32) -> Option<Arc<Partition>> {
        self.get(topic)?.partition(index)
    }

    /// Every topic, ordered by name.
    pub(crate) fn all(&self) -> Vec<Arc<Topic>> {
        let mut all: Vec<_> = self.read_names().by_name.values().map(Arc::clone).collect();
        all.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Topics and partitions, counted.
    pub(crate) fn count(&self) -> (usize, usize) {
        let names = self.read_names();
        (names.by_name.len(), names.partitions)
    }

    /// Creates a topic, or only checks whether it could be created.
    pub(crate) fn create(
        &self,
        name: &str,
        partitions: i32,
        overrides: Overrides,
        validate_only: bool,
    ) -> Result<(Arc<Topic>, Option<Ticket>), TopicError> {
        let _changing = lock(&self.changing);
        self.check_name(name)?;
        if partitions <= 0 {
            return Err(TopicError::InvalidPartitions("Number of partitions must be larger than 0.".into()));
        }
        self.check_room(partitions as usize)?;
        let config = Arc::new(TopicConfig::parse(&overrides)?);
        let id = TopicId::random()?;
        let opened: Result<Vec<_>, _> =
            (0..partitions).map(|index| self.open_partition(name, id, index, &config, 0)).collect();
        let topic = Topic {
            name: name.to_owned(),
            id,
            partitions: RwLock::new(opened?.into()),
            overrides: Mutex::new(overrides.clone()),
        };
        if validate_only {
            return Ok((Arc::new(topic), None));
        }
        self.meta.write(vec![topic.record(partitions, overrides)])?;
        let ticket = self.shared.flusher.mark(&self.meta);
        Ok((self.insert(topic), Some(ticket)))
    }

    fn check_name(&self, name: &str) -> Result<(), TopicError> {
        let legal = |character: char| character.is_ascii_alphanumeric() || "._-".contains(character);
        if name.is_empty() || name.len() > 249 || name == "." || name == ".." || !name.chars().all(legal) {
            return Err(TopicError::InvalidName(format!(
                "Topic name is invalid: '{}' is not 1 to 249 of the characters a-z, A-Z, 0-9, '.', '_' and '-'",
                name.chars().take(300).collect::<String>()
            )));
        }
        let names = self.read_names();
        if names.by_name.contains_key(name) {
            return Err(TopicError::Exists(name.into()));
        }
        let folded = name.replace('.', "_");
        match names.by_name.keys().find(|other| other.replace('.', "_") == folded) {
            Some(other) => {
                Err(TopicError::InvalidName(format!("Topic '{name}' collides with existing topic: {other}")))
            }
            None => Ok(()),
        }
    }

    fn check_room(&self, more: usize) -> Result<(), TopicError> {
        if self.read_names().partitions.saturating_add(more) > self.max_partitions {
            return Err(TopicError::TooMany(self.max_partitions));
        }
        Ok(())
    }

    /// Gives a topic more partitions.
    pub(crate) fn grow(&self, name: &str, count: i32, validate_only: bool) -> Result<Option<Ticket>, TopicError> {
        let _changing = lock(&self.changing);
        let topic = self.get(name).ok_or(TopicError::Unknown)?;
        let old = topic.partitions();
        let have = old.len() as i32;
        if count <= have {
            let rule = if count == have { "already has" } else { "currently has" };
            return Err(TopicError::InvalidPartitions(format!(
                "The topic {name} {rule} {have} partition(s); {count} would not be an increase."
            )));
        }
        self.check_room((count - have) as usize)?;
        if validate_only {
            return Ok(None);
        }
        let config = Arc::new(TopicConfig::parse(&topic.overrides())?);
        let added: Result<Vec<_>, _> =
            (have..count).map(|index| self.open_partition(name, topic.id, index, &config, 0)).collect();
        self.meta.write(vec![topic.record(count, topic.overrides())])?;
        let all: Vec<_> = old.iter().cloned().chain(added?).collect();
        *topic.partitions.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = all.into();
        self.write_names().partitions += (count - have) as usize;
        Ok(Some(self.shared.flusher.mark(&self.meta)))
    }

    /// Puts other configurations in force.
    pub(crate) fn configure(&self, topic: &Topic, overrides: Overrides) -> Result<Ticket, TopicError> {
        let _changing = lock(&self.changing);
        let config = Arc::new(TopicConfig::parse(&overrides)?);
        let partitions = topic.partitions();
        self.meta.write(vec![topic.record(partitions.len() as i32, overrides.clone())])?;
        *lock(&topic.overrides) = overrides;
        for partition in partitions.iter() {
            partition.configure(Arc::clone(&config));
        }
        Ok(self.shared.flusher.mark(&self.meta))
    }

    /// Deletes a topic. Its folder goes after the metadata log has forgotten it.
    pub(crate) fn delete(&self, topic: &Topic) -> Result<Ticket, TopicError> {
        let _changing = lock(&self.changing);
        {
            let mut names = self.write_names();
            if names.by_id.remove(&topic.id).is_none() {
                return Err(TopicError::Unknown);
            }
            names.by_name.remove(&topic.name);
            names.partitions -= topic.partitions().len();
        }
        let id = topic.id.to_string();
        let starts = (0..topic.partitions().len()).map(|partition| forget(Key::LogStart(id.clone(), partition as i32)));
        self.meta.write(std::iter::once(forget(Key::Topic(topic.name.clone()))).chain(starts).collect())?;
        for partition in topic.partitions().iter() {
            partition.mark_deleted();
        }
        Ok(self.shared.flusher.mark(&self.meta))
    }

    /// Removes the folder of a deleted topic.
    pub(crate) fn remove_folder(&self, id: TopicId) -> std::io::Result<()> {
        self.shared.disk.remove_tree(&self.folder.join(id.to_string()))
    }

    /// Remembers where a partition's log starts.
    pub(crate) fn note_log_start(&self, topic: &Topic, partition: i32, offset: i64) -> std::io::Result<Ticket> {
        self.meta.write(vec![put(Key::LogStart(topic.id.to_string(), partition), &offset)])?;
        Ok(self.shared.flusher.mark(&self.meta))
    }
}
