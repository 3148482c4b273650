//! One member of a group, and the form in which it is stored.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::{Joined, SyncAnswer};

/// One member.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Member {
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub(super) session_timeout_ms: i64,
    pub(super) rebalance_timeout_ms: i64,
    #[serde(with = "subscriptions")]
    pub(super) protocols: Vec<(String, Bytes)>,
    #[serde(with = "hex")]
    pub assignment: Bytes,
    #[serde(skip)]
    pub(super) expires_at: i64,
    #[serde(skip)]
    pub(super) joining: Option<oneshot::Sender<Joined>>,
    #[serde(skip)]
    pub(super) syncing: Option<oneshot::Sender<SyncAnswer>>,
}

impl Member {
    /// Its subscription under one protocol.
    pub(crate) fn subscription(&self, protocol: Option<&str>) -> Bytes {
        let found = self.protocols.iter().find(|(name, _)| Some(name.as_str()) == protocol);
        found.map(|(_, bytes)| bytes.clone()).unwrap_or_default()
    }

    pub(super) fn renew(&mut self, now: i64) {
        self.expires_at = now + self.session_timeout_ms;
    }
}

/// The topics of a `ConsumerProtocolSubscription`: version, then an array of strings.
pub(super) fn subscription_topics(bytes: &[u8]) -> Option<Vec<String>> {
    let mut rest = bytes.get(2..)?;
    let mut take = |count: usize| {
        let (taken, left) = rest.split_at_checked(count)?;
        rest = left;
        Some(taken)
    };
    let count = i32::from_be_bytes(take(4)?.try_into().ok()?);
    let mut topics = Vec::new();
    for _ in 0..count {
        let length = i16::from_be_bytes(take(2)?.try_into().ok()?);
        topics.push(String::from_utf8_lossy(take(usize::try_from(length).ok()?)?).into_owned());
    }
    Some(topics)
}

/// Bytes as hexadecimal text in the metadata log.
mod hex {
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn encode(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub(super) fn decode(text: &str) -> Option<Bytes> {
        let digits = text.as_bytes().chunks(2);
        digits
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
            .collect::<Option<Vec<u8>>>()
            .map(Bytes::from)
    }

    pub(super) fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        let text = String::deserialize(deserializer)?;
        decode(&text).ok_or_else(|| D::Error::custom("not hexadecimal"))
    }
}

mod subscriptions {
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(protocols: &[(String, Bytes)], serializer: S) -> Result<S::Ok, S::Error> {
        let texts: Vec<_> = protocols.iter().map(|(name, bytes)| (name, super::hex::encode(bytes))).collect();
        texts.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(String, Bytes)>, D::Error> {
        let texts = Vec::<(String, String)>::deserialize(deserializer)?;
        let decoded = texts.into_iter().map(|(name, text)| super::hex::decode(&text).map(|bytes| (name, bytes)));
        decoded.collect::<Option<_>>().ok_or_else(|| D::Error::custom("not hexadecimal"))
    }
}
