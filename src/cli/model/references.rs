//! Reference tables of a contract: a file becomes its canonical form, which the store has under its digest before a contract names it.

use std::path::Path;

use super::{Failure, Outcome, Settings};
use crate::codec::split::format_of;
use crate::domain::contract::Spec;
use crate::ml::derivation::{Derivation, MAX_TABLES, Table};
use crate::rowsql::features;
use crate::rowsql::features::table::{MAX_FILE, canonical};
use crate::store::Digest;

/// The contract with digests in place of files, and the canonical forms of those tables that it had as files. A file is looked for
/// beside the contract.
///
/// # Errors
/// A file that cannot be read, or (exit 4) is no table of the declared columns, or too large.
pub(super) fn read(spec: Spec, file: &Path) -> Outcome<(Spec, Vec<Vec<u8>>)> {
    let tables = Derivation::of(&spec).tables;
    let said: Vec<Option<String>> =
        spec.learning.iter().flat_map(|said| &said.references).map(|table| table.file.clone()).collect();
    let (mut digests, mut made, mut bytes) = (Vec::with_capacity(tables.len()), Vec::new(), 0);
    for (table, said) in tables.iter().zip(said) {
        let Some(said) = said else {
            digests.push(table.digest.clone());
            continue;
        };
        let own = one(table, &file.parent().unwrap_or(Path::new("")).join(said))?;
        bytes += own.len();
        if bytes > MAX_TABLES {
            return Err(Failure::Refused(format!(
                "the reference tables have more than {MAX_TABLES} bytes together\nhelp: artefacts hold them: keep the rows and columns \
                 that models need"
            )));
        }
        digests.push(Digest::of(&own).to_string());
        made.push(own);
    }
    Ok((spec.with_references(&digests), made))
}

fn one(table: &Table, file: &Path) -> Outcome<Vec<u8>> {
    let shown = file.display();
    let at = |e: std::io::Error| {
        let help = format!("help: the reference table `{}` is looked for beside the contract's file", table.name);
        Failure::because(format!("{shown}: {e}\n{help}"))
    };
    let size = std::fs::metadata(file).map_err(at)?.len();
    if size > MAX_FILE {
        return Err(Failure::Refused(format!(
            "{shown}: {size} bytes\nhelp: the file of a reference table has at most {MAX_FILE}"
        )));
    }
    let format = format_of(file, None).map_err(|_| {
        let help = "help: .csv, .json, .jsonl, .parquet, .arrow or .avro";
        Failure::Refused(format!("{shown}: its ending tells no format\n{help}"))
    })?;
    let document = std::fs::read(file).map_err(at)?;
    canonical(&table.name, &table.columns, format, &document).map_err(|e| Failure::Refused(format!("{shown}: {e}")))
}

/// Whether the contract's SQL may join the tables; those that are named by digest are looked at when something is learned.
///
/// # Errors
/// (exit 4) SQL that lets a row meet too many rows of them.
pub(super) fn check(spec: &Spec, tables: &[Vec<u8>]) -> Outcome<()> {
    let mut derivation = Derivation::of(spec);
    let filled = derivation.tables.iter_mut().all(|table| tables.iter().any(|bytes| Derivation::fill(table, bytes)));
    if !filled {
        return Ok(());
    }
    features::check_filled(&derivation).map_err(|(_, fault)| Failure::Refused(fault.to_string()))
}

/// Puts the tables into the store, and looks whether it has those that the contract named by their digest.
///
/// # Errors
/// The store is out of reach, or (exit 4) does not have one.
pub(super) async fn store(settings: &Settings, spec: &Spec, tables: Vec<Vec<u8>>) -> Outcome<()> {
    let wanted = Derivation::of(spec).tables;
    if wanted.is_empty() {
        return Ok(());
    }
    let blobs = settings.open_store().await?.blobs();
    for table in tables {
        blobs.put(table.into()).await.map_err(Failure::failed)?;
    }
    let mut bytes = 0;
    for table in &wanted {
        let digest: Digest = table.digest.parse().map_err(|e| Failure::because(format!("{}: {e}", table.name)))?;
        let Some(stored) = blobs.stored(digest).await.map_err(Failure::failed)? else {
            return Err(Failure::Refused(format!(
                "the store has no reference table `{}` of digest {digest}\nhelp: name its `file` instead, or the store (--store) that has it",
                table.name
            )));
        };
        bytes += stored.size;
    }
    if bytes > MAX_TABLES as u64 {
        return Err(Failure::Refused(format!(
            "the reference tables have {bytes} bytes together\nhelp: at most {MAX_TABLES}: artefacts hold them"
        )));
    }
    Ok(())
}
