//! The game: small trainings of coalitions, measured on sealed rows, and what follows for its players.
//!
//! ```text
//! dataset, with owners ──► players ──► rows of the game, per seed ──► models of coalitions ──► utilities ──► values, errors
//! baseline's rows, whole ──► control, if the recipe is another ──► delta against it ──► lower bound ──► shares, or why none
//! ```
//!
//! The same case gives the same game on every machine: seeds come from the evaluation's id and from the candidate's seed.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use arrow::array::{RecordBatch, UInt64Array};
use arrow::compute::{concat_batches, take_record_batch};
use serde_json::Value;

use super::case::Case;
use super::outcome::{Played, conclude};
use super::rows::{Ends, Owned, drawn, owned, proportions};
use super::screen::screened;
use super::work::Desk;
use crate::domain::contract::Spec;
use crate::domain::contract::attribution::GameSize;
use crate::domain::records::{Artefact, Dataset as Named};
use crate::ml::arrow::frame_of;
use crate::ml::artefact::{self, MAX_BYTES};
use crate::ml::declare::{Declaration, declaration};
use crate::ml::frame::Frame;
use crate::ml::model::Model;
use crate::ml::{Control, Progress};
use crate::rowsql::features;
use crate::rowsql::measure::Measures;
use crate::sealing::vault;
use crate::stages::beside::{Refusal, Trouble, persist};
use crate::stages::evaluation::columns::{Columns, UNDEFINED, columns, frame, quanta};
use crate::stages::evaluation::plan::{Plan as Compared, plan as compared};
use crate::stages::training::learn::{Way, encode, fit};
use crate::stages::training::outside::{WayBack, fill};
use crate::stats::attribution::game::{Coalition, Plan, Shapley, Utilities, leave_one_out};
use crate::stats::attribution::screening::{Contributor, Player, players};
use crate::stats::attribution::uncertainty::{RowValues, sampling_variance};
use crate::stats::attribution::utility::{Measure, Said, Utility};
use crate::stats::compare::{Comparison, compare};
use crate::stats::fixed::{MICRO, quantise};
use crate::stats::metric::Metric;
use crate::stats::random::Seed;
use crate::stats::rows::PairedRows;

/// Players with the largest values whose leaving is looked at alone.
const LEAVERS: usize = 5;

pub(super) fn refuse<T>(code: &'static str, detail: impl std::fmt::Display) -> Result<T, Option<Refusal>> {
    Err(Some(Refusal::new(code, detail)))
}

pub(super) fn refused(code: &'static str) -> impl Fn(&dyn std::fmt::Display) -> Option<Refusal> {
    move |detail| Some(Refusal::new(code, detail))
}

/// Plays the game of a case.
///
/// # Errors
/// Why it cannot be played; none when nobody wants it any more.
pub fn play(desk: &Desk, case: &Case, stopped: &dyn Fn() -> bool) -> Result<Played, Option<Refusal>> {
    let table = Table { desk, case, stopped };
    let spec = Spec::from_canonical_json(&case.spec).map_err(|e| refused("BAD_CONTRACT")(&e))?;
    let mut declared = declaration(&spec).map_err(|e| refused("BAD_CONTRACT")(&e))?;
    table.try_again(|| fill(&*desk.trainer, &mut declared))?;
    let how = compared(&spec, &case.benchmark).map_err(Some)?;
    let size = spec.attribution.unwrap_or_default().size();
    let owned = table.owned(&declared)?;
    let sealed = table.sealed()?;
    crate::failpoint!("attribution.playing");
    let board = Board::of(&table, &declared, &sealed, size)?;
    let players = table.players(&owned, &board, &declared, size)?;
    let groups = owned.by_player(&players);
    if groups.first().is_none_or(Vec::is_empty) {
        let text = "the candidate learned from no row that the baseline has: there is nothing to begin the game with";
        return refuse("NO_BASE_ROWS", text);
    }
    let game = Game {
        plan: Plan::new(players.len(), size.trainings, table.seed("attribution orders"))
            .map_err(|e| refused("BAD_CONTRACT")(&e))?,
        counts: proportions(&groups, size.rows),
        owned: &owned,
        groups: &groups,
        table: &table,
        declared: &declared,
        board: &board,
        how: &how,
        gain: Gain::of_primary(&spec, &how)?,
        seeds: (0..i64::from(size.seeds)).map(|number| case.seed.wrapping_add(number)).collect(),
    };
    let score = game.play()?;
    let (comparator, comparison) = table.control(&game, &spec, &sealed)?;
    conclude(&game, players, score, comparator, &comparison)
}

/// The case, and what it is played with.
pub(super) struct Table<'a> {
    desk: &'a Desk,
    pub(super) case: &'a Case,
    stopped: &'a dyn Fn() -> bool,
}

impl Table<'_> {
    fn try_again<T>(&self, attempt: impl FnMut() -> Result<T, Trouble>) -> Result<T, Option<Refusal>> {
        persist(self.stopped, &format_args!("attribution of {}", self.case.evaluation.evaluation_id), attempt)
    }

    fn seed(&self, purpose: &str) -> Seed {
        Seed::derive(purpose, self.case.evaluation.evaluation_id.as_bytes())
    }

    fn blob(&self, artefact: &Artefact, most: u64, code: &'static str) -> Result<bytes::Bytes, Option<Refusal>> {
        self.try_again(|| self.desk.blobs.blob(artefact, most, code))
    }

    fn way(&self, digest: &str) -> Result<WayBack, Option<Refusal>> {
        match self.try_again(|| self.desk.trainer.published(&self.case.evaluation.model, digest))? {
            Some(way) => Ok(way),
            None => refuse("UNKNOWN_DATASET", format!("the dataset {digest} is not published in the store any more")),
        }
    }

    /// The candidate's rows, with their owners.
    fn owned(&self, declared: &Declaration) -> Result<Owned, Option<Refusal>> {
        let (own, base) = (self.way(&self.case.dataset)?, self.way(&self.case.base_dataset)?);
        let filter = |artefact| self.try_again(|| self.desk.trainer.filter(artefact));
        let sealed = own.sealed.iter().map(filter).collect::<Result<Vec<_>, _>>()?;
        let ends = Ends { own: &own.ends, base: &base.ends };
        let model = &self.case.evaluation.model;
        let found = self.try_again(|| owned(self.desk, model, declared, ends, &sealed, self.stopped))?;
        if found.root != self.case.dataset {
            let text = "the rows below the published ends have another digest now; help: restore the topics";
            return refuse("DATASET_CHANGED", text);
        }
        Ok(found)
    }

    fn sealed(&self) -> Result<Vec<RecordBatch>, Option<Refusal>> {
        let Case { benchmark, .. } = self.case;
        let blob = self.blob(&benchmark.sealed_rows, vault::MAX_BLOB, "BENCHMARK_MISSING")?;
        let rows = vault::open(&blob, benchmark, &self.desk.key, self.desk.keys.ring().tree_key());
        rows.map_err(|e| refused("BENCHMARK_DAMAGED")(&e))
    }

    /// Who plays alone and who together.
    fn players(
        &self,
        owned: &Owned,
        board: &Board,
        declared: &Declaration,
        size: GameSize,
    ) -> Result<Vec<Player>, Option<Refusal>> {
        if owned.owners.is_empty() {
            let text = "the candidate learned from no row that the baseline does not have: its improvement is nobody's";
            return refuse("NO_PLAYERS", text);
        }
        let seed = self.seed("attribution screening");
        let values = match owned.owners.len() > size.players {
            true => screened(owned, board.rows.clone(), declared, seed).map_err(Some)?,
            false => vec![0.0; owned.owners.len()],
        };
        let contributors = owned.owners.iter().zip(values).map(|(owner, value)| Contributor {
            id: owner.name.clone(),
            rows: owner.rows,
            value,
        });
        Ok(players(contributors.collect(), size.players))
    }

    /// What the candidate is compared with on the whole benchmark: the baseline, or its own recipe on the baseline's rows.
    fn control(
        &self,
        game: &Game<'_>,
        spec: &Spec,
        sealed: &[RecordBatch],
    ) -> Result<(String, Comparison), Option<Refusal>> {
        let most = MAX_BYTES as u64;
        let candidate = self.blob(&self.case.candidate, most, "CANDIDATE_MISSING")?;
        let comparator = if self.case.same_recipe {
            self.blob(&self.case.baseline, most, "BASELINE_MISSING")?.to_vec()
        } else {
            let base = game.groups.first().map(Vec::as_slice).unwrap_or_default();
            game.model(base, self.case.seed)?.to_bytes()
        };
        let digest = data_encoding::HEXLOWER.encode(&artefact::digest(&comparator));
        let columns = columns(spec, game.how, &self.case.benchmark.strata, sealed, (&comparator, &candidate));
        let columns = columns.map_err(Some)?;
        let Columns { frame, labels, baseline, candidate, custom, .. } = columns;
        let places = vec![0; labels.len()];
        let rows = PairedRows::with_extras(frame, labels, baseline, candidate, custom, places);
        let unfit = "labels or scores of the whole benchmark cannot be compared";
        let rows = rows.map_err(|_| refused("SCORES_UNUSABLE")(&unfit))?;
        let comparison = compare(&rows, &game.how.declared.primary).map_err(|e| refused("SCORES_UNUSABLE")(&e))?;
        Ok((digest, comparison))
    }
}

/// The benchmark rows of the game.
pub(super) struct Board {
    /// Them, with all columns.
    rows: RecordBatch,
    features: Frame,
    pub(super) labels: Vec<i64>,
}

impl Board {
    fn of(
        table: &Table<'_>,
        declared: &Declaration,
        sealed: &[RecordBatch],
        size: GameSize,
    ) -> Result<Self, Option<Refusal>> {
        let damaged = refused("BENCHMARK_DAMAGED");
        let Some(first) = sealed.first() else { return refuse("BENCHMARK_DAMAGED", "the benchmark has no rows") };
        let mut rows = concat_batches(&first.schema(), sealed).map_err(|e| damaged(&e))?;
        if rows.num_rows() > size.benchmark_rows {
            let mut places: Vec<u64> = (0..rows.num_rows() as u64).collect();
            table.seed("attribution benchmark").stream(0).shuffle(&mut places);
            places.truncate(size.benchmark_rows);
            places.sort_unstable();
            rows = take_record_batch(&rows, &UInt64Array::from(places)).map_err(|e| damaged(&e))?;
        }
        // The texts of the engine repeat no value, and sealed rows have no place.
        let rows =
            features::derive(&declared.derivation, rows).map_err(|e| refused("BENCHMARK_UNFIT")(&e.without_place()))?;
        let batch = std::slice::from_ref(&rows);
        let labels = quanta(batch, &declared.label, &declared.task).map_err(Some)?;
        // The texts of the library may repeat a value, and rows are sealed.
        let unfit = "the sealed rows lack columns of the candidate's contract; help: seal rows of the present contract";
        let features = frame_of(batch, &declared.features).map_err(|_| refused("BENCHMARK_UNFIT")(&unfit))?;
        Ok(Self { rows, features, labels })
    }
}

/// Stops a learner that nobody waits for any more.
struct Stop<'a>(&'a dyn Fn() -> bool);

impl Control for Stop<'_> {
    fn after(&mut self, _progress: Progress, _checkpoint: &dyn Fn() -> Vec<u8>) -> ControlFlow<()> {
        if (self.0)() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// A game with everything that is declared of it.
pub(super) struct Game<'a> {
    pub(super) plan: Plan,
    /// Rows of each group that play.
    pub(super) counts: Vec<usize>,
    pub(super) owned: &'a Owned,
    /// Rows by owner: nobody's, then by player.
    groups: &'a [Vec<u32>],
    pub(super) table: &'a Table<'a>,
    declared: &'a Declaration,
    pub(super) board: &'a Board,
    how: &'a Compared,
    /// The primary metric, if the contract declares it itself.
    gain: Option<Gain>,
    pub(super) seeds: Vec<i64>,
}

/// What a coalition's model says of the game's benchmark rows.
struct Outputs {
    /// Scores in quanta.
    scores: Vec<i64>,
    /// See [`Said::gains`].
    gains: Option<Vec<i64>>,
}

impl Outputs {
    fn said(&self) -> Said<'_> {
        Said { scores: &self.scores, gains: self.gains.as_deref() }
    }
}

/// A primary metric that the contract declares itself.
struct Gain {
    measures: Measures,
    place: usize,
    sign: i64,
}

impl Gain {
    fn of_primary(spec: &Spec, how: &Compared) -> Result<Option<Self>, Option<Refusal>> {
        let Metric::Custom(place) = how.declared.primary else { return Ok(None) };
        let measures = Measures::compile(spec).map_err(|e| refused("BAD_CONTRACT")(&e))?;
        let higher = how.declared.custom.get(place).is_some_and(|own| own.higher_is_better);
        Ok(measures.map(|measures| Self { measures, place, sign: if higher { 1 } else { -1 } }))
    }

    fn of(&self, board: &Board, scores: &[i64]) -> Result<Vec<i64>, Option<Refusal>> {
        let values = self.measures.values_of(self.place, &board.rows, &board.labels, scores);
        let values = values.map_err(|e| refused(UNDEFINED)(&e))?;
        Ok(values.into_iter().map(|value| self.sign * value).collect())
    }
}

/// What one seed gave.
pub(super) struct Round {
    /// Rows that play, by group.
    rows: Vec<Vec<u32>>,
    pub(super) utilities: Utilities,
    /// Variance of each player's value: sampling of orders and choice of benchmark rows.
    pub(super) within: Vec<f64>,
}

/// What all seeds gave.
pub(super) struct Score {
    pub(super) rounds: Vec<Round>,
    pub(super) total: Utilities,
    pub(super) values: Shapley,
    pub(super) leaving: BTreeMap<usize, i128>,
}

impl Game<'_> {
    /// The candidate's recipe on these rows, which must ascend.
    fn model(&self, places: &[u32], seed: i64) -> Result<Model, Option<Refusal>> {
        let (rows, keys) = self.owned.pick(places).map_err(Some)?;
        let prepared = encode(self.declared, Named::default(), rows, keys).map_err(Some)?;
        let case = self.table.case;
        let parameters: Value = serde_json::from_str(&case.parameters).map_err(|e| refused("BAD_PARAMETER")(&e))?;
        let way = Way {
            algorithm: &case.algorithm,
            parameters: &parameters,
            seed: seed.cast_unsigned(),
            threads: self.table.desk.limits.threads,
        };
        let id = case.evaluation.evaluation_id.as_str();
        let fitted = fit(&prepared, &self.declared.task, &way, (id, None), &mut Stop(self.table.stopped));
        let fitted = fitted.map_err(Some)?.ok_or(None)?;
        metrics::counter!("hokusai_attribution_trainings_total").increment(1);
        Ok(prepared.model(&self.declared.task, fitted.learned.predictor))
    }

    /// What a coalition's model says of the game's benchmark rows.
    fn outputs(&self, rows: &[Vec<u32>], coalition: Coalition, seed: i64) -> Result<Outputs, Option<Refusal>> {
        let mut places: Vec<u32> = rows
            .iter()
            .enumerate()
            .filter(|(group, _)| *group == 0 || coalition >> (group - 1) & 1 == 1)
            .flat_map(|(_, own)| own.iter().copied())
            .collect();
        places.sort_unstable();
        let model = self.model(&places, seed)?;
        let unfit = "a coalition's model gives a score that is no finite number";
        let scores = model.predict(&self.board.features).map_err(|e| refused("BENCHMARK_UNFIT")(&e))?;
        let quanta = scores.into_iter().map(|score| quantise(score, MICRO)).collect::<Result<Vec<_>, _>>();
        let scores = quanta.map_err(|_| refused("SCORES_UNUSABLE")(&unfit))?;
        let gains = self.gain.as_ref().map(|gain| gain.of(self.board, &scores)).transpose()?;
        Ok(Outputs { scores, gains })
    }

    fn play(&self) -> Result<Score, Option<Refusal>> {
        let unusable = |e: &dyn std::fmt::Display| refused("SCORES_UNUSABLE")(e);
        let mut measure: Option<Measure> = None;
        let mut rounds = Vec::with_capacity(self.seeds.len());
        for (number, seed) in (0_u64..).zip(&self.seeds) {
            let draw = self.table.seed(&format!("attribution rows {number}"));
            let rows = drawn(self.groups, &self.counts, draw);
            let nobody = self.outputs(&rows, 0, *seed)?;
            let measure = match &mut measure {
                Some(measure) => measure,
                none => {
                    let (metric, task) = (&self.how.declared.primary, frame(&self.declared.task));
                    let first = Measure::new(metric, task, self.board.labels.clone(), nobody.said());
                    none.insert(first.map_err(|e| unusable(&e))?)
                }
            };
            rounds.push(self.round(measure, rows, &nobody, *seed)?);
        }
        let Some(measure) = measure else { return refuse("BAD_CONTRACT", "the game has no seed") };
        let unplayed = |e| refused("BAD_CONTRACT")(&e);
        let mut total = sum(&rounds, measure.denominator());
        let values = self.plan.shapley(&total).map_err(unplayed)?;
        let leaving = self.leaving(&measure, &mut rounds, &mut total, &values)?;
        Ok(Score { rounds, total, values, leaving })
    }

    /// All coalitions of the plan under one seed.
    fn round(
        &self,
        measure: &Measure,
        rows: Vec<Vec<u32>>,
        nobody: &Outputs,
        seed: i64,
    ) -> Result<Round, Option<Refusal>> {
        let unusable = |e: &dyn std::fmt::Display| refused("SCORES_UNUSABLE")(e);
        let mut gathered: Vec<RowValues<'_>> =
            measure.groups().iter().map(|rows| RowValues::new(&self.plan, *rows)).collect();
        let mut utilities = Utilities { denominator: measure.denominator(), values: BTreeMap::new() };
        for coalition in self.plan.coalitions() {
            let own;
            let outputs = if coalition == 0 {
                nobody
            } else {
                own = self.outputs(&rows, coalition, seed)?;
                &own
            };
            let Utility { numerator, groups } = measure.of(outputs.said()).map_err(|e| unusable(&e))?;
            utilities.values.insert(coalition, numerator);
            gathered.iter_mut().zip(&groups).for_each(|(sums, own)| sums.add(coalition, own));
        }
        let benchmark = measure.variances(&gathered).map_err(|e| unusable(&e))?;
        let sampling = sampling_variance(&self.plan, &utilities).map_err(|e| unusable(&e))?;
        let within = sampling.into_iter().zip(benchmark).map(|(a, b)| a + b).collect();
        Ok(Round { rows, utilities, within })
    }

    /// What is lost when one of the players with the largest values leaves; what the plan did not train is trained now.
    fn leaving(
        &self,
        measure: &Measure,
        rounds: &mut [Round],
        total: &mut Utilities,
        values: &Shapley,
    ) -> Result<BTreeMap<usize, i128>, Option<Refusal>> {
        let unusable = |e: &dyn std::fmt::Display| refused("SCORES_UNUSABLE")(e);
        let players = self.plan.players();
        let mut largest: Vec<usize> = (0..players).collect();
        largest.sort_by_key(|player| (std::cmp::Reverse(values.values.get(*player).copied()), *player));
        largest.truncate(LEAVERS);
        let all: Coalition = (1 << players) - 1;
        for player in &largest {
            let without = all & !(1 << player);
            for (round, seed) in rounds.iter_mut().zip(&self.seeds) {
                if !round.utilities.values.contains_key(&without) {
                    let outputs = self.outputs(&round.rows, without, *seed)?;
                    let own = measure.of(outputs.said()).map_err(|e| unusable(&e))?;
                    round.utilities.values.insert(without, own.numerator);
                }
            }
        }
        *total = sum(rounds, measure.denominator());
        // Players that are not asked about leave nothing behind.
        let mut asked = total.clone();
        let full = asked.values.get(&all).copied().unwrap_or(0);
        for player in 0..players {
            asked.values.entry(all & !(1 << player)).or_insert(full);
        }
        let lost = leave_one_out(players, &asked).map_err(|e| unusable(&e))?;
        let divisor = self.plan.divisor();
        Ok(largest.into_iter().filter_map(|player| Some((player, lost.get(player)?.checked_mul(divisor)?))).collect())
    }
}

/// Utilities over all seeds: one game, whose values are the mean of the seeds'.
fn sum(rounds: &[Round], denominator: i128) -> Utilities {
    let mut values = BTreeMap::new();
    for (coalition, own) in rounds.iter().flat_map(|round| &round.utilities.values) {
        *values.entry(*coalition).or_insert(0) += own;
    }
    Utilities { denominator: denominator.saturating_mul(rounds.len() as i128), values }
}
