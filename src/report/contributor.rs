//! What the platform knows of one contributor: receipts, what was attested of them, and the part in each improvement.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::attest::contributor::address_of_name;
use crate::attest::predicate::Contribution;
use crate::domain::records::{Attribution, Receipt};
use crate::ops::time::rfc3339;

/// Most receipts that are listed: the newest.
pub const MAX_RECEIPTS: usize = 1_000;

/// Who is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// By the name in receipts.
    Name(String),
    /// By the wallet that the name is: letters count in either case.
    Wallet([u8; 20]),
    /// By the keyed pseudonym in statements; what is theirs is what those statements are about.
    Pseudonym(String),
}

impl Who {
    /// Reads what was typed.
    #[must_use]
    pub fn of(id: &str) -> Self {
        match address_of_name(id) {
            Some(address) => Self::Wallet(address),
            None if id.starts_with("hmac-sha256:") => Self::Pseudonym(id.to_owned()),
            None => Self::Name(id.to_owned()),
        }
    }
}

/// A receipt, as a line.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReceiptLine {
    /// When the broker appended the contribution's last chunk.
    pub time: String,
    /// The contribution.
    pub contribution_id: String,
    /// Model.
    pub model: String,
    /// `admitted`, `refused` or `incomplete`.
    pub status: String,
    /// Rows received.
    pub received: i64,
    /// Rows accepted.
    pub accepted: i64,
    /// Rows refused, by reason.
    pub refused: BTreeMap<String, i64>,
    /// Quality in 0..1; none for too few rows.
    pub quality: Option<f64>,
    /// Root that binds the rows, hex.
    pub merkle_root: String,
    /// Whether the contributor signed it.
    pub verified: bool,
    /// What was attested of it; none while it is not in the log.
    pub attestation: Option<Attested>,
}

/// Where a receipt stands in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Attested {
    /// Leaf hash, hex: what `hokusai attestation export` takes.
    pub leaf: String,
    /// Index in the log.
    pub index: u64,
}

/// A contributor's part in one improvement that was attributed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Part {
    /// The evaluation that accepted the improvement.
    pub evaluation_id: String,
    /// Model.
    pub model: String,
    /// Benchmark.
    pub benchmark: String,
    /// Metric that was improved.
    pub metric: String,
    /// By how much, in the metric's unit.
    pub delta: String,
    /// Under which name.
    pub contributor: String,
    /// Own rows that the candidate learned from and the baseline did not.
    pub rows: i64,
    /// How many contributors the player is that the next values are of: 1 for the contributor alone.
    pub player_contributors: i64,
    /// Shapley value of that player, in the metric's unit.
    pub effect: String,
    /// Its standard error.
    pub standard_error: String,
    /// Whether it is above 0 at one-sided 5 %.
    pub significant: bool,
    /// Own share of what is payable, in basis points; 0 without one.
    pub basis_points: i64,
    /// Whether shares of this improvement may be paid.
    pub payable: bool,
    /// Why not, as codes.
    pub reasons: Vec<String>,
    /// SHA-256 of the signed statement, hex.
    pub statement: String,
}

/// All of one contributor.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Account {
    /// Names under which receipts were found; several only for a wallet that was written in several ways.
    pub names: BTreeSet<String>,
    /// Pseudonyms in the statements about their contributions.
    pub pseudonyms: BTreeSet<String>,
    /// Wallet that signed, where one did: where shares are paid to.
    pub payout_addresses: BTreeSet<String>,
    /// Receipts by status.
    pub by_status: BTreeMap<String, u64>,
    /// Rows received, in all receipts.
    pub received: u64,
    /// Rows accepted.
    pub accepted: u64,
    /// The newest receipts, at most [`MAX_RECEIPTS`], oldest first.
    pub receipts: Vec<ReceiptLine>,
    /// The part in each improvement that was attributed, by model and evaluation.
    pub attributions: Vec<Part>,
}

/// Gathers an account: of a pseudonym first whose statements bear it, then every receipt, then what was attested of them.
#[derive(Debug)]
pub struct Gather {
    who: Who,
    /// Contributions whose statements bear the pseudonym.
    theirs: BTreeSet<String>,
    account: Account,
    /// By time and id.
    kept: BTreeMap<(i64, String), ReceiptLine>,
    /// Times of those kept, by id.
    times: BTreeMap<String, i64>,
    /// By model, evaluation and name.
    parts: BTreeMap<(String, String, String), Part>,
}

impl Gather {
    /// For somebody.
    #[must_use]
    pub fn new(who: Who) -> Self {
        Self {
            who,
            theirs: BTreeSet::new(),
            account: Account::default(),
            kept: BTreeMap::new(),
            times: BTreeMap::new(),
            parts: BTreeMap::new(),
        }
    }

    /// Whether the log has to be read first: receipts do not hold pseudonyms.
    #[must_use]
    pub fn needs_statements_first(&self) -> bool {
        matches!(self.who, Who::Pseudonym(_))
    }

    /// A statement, on the first pass.
    pub fn pseudonym(&mut self, said: &Contribution) {
        if let Who::Pseudonym(pseudonym) = &self.who
            && said.contributor.pseudonyms.contains(pseudonym)
        {
            self.theirs.insert(said.contribution_id.clone());
        }
    }

    fn is_theirs(&self, receipt: &Receipt) -> bool {
        match &self.who {
            Who::Name(name) => receipt.contributor == *name,
            Who::Wallet(address) => address_of_name(&receipt.contributor) == Some(*address),
            Who::Pseudonym(_) => self.theirs.contains(&receipt.contribution_id),
        }
    }

    /// A receipt.
    pub fn receipt(&mut self, receipt: &Receipt) {
        if !self.is_theirs(receipt) {
            return;
        }
        let account = &mut self.account;
        account.names.insert(receipt.contributor.clone());
        *account.by_status.entry(receipt.status.clone()).or_default() += 1;
        account.received = account.received.saturating_add(u64::try_from(receipt.received).unwrap_or(0));
        account.accepted = account.accepted.saturating_add(u64::try_from(receipt.accepted).unwrap_or(0));
        let line = ReceiptLine {
            time: rfc3339(receipt.last_appended),
            contribution_id: receipt.contribution_id.clone(),
            model: receipt.model.clone(),
            status: receipt.status.clone(),
            received: receipt.received,
            accepted: receipt.accepted,
            refused: receipt.refused.iter().map(|refused| (refused.reason.clone(), refused.count)).collect(),
            quality: receipt.quality.score,
            merkle_root: receipt.merkle_root.clone(),
            verified: receipt.contributor_verified,
            attestation: None,
        };
        self.kept.insert((receipt.last_appended, receipt.contribution_id.clone()), line);
        self.times.insert(receipt.contribution_id.clone(), receipt.last_appended);
        if self.kept.len() > MAX_RECEIPTS
            && let Some(((_, id), _)) = self.kept.pop_first()
        {
            self.times.remove(&id);
        }
    }

    /// A statement of the log, after all receipts.
    pub fn statement(&mut self, index: u64, leaf: &str, said: &Contribution) {
        let Some(time) = self.times.get(&said.contribution_id) else { return };
        if let Some(line) = self.kept.get_mut(&(*time, said.contribution_id.clone())) {
            line.attestation = Some(Attested { leaf: leaf.to_owned(), index });
            self.account.pseudonyms.extend(said.contributor.pseudonyms.iter().cloned());
            self.account.payout_addresses.extend(said.contributor.payout_address.clone());
        }
    }

    /// An attribution, after all receipts: players are known by the names in them. Of several of one evaluation the last one stands.
    pub fn attribution(&mut self, told: &Attribution) {
        self.parts.retain(|(_, evaluation, _), _| *evaluation != told.evaluation_id);
        for player in &told.players {
            let own = player.members.iter().filter(|member| self.account.names.contains(&member.contributor));
            for member in own {
                let share = told.shares.iter().find(|share| share.contributor == member.contributor);
                let part = Part {
                    evaluation_id: told.evaluation_id.clone(),
                    model: told.model.clone(),
                    benchmark: told.benchmark.clone(),
                    metric: told.metric.clone(),
                    delta: told.delta.clone(),
                    contributor: member.contributor.clone(),
                    rows: member.rows,
                    player_contributors: player.contributors,
                    effect: player.effect.clone(),
                    standard_error: player.standard_error.clone(),
                    significant: player.significant,
                    basis_points: share.map_or(0, |share| share.basis_points),
                    payable: told.payable,
                    reasons: told.reasons.clone(),
                    statement: told.statement.clone(),
                };
                let key = (part.model.clone(), part.evaluation_id.clone(), part.contributor.clone());
                self.parts.insert(key, part);
            }
        }
    }

    /// The account.
    #[must_use]
    pub fn finish(mut self) -> Account {
        self.account.receipts = self.kept.into_values().collect();
        self.account.attributions = self.parts.into_values().collect();
        self.account
    }
}

impl Account {
    /// Whether nothing is known of them.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_status.is_empty()
    }

    /// Receipts in all.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.by_status.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attest::receipt::statement;
    use crate::attest::statement::Predicate;
    use crate::domain::records::Quality;

    fn receipt(id: &str, contributor: &str, time: i64) -> Receipt {
        Receipt {
            contribution_id: id.to_owned(),
            contributor: contributor.to_owned(),
            model: "m".to_owned(),
            contract_digest: String::new(),
            status: "admitted".to_owned(),
            received: 3,
            accepted: 2,
            refused: Vec::new(),
            quality: Quality {
                formula: "1".to_owned(),
                score: None,
                validity_lower: None,
                gate: String::new(),
                flags: Vec::new(),
                dimensions: Vec::new(),
            },
            pii: Vec::new(),
            merkle_root: String::new(),
            merkle_rows: 0,
            chunks: 1,
            bound: Vec::new(),
            chunks_digest: String::new(),
            last_appended: time,
            contributor_verified: false,
            contributor_signature: None,
            leaf: String::new(),
        }
    }

    fn said(receipt: &Receipt, pseudonym: &str) -> Contribution {
        match statement(receipt, &[7; 32], &[pseudonym.to_owned()]).predicate {
            Predicate::Contribution(said) => *said,
            other => panic!("{other:?}"),
        }
    }

    fn account(id: &str, receipts: &[(Receipt, &str)]) -> Account {
        let mut gather = Gather::new(Who::of(id));
        if gather.needs_statements_first() {
            receipts.iter().for_each(|(receipt, pseudonym)| gather.pseudonym(&said(receipt, pseudonym)));
        }
        receipts.iter().for_each(|(receipt, _)| gather.receipt(receipt));
        for (index, (receipt, pseudonym)) in (0..).zip(receipts) {
            gather.statement(index, "00ff", &said(receipt, pseudonym));
        }
        gather.finish()
    }

    #[test]
    fn a_contributor_is_found_by_name_by_wallet_in_either_case_and_by_the_pseudonym_of_statements() {
        let wallet = "0x52908400098527886E0F7030069857D2E4169EE7";
        let receipts = [
            (receipt("a", "alice", 5), "hmac-sha256:k1:aa"),
            (receipt("b", "Alice", 4), "hmac-sha256:k1:bb"),
            (receipt("c", "alice", 3), "hmac-sha256:k2:aa"),
            (receipt("d", wallet, 2), "hmac-sha256:k1:dd"),
            (receipt("e", &wallet.to_lowercase(), 1), "hmac-sha256:k1:ee"),
        ];
        let ids = |who: &str| -> Vec<String> {
            account(who, &receipts).receipts.into_iter().map(|line| line.contribution_id).collect()
        };
        assert_eq!(ids("alice"), ["c", "a"], "oldest first; a name in another case is somebody else");
        assert_eq!(ids(wallet), ["e", "d"]);
        assert_eq!(ids("hmac-sha256:k1:aa"), ["a"], "under another key they have another pseudonym");
        assert!(account("nobody", &receipts).is_empty());
        let alice = account("alice", &receipts);
        assert_eq!((alice.received, alice.accepted, alice.count()), (6, 4, 2));
        assert_eq!(alice.pseudonyms.len(), 2);
        assert_eq!(alice.receipts[1].attestation, Some(Attested { leaf: "00ff".to_owned(), index: 0 }));
    }

    #[test]
    fn a_part_is_the_players_that_the_contributor_belongs_to_and_the_last_word_on_an_evaluation_stands() {
        use crate::domain::records::{Member, Player, Share};
        let member = |name: &str| Member { contributor: name.to_owned(), rows: 7 };
        let player = |members: Vec<Member>, effect: &str| Player {
            contributors: members.len() as i64,
            members,
            rows: 20,
            effect: effect.to_owned(),
            standard_error: "0.001000".to_owned(),
            significant: true,
            ..Player::default()
        };
        let first = Attribution {
            evaluation_id: "e1".to_owned(),
            model: "m".to_owned(),
            delta: "0.030000".to_owned(),
            players: vec![
                player(vec![member("alice")], "0.020000"),
                player(vec![member("bob"), member("carol")], "0.010000"),
            ],
            shares: vec![Share { contributor: "alice".to_owned(), basis_points: 6_667, payout_address: None }],
            payable: true,
            ..Attribution::default()
        };
        let part = |who: &str, told: &[&Attribution]| {
            let mut gather = Gather::new(Who::of(who));
            gather.receipt(&receipt("c", who, 1));
            told.iter().for_each(|told| gather.attribution(told));
            let parts = gather.finish().attributions;
            parts
                .iter()
                .map(|p| (p.effect.clone(), p.player_contributors, p.basis_points, p.payable))
                .collect::<Vec<_>>()
        };
        assert_eq!(part("alice", &[&first]), [("0.020000".to_owned(), 1, 6_667, true)]);
        assert_eq!(part("carol", &[&first]), [("0.010000".to_owned(), 2, 0, true)]);
        assert_eq!(part("dave", &[&first]), []);
        let failed = Attribution { players: Vec::new(), shares: Vec::new(), payable: false, ..first.clone() };
        assert_eq!(part("alice", &[&first, &failed]), []);
    }

    #[test]
    fn of_many_receipts_the_newest_are_listed_and_all_are_counted() {
        let many: Vec<_> = (0..1_200).map(|n| (receipt(&format!("c{n}"), "alice", n), "p")).collect();
        let account = account("alice", &many);
        assert_eq!((account.count(), account.receipts.len()), (1_200, MAX_RECEIPTS));
        assert_eq!(account.receipts[0].contribution_id, "c200");
    }
}
