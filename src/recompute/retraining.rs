//! Level 3: training rows and recipe → the candidate's artefact, byte for byte.
//!
//! A row's hash is keyed, so nobody but the tenant can tell whether its values belong to it. That they are the values which were learned
//! from is shown by the model's digest: others give another model, unless the learner cannot tell them apart.

use std::ops::ControlFlow;

use serde_json::Map;

use super::bound::{Bound, of_digest};
use super::folder::{BASELINE, CANDIDATE, Inputs, RECEIPTS, RECIPE, RecipeFile, TRAINING, salt};
use super::{Mismatch, With, artefact, recomputed, search};
use crate::attest::evaluation::Outcome as Told;
use crate::attest::tree::{CompactRange, Hash};
use crate::codec::ipc;
use crate::domain::records::{Artefact, TrainingRun};
use crate::ml::declare::{Declaration, declaration};
use crate::ml::derivation::Derivation;
use crate::ml::model::Model;
use crate::ml::{Control, Progress, learner};
use crate::stages::training::admission::Open;
use crate::stages::training::learn::{learn, prepare, recipe_digest};
use crate::stages::training::rows::{Limits, Rows};
use crate::stages::training::searching;
use crate::stages::training::warm;

/// Bytes of training rows, decoded.
const MAX_DECODED: usize = 4 << 30;

/// Shows training rows and recipe to be those that are bound, learns again, and says what was done.
///
/// # Errors
/// Rows or a recipe that are not those of the statement (15), another model (16).
pub fn recompute(inputs: &Inputs, told: &Told, bound: &Bound, with: &With<'_>) -> Result<String, Mismatch> {
    let Some(root) = &told.candidate.dataset_root else {
        return Err(artefact("the statement names no dataset: there is nothing to learn again from"));
    };
    let mut declared = declaration(&bound.spec).map_err(artefact)?;
    tables(&mut declared.derivation, inputs, told)?;
    let open = opened(&inputs.read(RECIPE)?, bound)?;
    (with.tell)("level 3: training rows", 0, 1);
    let bytes = inputs.read(TRAINING)?;
    // More rows than are bound are not decoded.
    let bound_rows = told.candidate.dataset_rows.and_then(|rows| usize::try_from(rows).ok()).unwrap_or(usize::MAX);
    let limits = ipc::Limits { rows: Limits::default().rows.min(bound_rows), bytes: MAX_DECODED };
    let batch = ipc::read(&bytes, limits).map_err(|e| artefact(format!("{TRAINING}: {e}")))?;
    drop(bytes);
    let behind = receipts(inputs, told, with)?;
    let rows = Rows { batches: vec![batch], contributions: 0, receipts: Vec::new() };
    let from = before(&open, &declared, inputs, told)?;
    let rows = prepare(&declared, rows, from).map_err(|e| artefact(format!("{TRAINING}: {}: {}", e.code, e.detail)))?;
    if rows.named.digest != *root || Some(rows.named.rows) != told.candidate.dataset_rows {
        let (found, said) = (&rows.named.digest, root);
        return Err(artefact(format!(
            "{TRAINING}: {} rows of root {found}; the statement names {said}",
            rows.named.rows
        )));
    }
    let digest = recipe_digest(&open, &declared, &rows.named)
        .map_err(|e| artefact(format!("{RECIPE}: {}: {}", e.code, e.detail)))?;
    if digest != told.candidate.recipe_digest {
        let said = &told.candidate.recipe_digest;
        return Err(artefact(format!("{RECIPE}: its digest is {digest}; the statement names {said}")));
    }
    let searched = search::recompute(&open, &rows, &declared.task, with)?;
    let made = learn(&open, &declared, &rows, with.threads, None, &mut Telling(with))
        .map_err(|e| recomputed(format!("nothing could be learned: {}: {}", e.code, e.detail)))?
        .ok_or_else(|| recomputed("learning was interrupted"))?;
    if made.digest != told.candidate.digest {
        let said = &told.candidate.digest;
        return Err(recomputed(format!("learning again gives the model {}; the statement names {said}", made.digest)));
    }
    let search = searched.map(|trials| format!("; {trials} trials say that its parameters won the search"));
    Ok(format!(
        "{} training rows and the recipe give the candidate's {} bytes again; whether each row's values belong to its keyed hash only \
         the tenant can tell{}; {behind}",
        rows.named.rows,
        made.size,
        search.unwrap_or_default()
    ))
}

/// Shows the receipts behind the rows to be those that are bound, and, with a log, to stand in it; says what was done.
fn receipts(inputs: &Inputs, told: &Told, with: &With<'_>) -> Result<String, Mismatch> {
    let Some(said) = &told.candidate.receipts else {
        return Ok("which contributions the rows come from is not bound: NOT CHECKED".to_owned());
    };
    if !inputs.has(RECEIPTS) {
        return Ok(format!("the {} receipts behind the rows are not among the inputs: NOT CHECKED", said.count));
    }
    let wrong = |what: &str| artefact(format!("{RECEIPTS}: {what}"));
    let count = u64::try_from(said.count).map_err(|_| wrong("the statement binds a number of receipts below 0"))?;
    let (mut tree, mut last) = (CompactRange::new(), None);
    let mut missing = 0_u64;
    inputs.lines(RECEIPTS, count, &mut |_, hex: String| {
        let leaf: Hash = salt(&hex).map_err(|_| wrong("a line that is no leaf hash"))?;
        if last.replace(leaf).is_some_and(|last| last >= leaf) {
            return Err(wrong("its lines are not sorted, or one stands twice"));
        }
        tree.push(leaf);
        missing += u64::from(with.receipts.is_some_and(|log| !log.contains(&leaf)));
        Ok(())
    })?;
    if data_encoding::HEXLOWER.encode(&tree.root()) != said.root {
        return Err(wrong("their root is not the statement's"));
    }
    match with.receipts {
        _ if missing > 0 => Err(Mismatch {
            code: 17,
            detail: format!("{missing} of the {count} receipts behind the training rows do not stand in the log"),
        }),
        Some(_) => Ok(format!("the {count} receipts behind them stand in the log")),
        None => Ok(format!(
            "the {count} receipts behind them are those that are bound; without --log that they are attested is NOT CHECKED"
        )),
    }
}

/// Reference tables stand in the candidate's artefact, which is bound by its digest, and are bound by theirs.
fn tables(derivation: &mut Derivation, inputs: &Inputs, told: &Told) -> Result<(), Mismatch> {
    if derivation.tables.is_empty() {
        return Ok(());
    }
    let candidate = Model::from_bytes(&of_digest(inputs, CANDIDATE, &told.candidate.digest)?)
        .map_err(|e| artefact(format!("{CANDIDATE}: {e}")))?;
    for table in &mut derivation.tables {
        let known = candidate.encoding.derivation.tables.iter().find(|known| known.digest == table.digest);
        if !known.is_some_and(|known| Derivation::fill(table, &known.bytes)) {
            return Err(artefact(format!("{CANDIDATE}: it does not hold the reference table `{}`", table.name)));
        }
    }
    Ok(())
}

/// The model that learning went on from: with a warm start it is the baseline.
fn before(open: &Open, declared: &Declaration, inputs: &Inputs, told: &Told) -> Result<Option<Model>, Mismatch> {
    let Some(from) = &open.warm else { return Ok(None) };
    if from.digest != told.baseline.digest {
        return Err(artefact(format!("{RECIPE}: it goes on from a model that is not the statement's baseline")));
    }
    let model = warm::read(&of_digest(inputs, BASELINE, &from.digest)?, &declared.task);
    model.map(Some).map_err(|e| artefact(format!("{BASELINE}: {}", e.detail)))
}

/// The run that a recipe describes. The learner looks at its parameters as when a run is admitted: they come from outside.
fn opened(text: &[u8], bound: &Bound) -> Result<Open, Mismatch> {
    let wrong = |detail: &dyn std::fmt::Display| artefact(format!("{RECIPE}: {detail}"));
    let recipe: RecipeFile = serde_json::from_slice(text).map_err(|e| wrong(&e))?;
    let learner = learner(&recipe.algorithm).map_err(|e| wrong(&e))?;
    let complete = |given| learner.parameters(given).map_err(|e| wrong(&e));
    let mut given = recipe.parameters.clone();
    let from = given.remove(warm::PARAMETER).and_then(|digest| digest.as_str().map(str::to_owned));
    let parameters = warm::joined(complete(&given)?, from.as_deref()).to_string();
    let searching = match &recipe.search {
        None => None,
        Some(_) if from.is_some() => return Err(wrong(&"the trials of a search start from scratch")),
        Some(search) => {
            let (declared, fixed) = (search.declared.to_string(), complete(&search.fixed)?);
            let begun = searching::begin(&declared, learner, &Map::new(), &fixed, recipe.seed);
            Some(begun.map_err(|e| wrong(&e.detail))?)
        }
    };
    let run = TrainingRun {
        run_id: bound.case.attempt.run_id.clone(),
        model: bound.case.attempt.model.clone(),
        algorithm: recipe.algorithm,
        seed: recipe.seed,
        base_version: recipe.base_version,
        ..TrainingRun::default()
    };
    Ok(Open {
        run,
        parameters,
        budget: None,
        as_of: None,
        spec: bound.case.spec.clone(),
        evaluation: None,
        sealed: Vec::new(),
        begun: 0,
        searching,
        external: None,
        warm: from.map(|digest| Artefact { digest, ..Artefact::default() }),
    })
}

/// Tells how far learning has come.
struct Telling<'a, 'b>(&'a With<'b>);

impl Control for Telling<'_, '_> {
    fn after(&mut self, progress: Progress, _: &dyn Fn() -> Vec<u8>) -> ControlFlow<()> {
        (self.0.tell)("level 3: learning", u64::from(progress.iteration), u64::from(progress.of));
        ControlFlow::Continue(())
    }
}
