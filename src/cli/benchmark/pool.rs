//! What was there before a benchmark: rows of the pool that it repeats, and earlier benchmarks that it overlaps with.

use std::collections::HashSet;

use arrow::array::AsArray;
use rdkafka::message::Message;
use sha2::{Digest as _, Sha256};

use super::benchmarks;
use crate::attest::tree::Hash;
use crate::cli::common::Settings;
use crate::cli::exit::{Failure, Outcome};
use crate::cli::reader::{Reader, Start};
use crate::codec::ipc::{self, Limits};
use crate::domain::records::{Accepted, Receipt};
use crate::domain::topics;
use crate::sealing::filter::{FEATURE_HASH, MAX_BYTES, MatchFilter};
use crate::store::{Digest, Store};

/// Feature hashes of the filter that rows of admitted contributions to a model have: one pass over the accepted rows, in bounded
/// memory.
pub(super) fn found(settings: &Settings, model: &str, filter: &MatchFilter) -> Outcome<HashSet<[u8; 16]>> {
    let admitted = admitted(settings, model)?;
    let mut found = HashSet::new();
    Reader::scan(settings, topics::ACCEPTED, &Start::Beginning)?.for_each_to_end(|message| {
        let Some(payload) = message.payload() else { return Ok(()) };
        let accepted: Accepted = settings.wire.decode(payload).map_err(Failure::failed)?;
        if accepted.id.model != model || !admitted.contains(&name(&accepted.id.contribution_id)) {
            return Ok(());
        }
        let batch = ipc::read(&accepted.batch, Limits::default()).map_err(Failure::failed)?;
        let hashes = batch.column_by_name(FEATURE_HASH).and_then(|column| column.as_fixed_size_binary_opt());
        let hashes = hashes.ok_or_else(|| Failure::because("accepted rows without feature hashes"))?;
        let hashes = hashes.iter().flatten().filter_map(|hash| <[u8; 16]>::try_from(hash).ok());
        found.extend(hashes.filter(|hash| filter.contains(hash)));
        Ok(())
    })?;
    Ok(found)
}

/// The contributions whose rows count, by 128 bits of their ids' SHA-256.
fn admitted(settings: &Settings, model: &str) -> Outcome<HashSet<[u8; 16]>> {
    let mut admitted = HashSet::new();
    Reader::scan(settings, topics::RECEIPTS, &Start::Beginning)?.for_each_to_end(|message| {
        let Some(payload) = message.payload() else { return Ok(()) };
        let receipt: Receipt = settings.wire.decode(payload).map_err(Failure::failed)?;
        if receipt.model == model && receipt.status == "admitted" {
            admitted.insert(name(&receipt.contribution_id));
        }
        Ok(())
    })?;
    Ok(admitted)
}

fn name(contribution: &str) -> [u8; 16] {
    let hash: [u8; 32] = Sha256::digest(contribution.as_bytes()).into();
    hash.first_chunk().copied().unwrap_or_default()
}

/// Family and filter of every benchmark of the tenant, retired ones too. One whose filter is gone stops the sealing: an overlap
/// with it could not be seen.
pub(super) async fn earlier(settings: &Settings, store: &Store) -> Outcome<Vec<(Hash, MatchFilter)>> {
    let all = super::blocking({
        let settings = settings.clone();
        move || benchmarks(&settings)
    })
    .await?;
    let mut earlier = Vec::with_capacity(all.len());
    for benchmark in all.values() {
        let digest: Digest = benchmark.match_filter.digest.parse().map_err(Failure::because)?;
        let bytes = store.blobs().get(digest, MAX_BYTES).await.map_err(Failure::failed)?;
        let family: Digest = benchmark.family.parse().map_err(Failure::because)?;
        earlier.push((family.0, MatchFilter::parse(bytes).map_err(Failure::failed)?));
    }
    Ok(earlier)
}
