//! `hk-row-v1`: the Merkle tree over the rows of one contribution.
//!
//! The leaf data of a row is `salt ‖ canonical bytes of the row as screened` (`codec::canonical`, tokens in
//! place of personal data), with
//!
//! ```text
//! salt = HMAC-SHA-256(K_tree, "hk-att/v1/row-salt\0" ‖ u32be(len id) ‖ contribution id ‖ u32be(chunk) ‖ u64be(row))[..16]
//! ```
//!
//! so that a published path says nothing about rows that could be guessed. Each chunk has one RFC 6962 root
//! over its rows in row order; the contribution's root is the RFC 6962 tree over
//! `u32be(chunk) ‖ u64be(rows) ‖ chunk root` in chunk order. Two levels keep the state bounded for a
//! contribution of any size and let chunks arrive in any order.

use crate::attest::tree::{self, CompactRange, Hash};
use crate::domain::keys::MacKey;

const SALT_TAG: &[u8] = b"hk-att/v1/row-salt\0";

/// Salts of the rows of one chunk.
#[derive(Debug, Clone)]
pub struct RowSalts(MacKey);

impl RowSalts {
    /// Salts under the tenant's tree key for chunk number `chunk` of a contribution.
    pub fn new(tree_key: &MacKey, contribution_id: &str, chunk: u32) -> Self {
        // Ids are limited to far less than 4 GiB long before they come here.
        let length = u32::try_from(contribution_id.len()).unwrap_or(u32::MAX).to_be_bytes();
        Self(tree_key.absorbed(&[SALT_TAG, &length, contribution_id.as_bytes(), &chunk.to_be_bytes()]))
    }

    /// The salt of row number `row` of the chunk (its position in the chunk as it was sent, from 0).
    pub fn salt(&self, row: u64) -> [u8; 16] {
        self.0.digest128(&[&row.to_be_bytes()])
    }
}

/// Hash of the leaf of one row.
pub fn row_leaf(salt: &[u8; 16], canonical: &[u8]) -> Hash {
    tree::leaf_hash_parts(&[salt, canonical])
}

/// The tree over the accepted rows of one chunk; rows come in rising order.
#[derive(Debug, Clone)]
pub struct ChunkTree {
    salts: RowSalts,
    range: CompactRange,
}

impl ChunkTree {
    /// The tree without rows.
    pub fn new(salts: RowSalts) -> Self {
        Self { salts, range: CompactRange::new() }
    }

    /// Appends row number `row` with its canonical bytes.
    pub fn append(&mut self, row: u64, canonical: &[u8]) {
        self.range.push(row_leaf(&self.salts.salt(row), canonical));
    }

    /// Rows appended so far.
    pub fn rows(&self) -> u64 {
        self.range.size()
    }

    /// Root over the rows so far.
    pub fn root(&self) -> Hash {
        self.range.root()
    }
}

/// Hash of the leaf of one chunk in its contribution's tree.
pub fn chunk_leaf(chunk: u32, rows: u64, root: &Hash) -> Hash {
    tree::leaf_hash_parts(&[&chunk.to_be_bytes(), &rows.to_be_bytes(), root])
}

/// Root of a contribution over its chunks `(chunk, rows, chunk root)`, which come in rising order of chunk.
pub fn contribution_root(chunks: impl IntoIterator<Item = (u32, u64, Hash)>) -> Hash {
    let mut range = CompactRange::new();
    for (chunk, rows, root) in chunks {
        range.push(chunk_leaf(chunk, rows, &root));
    }
    range.root()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> MacKey {
        MacKey::new(&[7; 32], "")
    }

    #[test]
    fn roots_are_frozen() {
        // Recomputed with Python's hmac and hashlib from the module documentation.
        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        let mut chunk = ChunkTree::new(RowSalts::new(&key(), "c-1", 2));
        chunk.append(0, b"first");
        chunk.append(3, b"second");
        assert_eq!(hex(&RowSalts::new(&key(), "c-1", 2).salt(3)), "e93525428c6b0ccc8ffc96bae4691983");
        assert_eq!(hex(&chunk.root()), "6c0ee4578189746a059e0a07c114e0e8f7cadcba1de04900fb343aea0408b043");
        assert_eq!(
            hex(&contribution_root([(2, 2, chunk.root())])),
            "dcbd9015fbb0be3aa263a2dc07a5db9e015f1f78ec959e88ee51a3abb7669bb4"
        );
    }

    #[test]
    fn a_salt_depends_on_contribution_chunk_and_row() {
        let salts = [("a", 1, 1), ("b", 1, 1), ("a", 2, 1), ("a", 1, 2)]
            .map(|(id, chunk, row)| RowSalts::new(&key(), id, chunk).salt(row));
        assert_eq!(salts.iter().collect::<std::collections::HashSet<_>>().len(), 4);
    }

    #[test]
    fn moving_a_row_to_another_chunk_changes_the_root() {
        let root = |chunks: &[&[&[u8]]]| {
            contribution_root(chunks.iter().enumerate().map(|(number, rows)| {
                let mut tree = ChunkTree::new(RowSalts::new(&key(), "c", number as u32));
                rows.iter().enumerate().for_each(|(row, bytes)| tree.append(row as u64, bytes));
                (number as u32, tree.rows(), tree.root())
            }))
        };
        assert_ne!(root(&[&[b"a", b"b"], &[b"c"]]), root(&[&[b"a"], &[b"b", b"c"]]));
    }
}
