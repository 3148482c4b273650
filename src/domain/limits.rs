//! Limits on what outsiders send; each is checked before anything is allocated for it.

/// Longest id, model or contributor name in bytes.
pub const MAX_ID: usize = 256;
/// Most chunks of one contribution.
pub const MAX_CHUNKS: i64 = 65_536;
/// Largest chunk on the wire in bytes.
pub const MAX_CHUNK_WIRE: usize = 4 << 20;
/// Largest chunk when decoded, in bytes.
pub const MAX_CHUNK_DECODED: usize = 64 << 20;
/// Most rows in a chunk.
pub const MAX_CHUNK_ROWS: usize = 65_536;
/// Deepest nesting of JSON.
pub const MAX_NESTING: usize = 32;
/// Largest output record of a stage in bytes: bigger results are split.
pub const MAX_OUTPUT: usize = 900 << 10;
