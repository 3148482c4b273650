//! The statement of a receipt, and what a receipt at hand proves of a statement.

use super::contributor::address_of_name;
use super::predicate::{Chunks, Contribution, Contributor, Counted, Dimension, Quality, Rows, ppm};
use super::row::contribution_root;
use super::statement::{Predicate, ROW_TREE, Statement, Subject};
use super::tree::{Hash, empty_root};
use super::verify::{ARTEFACTS, Check, Outcome};
use crate::domain::records::Receipt;

/// What a receipt says, as a statement. `root` is the Merkle root over the contribution's chunks, also when they hold no rows;
/// `pseudonyms` stand for the contributor's name.
#[must_use]
pub fn statement(receipt: &Receipt, root: &Hash, pseudonyms: &[String]) -> Statement {
    let root_hex = data_encoding::HEXLOWER.encode(root);
    let counted = |name: &str, n| Counted { name: name.to_owned(), n };
    let quality = &receipt.quality;
    let dimensions = quality.dimensions.iter();
    let predicate = Contribution {
        status: receipt.status.clone(),
        contribution_id: receipt.contribution_id.clone(),
        contributor: contributor(receipt, pseudonyms),
        model: receipt.model.clone(),
        contract_digest: receipt.contract_digest.clone(),
        evaluated_at: seconds(receipt.last_appended),
        received: receipt.received,
        accepted: receipt.accepted,
        refused: receipt.refused.iter().map(|r| counted(&r.reason, r.count)).collect(),
        rows: Rows { leaf_alg: ROW_TREE.to_owned(), n: receipt.merkle_rows, root: root_hex },
        chunks: Chunks { digest: receipt.chunks_digest.clone(), n: receipt.chunks },
        quality: Quality {
            dimensions: dimensions
                .map(|d| Dimension { measured: d.measured, name: d.name.clone(), ppm: ppm(d.value) })
                .collect(),
            flags: quality.flags.clone(),
            formula: quality.formula.clone(),
            gate: quality.gate.clone(),
            score_ppm: quality.score.map(ppm),
        },
        pii: receipt.pii.iter().map(|p| counted(&p.kind, p.count)).collect(),
    };
    Statement {
        subject: Subject::new(format!("contribution {}", receipt.contribution_id), ROW_TREE, root),
        predicate: Predicate::Contribution(Box::new(predicate)),
    }
}

fn contributor(receipt: &Receipt, pseudonyms: &[String]) -> Contributor {
    let signature = receipt.contributor_signature.clone().filter(|_| receipt.contributor_verified);
    // Only who has signed with a wallet has shown that it is theirs.
    let wallet = address_of_name(&receipt.contributor).filter(|_| signature.is_some());
    Contributor {
        pseudonyms: pseudonyms.to_vec(),
        verified: receipt.contributor_verified,
        signature,
        payout_address: wallet.map(|address| format!("0x{}", data_encoding::HEXLOWER.encode(&address))),
    }
}

/// The last second that RFC 3339 can tell: its years have four digits.
const LAST_SECOND: i64 = 253_402_300_799;

/// Milliseconds since 1970-01-01 UTC as RFC 3339 in whole seconds, rounded down; what lies outside 1970 to 9999, which a producer can
/// write into its records, is told as the nearer end.
#[must_use]
pub fn seconds(milliseconds: i64) -> String {
    let time = chrono::DateTime::from_timestamp(milliseconds.div_euclid(1_000).clamp(0, LAST_SECOND), 0);
    time.unwrap_or_default().to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

/// The root over the chunks that a receipt lists; none when it lists none.
fn listed_root(receipt: &Receipt) -> Option<Hash> {
    let mut chunks = Vec::with_capacity(receipt.bound.len());
    for chunk in &receipt.bound {
        let root = match chunk.root.as_str() {
            "" if chunk.rows == 0 => empty_root(),
            hex => data_encoding::HEXLOWER.decode(hex.as_bytes()).ok()?.try_into().ok()?,
        };
        chunks.push((u32::try_from(chunk.chunk).ok()?, u64::try_from(chunk.rows).ok()?, root));
    }
    (!chunks.is_empty()).then(|| contribution_root(chunks))
}

/// What a receipt proves of a statement: that it says the same, that its numbers add up, and that its chunk roots lead to the
/// subject. The rows themselves are not checked, and this is told.
#[must_use]
pub fn checks(said: &Statement, receipts: &[Receipt]) -> Vec<Check> {
    let check = |name, outcome, detail: String| Check { name, outcome, detail };
    let Predicate::Contribution(predicate) = &said.predicate else { return Vec::new() };
    let id = &predicate.contribution_id;
    let Some(receipt) = receipts.iter().find(|receipt| receipt.contribution_id == *id) else {
        let detail = format!("UNBOUND: no file holds a receipt of contribution {id}");
        return vec![check(ARTEFACTS, Outcome::NotChecked, detail)];
    };
    let stated = data_encoding::HEXLOWER.decode(predicate.rows.root.as_bytes()).ok();
    let stated: Hash = stated.and_then(|b| b.try_into().ok()).unwrap_or_default();
    let derived = statement(receipt, &stated, &predicate.contributor.pseudonyms);
    let mut checks = vec![match different(said, &derived) {
        None => check(ARTEFACTS, Outcome::Passed, format!("the receipt of {id} says the same in every field")),
        Some(field) => check(ARTEFACTS, Outcome::Failed(15), format!("the receipt of {id} says otherwise: {field}")),
    }];
    let refused = predicate.refused.iter().try_fold(0_i64, |sum, r| sum.checked_add(r.n));
    let total = refused.and_then(|refused| refused.checked_add(predicate.accepted));
    checks.push(if total == Some(predicate.received) {
        check("counts", Outcome::Passed, format!("{} received = accepted + refused", predicate.received))
    } else {
        check("counts", Outcome::Failed(16), format!("{} received, {total:?} accepted or refused", predicate.received))
    });
    let listed: i64 = receipt.bound.iter().map(|chunk| chunk.rows).fold(0, i64::saturating_add);
    checks.push(match listed_root(receipt) {
        None if receipt.bound.is_empty() => {
            check("Merkle root", Outcome::NotChecked, "the receipt lists no chunks".to_owned())
        }
        None => check("Merkle root", Outcome::Failed(15), "a chunk that the receipt lists cannot be read".to_owned()),
        Some(root) if root == stated && listed == predicate.rows.n => {
            check("Merkle root", Outcome::Passed, format!("recomputed from {} chunk roots", receipt.bound.len()))
        }
        Some(_) => check("Merkle root", Outcome::Failed(16), "the chunk roots lead to another root".to_owned()),
    });
    let salted =
        "the rows' leaves are salted with a key that the platform keeps, and hold tokens in place of personal data";
    checks.push(check("rows", Outcome::NotChecked, salted.to_owned()));
    checks
}

/// The first field in which two statements differ.
fn different(said: &Statement, derived: &Statement) -> Option<&'static str> {
    let (Predicate::Contribution(a), Predicate::Contribution(b)) = (&said.predicate, &derived.predicate) else {
        return Some("predicate");
    };
    let fields = [
        (said.subject == derived.subject, "subject"),
        (a.status == b.status, "status"),
        (a.contributor == b.contributor, "contributor"),
        (a.model == b.model, "model"),
        (a.contract_digest == b.contract_digest, "contract_digest"),
        (a.evaluated_at == b.evaluated_at, "last_appended"),
        (a.received == b.received, "received"),
        (a.accepted == b.accepted, "accepted"),
        (a.refused == b.refused, "refused"),
        (a.rows == b.rows, "merkle_rows"),
        (a.chunks == b.chunks, "chunks"),
        (a.quality == b.quality, "quality"),
        (a.pii == b.pii, "pii"),
    ];
    fields.into_iter().find_map(|(same, name)| (!same).then_some(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::records::ReceiptChunk;

    fn receipt() -> Receipt {
        let mut receipt = crate::stages::warehouse::fixtures::receipt("c-1", "admitted");
        let chunk = |chunk, root: u8| ReceiptChunk {
            chunk,
            chunk_digest: "d".to_owned(),
            rows: if root == 0 { 0 } else { 3 },
            root: if root == 0 { String::new() } else { data_encoding::HEXLOWER.encode(&[root; 32]) },
        };
        receipt.bound = vec![chunk(0, 0), chunk(1, 7)];
        receipt
    }

    fn said(receipt: &Receipt) -> Statement {
        let root = listed_root(receipt).unwrap();
        Statement::read(&statement(receipt, &root, &["hmac-sha256:k1:00".to_owned()]).payload().unwrap()).unwrap()
    }

    fn outcomes(statement: &Statement, receipt: Receipt) -> Vec<Outcome> {
        checks(statement, &[receipt]).into_iter().map(|check| check.outcome).collect()
    }

    #[test]
    fn a_statement_is_bound_by_its_own_receipt_and_the_rows_are_told_to_be_unchecked() {
        let found = outcomes(&said(&receipt()), receipt());
        assert_eq!(found, [Outcome::Passed, Outcome::Passed, Outcome::Passed, Outcome::NotChecked]);
        let other = Receipt { contribution_id: "c-2".to_owned(), ..receipt() };
        assert_eq!(outcomes(&said(&receipt()), other), [Outcome::NotChecked]);
    }

    #[test]
    fn any_field_of_the_receipt_that_differs_is_named() {
        type Change = fn(&mut Receipt);
        let changes: [(Change, &str); 8] = [
            (|r| r.status = "refused".to_owned(), "status"),
            (|r| r.accepted -= 1, "accepted"),
            (|r| r.refused[0].count += 1, "refused"),
            (|r| r.quality.score = Some(0.94), "quality"),
            (|r| r.pii[0].count += 1, "pii"),
            (|r| r.contributor_verified = true, "contributor"),
            (|r| r.last_appended += 1_000, "last_appended"),
            (|r| r.chunks_digest = "00".to_owned(), "chunks"),
        ];
        for (change, field) in changes {
            let mut changed = receipt();
            change(&mut changed);
            let found = checks(&said(&receipt()), &[changed]);
            assert_eq!(found[0].outcome, Outcome::Failed(15));
            assert!(found[0].detail.ends_with(&format!(": {field}")), "{}", found[0].detail);
        }
    }

    #[test]
    fn chunk_roots_and_counts_that_do_not_add_up_are_a_failed_recomputation() {
        let mut chunks = receipt();
        chunks.bound[1].root = "08".repeat(32);
        assert_eq!(outcomes(&said(&receipt()), chunks)[2], Outcome::Failed(16));
        let mut unsound = receipt();
        unsound.received += 1;
        assert_eq!(outcomes(&said(&unsound), unsound)[1], Outcome::Failed(16));
    }

    #[test]
    fn a_wallet_is_paid_only_when_its_owner_has_signed() {
        let wallet = "0x52908400098527886E0F7030069857D2E4169EE7";
        let signed = |verified: bool, scheme: Option<&str>| {
            let receipt = Receipt {
                contributor: wallet.to_owned(),
                contributor_verified: verified,
                contributor_signature: scheme.map(str::to_owned),
                ..receipt()
            };
            contributor(&receipt, &[]).payout_address
        };
        assert_eq!(signed(true, Some("eip191")), Some(wallet.to_lowercase()));
        assert_eq!(signed(false, Some("eip191")), None);
        assert_eq!(signed(false, None), None);
    }
}
