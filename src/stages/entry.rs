//! Entries of a stage's state that are JSON behind one byte of format version.

use std::fmt::Display;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::stream::stage::StageError;

/// The bytes of an entry. `what` names it in errors.
///
/// # Errors
/// [`StageError::State`]: a value that JSON cannot hold.
pub fn encode<T: Serialize>(version: u8, what: &dyn Display, entry: &T) -> Result<Vec<u8>, StageError> {
    let mut bytes = vec![version];
    serde_json::to_writer(&mut bytes, entry).map_err(|e| damaged(what, e.to_string()))?;
    Ok(bytes)
}

/// An entry of this version.
///
/// # Errors
/// [`StageError::State`]: another version, or damaged.
pub fn decode<T: DeserializeOwned>(version: u8, what: &dyn Display, bytes: &[u8]) -> Result<T, StageError> {
    match bytes.split_first() {
        Some((&found, json)) if found == version => {
            serde_json::from_slice(json).map_err(|e| damaged(what, e.to_string()))
        }
        Some((found, _)) => Err(damaged(what, format!("format version {found}, this program reads {version}"))),
        None => Err(damaged(what, "empty".to_owned())),
    }
}

fn damaged(what: &dyn Display, detail: String) -> StageError {
    StageError::State { what: what.to_string(), detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_comes_back_and_one_of_another_version_or_a_torn_one_is_named() {
        let bytes = encode(3, &"a test", &vec![1, 2]).unwrap();
        assert_eq!(decode::<Vec<i32>>(3, &"a test", &bytes).unwrap(), [1, 2]);
        for (version, bytes, says) in
            [(4, &bytes[..], "format version 3, this program reads 4"), (3, &bytes[..3], "EOF"), (3, &[], "empty")]
        {
            let error = decode::<Vec<i32>>(version, &"a test", bytes).unwrap_err().to_string();
            assert!(error.contains("a test") && error.contains(says), "{error}");
        }
    }
}
