//! Whose rows a candidate learned from: the dataset again, every row with its owner; and which of them play.
//!
//! A row is nobody's if its contribution was admitted when the baseline's dataset was fixed: the baseline has it too. What came unsigned
//! under a name that also signs is an owner of its own: else anybody could spoil what a signer is paid with one row.

use std::collections::{BTreeMap, HashMap, HashSet};

use arrow::array::{AsArray, RecordBatch, UInt64Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::Int32Type;

use super::work::Desk;
use crate::attest::contributor::address_of_name;
use crate::domain::records::{Receipt, TopicEnd};
use crate::ml::dataset::Dataset;
use crate::ml::declare::Declaration;
use crate::stages::beside::{Refusal, Trouble};
use crate::stages::training::rows::{ENTRY, OWNER, Wanted, read, receipts};
use crate::stats::attribution::screening::Player;
use crate::stats::random::Seed;

/// Most contributors of one attribution.
const MAX_CONTRIBUTORS: usize = 100_000;

/// What is added to the name of an owner who did not sign, beside one of the same name who did.
const UNSIGNED: &str = " (unsigned)";

/// A contributor of rows that the baseline does not have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owner {
    /// Its name.
    pub name: String,
    /// Its rows in the candidate's dataset.
    pub rows: u64,
    /// Whether every one of its contributions that count here was signed by it.
    pub verified: bool,
    /// The wallet that signed them, if one did.
    pub wallet: Option<String>,
}

/// The rows of a candidate in canonical order.
#[derive(Debug)]
pub struct Owned {
    /// Features and label.
    pub rows: RecordBatch,
    /// Of each row, see [`Training`](crate::ml::Training).
    pub row_keys: Vec<u64>,
    /// Root over them, hex.
    pub root: String,
    /// Who owns each: 0 for nobody, else one more than the place in `owners`.
    pub of: Vec<u32>,
    /// Contributors with rows, by name.
    pub owners: Vec<Owner>,
}

/// What receipts say of owners.
#[derive(Default)]
struct Register {
    owners: Vec<Owner>,
    by_name: HashMap<(String, bool), usize>,
    of: HashMap<String, i32>,
}

impl Register {
    fn take(&mut self, receipt: Receipt, base: &HashSet<String>) -> Result<(), Trouble> {
        if base.contains(&receipt.contribution_id) {
            self.of.insert(receipt.contribution_id, 0);
            return Ok(());
        }
        let (name, verified) = (receipt.contributor.clone(), receipt.contributor_verified);
        let place = *self.by_name.entry((name, verified)).or_insert_with(|| {
            self.owners.push(Owner { name: receipt.contributor.clone(), verified, ..Owner::default() });
            self.owners.len() - 1
        });
        if self.owners.len() > MAX_CONTRIBUTORS {
            let text = format!("more than {MAX_CONTRIBUTORS} contributors");
            return Err(Refusal::new("TOO_LARGE", text).into());
        }
        if let Some(owner) = self.owners.get_mut(place) {
            let wallet = address_of_name(&receipt.contributor).filter(|_| verified);
            owner.wallet = wallet.map(|address| format!("0x{}", data_encoding::HEXLOWER.encode(&address)));
        }
        self.of.insert(receipt.contribution_id, i32::try_from(place + 1).unwrap_or(i32::MAX));
        Ok(())
    }
}

/// What is remembered of receipts, about: it counts against the bytes that a dataset may take.
struct Kept {
    bytes: usize,
    most: usize,
}

impl Kept {
    fn more(&mut self, receipt: &Receipt) -> Result<(), Trouble> {
        self.bytes += ENTRY + receipt.contribution_id.len();
        if self.bytes <= self.most {
            return Ok(());
        }
        let help = "help: raise training_bytes in the settings of the stage training";
        Err(Refusal::new("TOO_LARGE", format!("more than {} bytes of receipts; {help}", self.most)).into())
    }
}

/// Where a dataset's rows are found, and where its baseline's end.
#[derive(Debug, Clone, Copy)]
pub struct Ends<'a> {
    /// The candidate's.
    pub own: &'a [TopicEnd],
    /// The baseline's.
    pub base: &'a [TopicEnd],
}

/// Reads a candidate's rows, with their owners.
///
/// # Errors
/// What reading a dataset can come to.
pub fn owned(
    desk: &Desk,
    model: &str,
    declared: &Declaration,
    ends: Ends<'_>,
    sealed: &[crate::sealing::filter::MatchFilter],
    stopped: &dyn Fn() -> bool,
) -> Result<Owned, Trouble> {
    let outside = &*desk.trainer;
    let mut kept = Kept { bytes: 0, most: desk.limits.bytes };
    let mut base = HashSet::new();
    receipts(outside, &desk.wire, model, ends.base, stopped, &mut |receipt| {
        kept.more(&receipt)?;
        base.insert(receipt.contribution_id);
        Ok(())
    })?;
    let mut register = Register::default();
    receipts(outside, &desk.wire, model, ends.own, stopped, &mut |receipt| {
        kept.more(&receipt)?;
        register.take(receipt, &base)
    })?;
    drop(base);
    let owner = |contribution: &str| register.of.get(contribution).copied().unwrap_or(0);
    let wanted = Wanted { model, declared, ends: ends.own, sealed, owner: Some(&owner) };
    let rows = read(outside, &desk.wire, wanted, desk.limits, stopped)?;
    let dataset = Dataset::assemble(rows.batches).map_err(|e| Refusal::new("BAD_DATASET", e))?;
    Ok(assigned(dataset, register.owners))
}

/// Owners in the order of their names, those without rows left out.
fn assigned(dataset: Dataset, mut owners: Vec<Owner>) -> Owned {
    let column = dataset.rows.column_by_name(OWNER).and_then(|column| column.as_primitive_opt::<Int32Type>());
    let first: Vec<usize> = column.map_or_else(Vec::new, |column| {
        column.values().iter().map(|owner| usize::try_from(*owner).unwrap_or(0)).collect()
    });
    for place in &first {
        if let Some(owner) = place.checked_sub(1).and_then(|place| owners.get_mut(place)) {
            owner.rows += 1;
        }
    }
    let signers: HashSet<String> =
        owners.iter().filter(|own| own.verified && own.rows > 0).map(|own| own.name.clone()).collect();
    for owner in owners.iter_mut().filter(|own| !own.verified && signers.contains(&own.name)) {
        owner.name.push_str(UNSIGNED);
    }
    let mut order: Vec<usize> =
        (0..owners.len()).filter(|place| owners.get(*place).is_some_and(|o| o.rows > 0)).collect();
    order.sort_by(|a, b| owners[*a].name.cmp(&owners[*b].name));
    let mut renamed = vec![0_u32; owners.len() + 1];
    for (new, old) in (1..).zip(&order) {
        renamed[old + 1] = new;
    }
    let of = first.into_iter().map(|place| renamed.get(place).copied().unwrap_or(0)).collect();
    let owners = order.into_iter().map(|place| std::mem::take(&mut owners[place])).collect();
    Owned {
        rows: dataset.rows,
        row_keys: dataset.row_keys,
        root: data_encoding::HEXLOWER.encode(&dataset.root),
        of,
        owners,
    }
}

impl Owned {
    /// The places of rows by player: first nobody's, then those of each player.
    #[must_use]
    pub fn by_player(&self, players: &[Player]) -> Vec<Vec<u32>> {
        let names: BTreeMap<&str, usize> = (players.iter().enumerate())
            .flat_map(|(place, player)| player.members.iter().map(move |(name, _)| (name.as_str(), place + 1)))
            .collect();
        let player: Vec<usize> = std::iter::once(0)
            .chain(self.owners.iter().map(|owner| names.get(owner.name.as_str()).copied().unwrap_or(0)))
            .collect();
        let mut groups = vec![Vec::new(); players.len() + 1];
        for (row, owner) in (0_u32..).zip(&self.of) {
            let group = player.get(*owner as usize).copied().unwrap_or(0);
            if let Some(group) = groups.get_mut(group) {
                group.push(row);
            }
        }
        groups
    }

    /// These rows, which must ascend, and their keys.
    ///
    /// # Errors
    /// A place that there is not.
    pub fn pick(&self, places: &[u32]) -> Result<(RecordBatch, Vec<u64>), Refusal> {
        let wanted = UInt64Array::from_iter_values(places.iter().map(|place| u64::from(*place)));
        let rows = take_record_batch(&self.rows, &wanted).map_err(|e| Refusal::new("BAD_DATASET", e))?;
        let keys = places.iter().filter_map(|place| self.row_keys.get(*place as usize).copied()).collect();
        Ok((rows, keys))
    }
}

/// How many rows of each group play: nobody's all, unless they are more than half of `most`; the others' share what is left in
/// proportion, and at least one of whoever has any.
#[must_use]
pub fn proportions(groups: &[Vec<u32>], most: usize) -> Vec<usize> {
    let total: usize = groups.iter().map(Vec::len).sum();
    let base = groups.first().map_or(0, Vec::len);
    // Whoever is left over from `most` is contributors', but never more than they have.
    let kept = if total <= most { base } else { base.min((most / 2).max(most.saturating_sub(total - base))) };
    let (left, players) = (most.saturating_sub(kept), total - base);
    let share = |own: usize| match (own as u128 * left as u128).checked_div(players as u128) {
        _ if players <= left || own == 0 => own,
        Some(share) => usize::try_from(share).unwrap_or(own).clamp(1, own),
        None => own,
    };
    groups.iter().enumerate().map(|(group, own)| if group == 0 { kept } else { share(own.len()) }).collect()
}

/// So many of each group's rows, drawn without return; ascending.
#[must_use]
pub fn drawn(groups: &[Vec<u32>], counts: &[usize], seed: Seed) -> Vec<Vec<u32>> {
    let draw = |(number, (group, count)): (u64, (&Vec<u32>, &usize))| {
        let mut own = group.clone();
        if *count < own.len() {
            seed.stream(number).shuffle(&mut own);
            own.truncate(*count);
            own.sort_unstable();
        }
        own
    };
    (0..).zip(groups.iter().zip(counts)).map(draw).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_plays_whole_up_to_half_and_the_rest_in_proportion_and_nobody_who_has_any_is_left_out() {
        let groups: Vec<Vec<u32>> = vec![(0..60).collect(), (60..61).collect(), vec![], (61..1_000).collect()];
        assert_eq!(proportions(&groups, 1_000), [60, 1, 0, 939]);
        assert_eq!(proportions(&groups, 200), [60, 1, 0, 139]);
        assert_eq!(proportions(&groups, 100), [50, 1, 0, 49]);
        let few: Vec<Vec<u32>> = vec![(0..900).collect(), (900..1_000).collect()];
        assert_eq!(proportions(&few, 400), [300, 100], "what contributors do not have is the base's");
        let draw = |seed: &str| drawn(&groups, &[50, 1, 0, 49], Seed::derive(seed, b""));
        let one = draw("a");
        assert_eq!(one.iter().map(Vec::len).collect::<Vec<_>>(), [50, 1, 0, 49]);
        assert!(one.iter().zip(&groups).all(|(own, all)| own.is_sorted() && own.iter().all(|row| all.contains(row))));
        assert_eq!((one.clone(), true), (draw("a"), one != draw("b")));
    }
}
