//! Gradient-boosted trees on histograms (Friedman 2001; Chen & Guestrin 2016; Ke et al. 2017).

use std::sync::OnceLock;

use serde_json::Value;

use crate::ml::artefact;
use crate::ml::bins::{Binned, Cut, cuts};
use crate::ml::fold::folds;
use crate::ml::grow::{Grower, Job, Leaf, Size};
use crate::ml::model::{Forest, Predictor};
use crate::ml::objective::{Objective, Rounding, Scored, Units};
use crate::ml::parameters::Parameters;
use crate::ml::random::{Purpose, draw, share};
use crate::ml::split::{Monotone, Rules};
use crate::ml::tree::Tree;
use crate::ml::{Control, LearnError, Learned, Learner, Progress, Training, completed, parameters_of};

/// The learner of this name.
pub struct Trees;

impl Learner for Trees {
    fn name(&self) -> &'static str {
        "trees"
    }

    fn parameters(&self, given: &serde_json::Map<String, Value>) -> Result<Value, LearnError> {
        completed(given, Parameters::check)
    }

    fn learn(
        &self,
        training: &Training<'_>,
        parameters: &Value,
        checkpoint: Option<&[u8]>,
        control: &mut dyn Control,
    ) -> Result<Learned, LearnError> {
        training.check()?;
        let parameters = parameters_of(parameters, Parameters::check)?;
        let outputs = training.task.outputs();
        let prior = training.warm.map_or(0, |forest| forest.trees.len() / outputs);
        bounded("trees", (prior + parameters.iterations as usize) * outputs, artefact::MAX_TREES)?;
        let (learn, judge) = folds(training, parameters.validation);
        let data = Data::new(training, &parameters, &learn)?;
        let mut state = State::new(training, &data, learn, judge);
        let from = Prior { iterations: prior as u32, all: prior as u32 + parameters.iterations };
        let known = match (checkpoint, training.warm) {
            (Some(bytes), _) => artefact::read_checkpoint(bytes, data.digest(training, &parameters))
                .and_then(|forest| data.fitting(forest, from))
                .map_err(|problem| LearnError::Checkpoint { problem })?,
            (None, Some(forest)) => {
                data.fitting(forest.clone(), from).map_err(|problem| LearnError::WarmStart { problem })?
            }
            (None, None) => Vec::new(),
        };
        data.boost(&mut state, &parameters, training, (from, known), control)
    }
}

/// Refuses before the model would be more than an artefact may hold: nobody could read it.
fn bounded(what: &'static str, found: usize, limit: usize) -> Result<(), LearnError> {
    if found > limit { Err(LearnError::TooLarge { what, found, limit }) } else { Ok(()) }
}

/// Where boosting begins: a model's iterations are replayed like those of a checkpoint, but no result is judged within them.
#[derive(Clone, Copy)]
struct Prior {
    /// Iterations of the model that learning goes on from.
    iterations: u32,
    /// These and the ones asked for.
    all: u32,
}

/// What stays the same while trees are added.
struct Data {
    cuts: Vec<Cut>,
    binned: Binned,
    objective: Objective,
    monotone: Vec<Monotone>,
    digest: OnceLock<[u8; 32]>,
}

/// What changes.
struct State {
    learn: Vec<u32>,
    judge: Vec<u32>,
    labels: Vec<f64>,
    judge_labels: Vec<f64>,
    scores: Vec<f64>,
    judge_scores: Vec<f64>,
    forest: Forest,
    best: Option<(f64, u32)>,
    /// Loss after the last iteration.
    last: Option<f64>,
}

impl State {
    fn new(training: &Training<'_>, data: &Data, learn: Vec<u32>, judge: Vec<u32>) -> Self {
        let of = |rows: &[u32]| rows.iter().map(|&row| training.labels[row as usize]).collect::<Vec<f64>>();
        let (labels, judge_labels) = (of(&learn), of(&judge));
        let base = match training.warm {
            Some(forest) => forest.base.clone(),
            None => data.objective.base(labels.iter().copied()),
        };
        let start = |rows: usize| base.iter().map(|&base| f64::from(base)).cycle().take(rows * base.len()).collect();
        Self {
            scores: start(learn.len()),
            judge_scores: start(judge.len()),
            forest: Forest { base, trees: Vec::new() },
            best: None,
            last: None,
            learn,
            judge,
            labels,
            judge_labels,
        }
    }

    /// Notes the validation loss; says whether to stop.
    fn judged(&mut self, objective: &Objective, iteration: u32, patience: u32) -> (Option<f64>, bool) {
        if self.judge.is_empty() {
            return (None, false);
        }
        let loss = objective.loss(Scored { scores: &self.judge_scores, labels: &self.judge_labels });
        if self.best.is_none_or(|(best, _)| loss < best) {
            self.best = Some((loss, iteration));
        }
        self.last = Some(loss);
        let since = iteration - self.best.map_or(iteration, |(_, best)| best);
        (Some(loss), patience > 0 && since >= patience)
    }
}

impl Data {
    fn new(training: &Training<'_>, parameters: &Parameters, learn: &[u32]) -> Result<Self, LearnError> {
        if learn.is_empty() {
            return Err(LearnError::Empty);
        }
        let cuts = cuts(training.features, training.threads);
        let weights = parameters.weights(training.task, training.labels)?;
        Ok(Self {
            binned: Binned::of(training.features, &cuts, learn, training.threads),
            objective: Objective::of(training.task, &weights),
            monotone: parameters.monotone(training.features, &cuts)?,
            cuts,
            digest: OnceLock::new(),
        })
    }

    /// The trees of a checkpoint or of a model to go on from, if they are whole iterations of trees over these features.
    fn fitting(&self, forest: Forest, Prior { iterations, all }: Prior) -> Result<Vec<Tree>, String> {
        let outputs = self.objective.outputs();
        let (least, most) = (iterations as usize * outputs, all as usize * outputs);
        if !(least..=most).contains(&forest.trees.len()) || !forest.trees.len().is_multiple_of(outputs) {
            let found = forest.trees.len();
            return Err(format!("{found} trees are not {least} to {most}, {outputs} per iteration"));
        }
        if forest.base.len() != outputs {
            return Err(format!("it has {} outputs, {outputs} are learned", forest.base.len()));
        }
        let categories: Vec<bool> = self.cuts.iter().map(|cut| matches!(cut, Cut::Category(_))).collect();
        forest.trees.iter().try_for_each(|tree| tree.check(&categories)).map_err(str::to_owned)?;
        Ok(forest.trees)
    }

    /// What a checkpoint is bound to: rows, labels, parameters, seed.
    fn digest(&self, training: &Training<'_>, parameters: &Parameters) -> [u8; 32] {
        *self.digest.get_or_init(|| artefact::run_digest(training, parameters, &self.binned, &self.cuts))
    }

    fn boost(
        &self,
        state: &mut State,
        parameters: &Parameters,
        training: &Training<'_>,
        (prior, known): (Prior, Vec<Tree>),
        control: &mut dyn Control,
    ) -> Result<Learned, LearnError> {
        let outputs = self.objective.outputs();
        let size =
            Size { leaves: parameters.leaves as usize, depth: parameters.max_depth as usize, order: parameters.growth };
        let mut round = Round {
            grower: Grower::new(&self.binned, &self.cuts, size, training.threads),
            gradients: vec![vec![0; state.learn.len()]; outputs],
            leaf_of: vec![0; state.learn.len()],
            known: known.into_iter(),
            data: self,
            parameters,
            training,
        };
        let (mut iterations, mut bytes) = (0, 0);
        while iterations < prior.all {
            let grew = round.run(state, iterations);
            iterations += 1;
            let grown = state.forest.trees.len() - outputs;
            bytes += state.forest.trees[grown..].iter().map(artefact::tree_bytes).sum::<usize>();
            bounded("bytes of all trees", bytes, artefact::MAX_BYTES)?;
            if iterations <= prior.iterations {
                continue;
            }
            let (validation_loss, stop) = state.judged(&self.objective, iterations, parameters.patience);
            let iteration = iterations - prior.iterations;
            let progress = Progress { iteration, of: parameters.iterations, validation_loss };
            let replayed = round.known.len() > 0;
            let forest = &state.forest;
            let checkpoint = || artefact::write_checkpoint(forest, self.digest(training, parameters));
            if !replayed && control.after(progress, &checkpoint).is_break() {
                return Err(LearnError::Cancelled { iterations: iteration });
            }
            if stop || !grew {
                break;
            }
        }
        // The loss of what is kept: without patience that is every tree, however the loss once was.
        let mut validation_loss = state.last;
        if parameters.patience > 0
            && let Some((loss, best)) = state.best
        {
            (validation_loss, iterations) = (Some(loss), best);
        }
        let mut forest = std::mem::take(&mut state.forest);
        forest.trees.truncate(iterations as usize * outputs);
        let iterations = iterations - prior.iterations;
        Ok(Learned { predictor: Predictor::Trees(forest), iterations, validation_loss })
    }
}

/// Adds one tree per output, again and again.
struct Round<'a> {
    grower: Grower<'a>,
    gradients: Vec<Vec<u32>>,
    leaf_of: Vec<u16>,
    /// Trees of a checkpoint or an earlier model, which need not be grown again.
    known: std::vec::IntoIter<Tree>,
    data: &'a Data,
    parameters: &'a Parameters,
    training: &'a Training<'a>,
}

impl Round<'_> {
    /// Whether any tree has more than one leaf.
    fn run(&mut self, state: &mut State, iteration: u32) -> bool {
        let outputs = self.gradients.len();
        let mut grew = false;
        let mut units = None;
        for output in 0..outputs {
            let tree = if let Some(tree) = self.known.next() {
                add(self.training, &tree, &state.learn, None, &mut state.scores, (output, outputs));
                tree
            } else {
                let units = *units.get_or_insert_with(|| self.gradients(state, iteration));
                let tree = self.grow(state, units, iteration, output);
                let leaf_of = Some(&self.leaf_of[..]);
                add(self.training, &tree, &state.learn, leaf_of, &mut state.scores, (output, outputs));
                tree
            };
            add(self.training, &tree, &state.judge, None, &mut state.judge_scores, (output, outputs));
            grew |= tree.leaves.len() > 1;
            state.forest.trees.push(tree);
        }
        grew
    }

    fn gradients(&mut self, state: &State, iteration: u32) -> Units {
        let rows = Scored { scores: &state.scores, labels: &state.labels };
        let rounding = Rounding { seed: self.training.seed, step: iteration };
        self.data.objective.gradients(rows, rounding, self.training.threads, &mut self.gradients)
    }

    fn grow(&mut self, state: &State, units: Units, iteration: u32, output: usize) -> Tree {
        let step = iteration * self.gradients.len() as u32 + output as u32;
        let allowed = self.columns(step);
        let rules = self.rules(units);
        let limit = share(self.parameters.row_sample);
        let (seed, keys) = (self.training.seed, self.training.row_keys);
        // One sample serves all outputs of an iteration.
        let sampled = |row: u32| draw(seed, Purpose::Rows, iteration, keys[state.learn[row as usize] as usize]) < limit;
        // For numbers the gradients are summed again, finer: their unit depends on the worst outlier.
        let unit = finer(units);
        let residual = |row: u32| ((state.scores[row as usize] - state.labels[row as usize]) / unit) as i64;
        let job = Job {
            gradients: &self.gradients[output],
            rules: &rules,
            allowed: &allowed,
            sampled: (self.parameters.row_sample < 1.0).then_some(&sampled),
            residual: (self.data.objective == Objective::Squared).then_some(&residual),
        };
        let (mut tree, leaves) = self.grower.grow(&job, &mut self.leaf_of);
        for (value, leaf) in tree.leaves.iter_mut().zip(&leaves) {
            *value = (self.value(units, &rules, leaf) * self.parameters.learning_rate) as f32 + 0.0;
        }
        tree
    }

    fn value(&self, units: Units, rules: &Rules, leaf: &Leaf) -> f64 {
        if self.data.objective != Objective::Squared {
            return rules.value(leaf.sums, leaf.lambda, leaf.bounds);
        }
        if leaf.rows == 0 {
            return 0.0; // an empty sample says nothing, and without regularisation 0/0
        }
        let value = -(leaf.residual as f64 * finer(units)) / (leaf.rows as f64 + leaf.lambda);
        value.clamp(leaf.bounds.low, leaf.bounds.high)
    }

    fn columns(&self, step: u32) -> Vec<bool> {
        let width = self.data.cuts.len();
        let keep = ((width as f64 * self.parameters.column_sample).ceil() as usize).clamp(1, width);
        let mut order: Vec<usize> = (0..width).collect();
        if keep < width {
            order.sort_by_cached_key(|&column| draw(self.training.seed, Purpose::Columns, step, column as u64));
        }
        let mut allowed = vec![false; width];
        order[..keep].iter().for_each(|&column| allowed[column] = true);
        allowed
    }

    fn rules(&self, units: Units) -> Rules {
        let p = self.parameters;
        Rules {
            lambda: p.lambda,
            min_gain: p.min_gain,
            min_hessian: p.min_hessian,
            min_rows: p.min_rows,
            rows_per_hessian: 1.0,
            category_smooth: p.category_smooth,
            category_lambda: p.category_lambda,
            category_rows: p.category_rows,
            category_set: p.category_set as usize,
            monotone: self.data.monotone.clone(),
            gradient_unit: units.gradient,
            hessian_unit: units.hessian,
        }
    }
}

/// The unit in which a leaf's residuals are summed.
fn finer(units: Units) -> f64 {
    units.gradient / f64::from(1 << 25)
}

/// Adds what `tree` says about these rows to their scores. `leaf_of` may know their leaves already.
fn add(
    training: &Training<'_>,
    tree: &Tree,
    rows: &[u32],
    leaf_of: Option<&[u16]>,
    scores: &mut [f64],
    (output, outputs): (usize, usize),
) {
    let columns = &training.features.columns;
    let values: Vec<f64> = tree.leaves.iter().map(|&leaf| f64::from(leaf)).collect();
    let block = rows.len().div_ceil(training.threads.max(1)).max(1024);
    let one = |first: usize, scores: &mut [f64]| {
        let count = scores.len() / outputs;
        let scores = scores.iter_mut().skip(output).step_by(outputs);
        let find = |row: u32| tree.leaf(|feature| columns[feature].values[row as usize]);
        let rows = &rows[first..first + count];
        match leaf_of.map(|leaf_of| &leaf_of[first..first + count]) {
            None => scores.zip(rows).for_each(|(score, &row)| *score += values[find(row)]),
            Some(leaf_of) => scores.zip(leaf_of.iter().zip(rows)).for_each(|(score, (&leaf, &row))| {
                *score += match values.get(usize::from(leaf)) {
                    Some(value) => *value,
                    None => values[find(row)], // not in the sample
                };
            }),
        }
    };
    std::thread::scope(|scope| {
        let mut blocks = scores.chunks_mut(block * outputs).enumerate();
        let own = blocks.next();
        for (i, scores) in blocks {
            let one = &one;
            scope.spawn(move || one(i * block, scores));
        }
        if let Some((_, scores)) = own {
            one(0, scores);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_iterations_that_judge_alike_the_first_is_the_best() {
        let objective = Objective::Binary([1.0; 2]);
        let mut state = State {
            learn: Vec::new(),
            judge: vec![0],
            labels: Vec::new(),
            judge_labels: vec![1.0],
            scores: Vec::new(),
            judge_scores: vec![0.0],
            forest: Forest::default(),
            best: None,
            last: None,
        };
        let stops = [1, 2, 3].map(|iteration| state.judged(&objective, iteration, 2).1);
        assert_eq!((stops, state.best.map(|(_, best)| best)), ([false, false, true], Some(1)));
    }
}
