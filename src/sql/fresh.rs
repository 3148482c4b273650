//! Waits until the tables hold what the topics hold now.
//!
//! The ends are asked for once, as a `read_committed` reader sees them (last stable offsets): what is written later, or
//! stands in a transaction that is still open, is not waited for. A table has reached an end when its position is there;
//! the warehouse moves positions over the transaction markers behind the last record too.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::error::SqlError;
use super::session::Session;
use crate::stages::warehouse::tables::Table;
use crate::stream::client::{ClientError, Cluster, PartitionEnds};

/// How often the tables are looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Why the tables are not fresh.
#[derive(Debug, thiserror::Error)]
pub enum FreshError {
    /// The brokers were not reached or lack a topic.
    #[error(transparent)]
    Brokers(#[from] ClientError),
    /// The tables could not be read.
    #[error(transparent)]
    Tables(#[from] SqlError),
    /// The table holds records of a topic that is gone: its positions mean nothing in the present one.
    #[error(
        "table {table} holds a topic {topic} that was deleted; the present one is another; help: move the folder tables/{table} of the store away, and the warehouse starts it over"
    )]
    OtherTopic {
        /// Table.
        table: &'static str,
        /// Topic without prefix.
        topic: &'static str,
    },
    /// Time is up.
    #[error(
        "the tables are not up to date after {seconds} s: {behind}; help: is the stage warehouse running (`hokusai doctor`)? without --fresh the query answers from what is there"
    )]
    Behind {
        /// How long was waited.
        seconds: u64,
        /// What is behind.
        behind: String,
    },
}

/// Waits until every table has reached the present end of its topic, at most for `deadline`; then the session reads
/// the newest versions.
///
/// # Errors
/// [`FreshError`].
pub async fn wait(session: &Session, cluster: &Cluster, deadline: Duration) -> Result<(), FreshError> {
    let started = Instant::now();
    let Present { ids, mut ends } = present(cluster.clone()).await?;
    loop {
        for (table, id) in Table::ALL.into_iter().zip(&ids) {
            let held = session.topic_id(table).await?;
            if held.is_some() && id.is_some() && held != *id {
                return Err(FreshError::OtherTopic { table: table.name(), topic: table.topic() });
            }
        }
        let mut behind = Vec::new();
        for table in Table::ALL {
            let of_table: Vec<&PartitionEnds> = ends.iter().filter(|end| end.topic == table.topic()).collect();
            if !of_table.is_empty() {
                let positions = session.positions(table).await?;
                behind.extend(of_table.into_iter().filter(|end| !reached(&positions, end)).cloned());
            }
        }
        ends = behind;
        if ends.is_empty() {
            return Ok(session.refresh().await?);
        }
        if started.elapsed() >= deadline {
            return Err(FreshError::Behind { seconds: deadline.as_secs(), behind: told(session, &ends).await? });
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What the brokers say of the topics, in the order of [`Table::ALL`].
struct Present {
    ids: Vec<Option<String>>,
    ends: Vec<PartitionEnds>,
}

async fn present(cluster: Cluster) -> Result<Present, FreshError> {
    let asked = tokio::task::spawn_blocking(move || {
        let (admin, topics) = (cluster.admin()?, Table::ALL.map(Table::topic));
        let ids = admin.describe(&topics)?.into_iter().map(|topic| topic.id).collect();
        Ok::<_, ClientError>(Present { ids, ends: admin.end_offsets(&topics)? })
    });
    let lost = |error: tokio::task::JoinError| SqlError::Output(std::io::Error::other(error));
    Ok(asked.await.map_err(lost)??)
}

/// An empty partition needs no position.
fn reached(positions: &BTreeMap<i32, i64>, end: &PartitionEnds) -> bool {
    end.end <= end.start || positions.get(&end.partition).is_some_and(|next| *next >= end.end)
}

async fn told(session: &Session, ends: &[PartitionEnds]) -> Result<String, SqlError> {
    let mut told = Vec::new();
    for end in ends.iter().take(3) {
        let table = Table::of_topic(&end.topic);
        let positions = match table {
            Some(table) => session.positions(table).await?,
            None => BTreeMap::new(),
        };
        let at = positions.get(&end.partition).map_or("nothing".to_owned(), ToString::to_string);
        let name = table.map_or_else(|| end.topic.clone(), |table| table.name().to_owned());
        told.push(format!("{name} holds {at} of {} of {}-{}", end.end, end.topic, end.partition));
    }
    if ends.len() > told.len() {
        told.push(format!("and {} partitions more", ends.len() - told.len()));
    }
    Ok(told.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(start: i64, end: i64) -> PartitionEnds {
        PartitionEnds { topic: "receipts".to_owned(), partition: 0, start, end }
    }

    #[test]
    fn a_table_is_fresh_at_the_end_and_behind_a_record_before_it() {
        let at = |next| BTreeMap::from([(0, next)]);
        assert!(reached(&at(10), &end(0, 10)) && reached(&at(11), &end(0, 10)));
        assert!(!reached(&at(9), &end(0, 10)));
    }

    #[test]
    fn an_empty_or_emptied_partition_is_not_waited_for_and_one_never_read_is() {
        assert!(reached(&BTreeMap::new(), &end(7, 7)));
        assert!(!reached(&BTreeMap::new(), &end(0, 1)));
    }
}
