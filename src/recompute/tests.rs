//! Every level against inputs as they are and against inputs in which something was changed, by a hand that also mends the manifest.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, FixedSizeBinaryArray, Float64Array, RecordBatch, StringArray};
use serde_json::{Map, Value, json};

use super::folder::*;
use super::write::{Disclosed, Learned, write};
use super::*;
use crate::attest::statement::Statement;
use crate::codec::ipc::{self, Compression};
use crate::domain::records::{Evaluation, EvaluationRequest, TrainingRun};
use crate::ml::dataset::{Dataset, ROW_HASH};
use crate::ml::declare::declaration;
use crate::ml::{Unattended, learner};
use crate::stages::evaluation::kept;
use crate::stages::evaluation::score::Blobs;
use crate::stages::evaluation::tests::world::*;
use crate::stages::training::admission::Open;
use crate::stages::training::learn::{Made, learn, prepare};
use crate::stages::training::rows::Rows;
use crate::stages::training::searching;

/// The world's training rows, as a dataset holds them.
fn training() -> RecordBatch {
    let rows: Vec<Value> = (10_000..10_400).map(row).collect();
    let hashes: Vec<[u8; 16]> =
        (0..400_u128).map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835).to_be_bytes()).collect();
    let text = |name: &str| {
        let cell = |row: &Value| row[name].as_str().map_or_else(|| row[name].to_string(), str::to_owned);
        Arc::new(rows.iter().map(|row| Some(cell(row))).collect::<StringArray>()) as ArrayRef
    };
    let x = rows.iter().map(|row| row["x"].as_f64()).collect::<Float64Array>();
    let hashes = FixedSizeBinaryArray::try_from_iter(hashes.iter()).unwrap();
    let half = rows.iter().map(|row| row["half"].as_f64()).collect::<Float64Array>();
    let batch = RecordBatch::try_from_iter_with_nullable([
        (ROW_HASH, Arc::new(hashes) as ArrayRef, false),
        ("x", Arc::new(x), true),
        ("region", text("region"), true),
        ("half", Arc::new(half), true),
        ("late", text("late"), true),
    ]);
    Dataset::assemble(vec![batch.unwrap()]).unwrap().rows
}

fn recipe() -> RecipeFile {
    let parameters = learner("linear").unwrap().parameters(&Map::new()).unwrap();
    RecipeFile {
        algorithm: "linear".to_owned(),
        base_version: Some("1.0.0".to_owned()),
        parameters: parameters.as_object().unwrap().clone(),
        search: None,
        seed: 5,
    }
}

/// Leaves of the receipts behind the rows.
fn receipts() -> Vec<Hash> {
    vec![[3; 32], [9; 32]]
}

/// The candidate, as a run makes it.
fn made() -> Made {
    made_by(&recipe())
}

fn made_by(recipe: &RecipeFile) -> Made {
    let RecipeFile { algorithm, base_version, parameters, search, seed } = recipe.clone();
    let searching = search.map(|SearchFile { declared, fixed }| {
        let learner = learner(&algorithm).unwrap();
        searching::begin(&declared.to_string(), learner, &Map::new(), &Value::Object(fixed), seed).unwrap()
    });
    let open = Open {
        run: TrainingRun { algorithm, base_version, seed, ..TrainingRun::default() },
        parameters: Value::Object(parameters).to_string(),
        budget: None,
        as_of: None,
        spec: String::new(),
        evaluation: None,
        sealed: Vec::new(),
        begun: 0,
        searching,
        external: None,
        warm: None,
    };
    let rows = Rows { batches: vec![training()], contributions: 2, receipts: receipts() };
    let declared = declaration(&spec()).unwrap();
    learn(&open, &declared, &prepare(&declared, rows, None).unwrap(), 1, None, &mut Unattended).unwrap().unwrap()
}

/// An evaluation whose inputs were written.
struct Told {
    folder: tempfile::TempDir,
    payload: Vec<u8>,
}

impl Told {
    /// Of a candidate by recipe beside noise: accepted; the other way round, refused.
    fn new(is_accepted: bool, level: u8) -> Self {
        Self::by(recipe(), is_accepted, level)
    }

    fn by(recipe: RecipeFile, is_accepted: bool, level: u8) -> Self {
        let (world, made) = (World::new(), made_by(&recipe));
        let candidate = world.shelf.put(&made.artefact);
        // A refused attempt has the noise for its candidate, which no recipe is known of.
        let mut request = match is_accepted {
            true => world.ask("r", &candidate, &world.noise),
            false => world.ask("r", &world.noise, &candidate),
        };
        let attempt = request.attempt.as_mut().unwrap();
        attempt.dataset = Some(made.dataset.clone());
        attempt.recipe_digest = made.recipe_digest.clone();
        request = asked(request.family.clone(), attempt.clone());
        Self::of(&world, &request, recipe, is_accepted, level)
    }

    fn of(world: &World, request: &EvaluationRequest, recipe: RecipeFile, is_accepted: bool, level: u8) -> Self {
        let mut desk = world.desk();
        let record = desk.evaluate(request.clone());
        let status = if is_accepted { Evaluation::ACCEPTED } else { Evaluation::REFUSED };
        assert_eq!(record.status, status, "{record:?}");
        let case = world.case(request, &record);
        let opened = world.opened(request, &record, ring().tree_key()).unwrap();
        let id = record.evaluation_id.as_str();
        let kept = kept::open(&world.key, id, &lock(&world.shelf.kept)[id]).unwrap();
        let blob = |digest: &str| bytes::Bytes::from(lock(&world.shelf.blobs)[digest].clone());
        let blobs = Blobs {
            rows: blob(&case.benchmark.sealed_rows.digest),
            baseline: blob(&case.attempt.baseline.digest),
            candidate: blob(&case.attempt.candidate.digest),
        };
        let requests: Vec<crate::domain::records::AttestationRequest> =
            desk.task.values(crate::domain::topics::ATTESTATION_REQUESTS);
        let [laid, told] = requests.as_slice() else { panic!("{requests:?}") };
        let folder = tempfile::tempdir().unwrap();
        let keys = ring();
        let disclosed = Disclosed {
            preregistration: &laid.statement,
            kept: (!is_accepted).then_some(&kept),
            case: &case,
            acceptances: 0,
            blobs: &blobs,
            opened: &opened,
            tree_key: keys.tree_key(),
            training: Some(Learned { recipe, rows: training(), receipts: receipts() }),
        };
        write(folder.path(), level, &disclosed, &|_| ()).unwrap();
        Self { folder, payload: told.statement.clone() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn checks_of(&self, payload: &[u8], acceptances: Option<&[Acceptance]>) -> Vec<Check> {
        let with = With { acceptances, receipts: None, threads: 1, tell: &|_, _, _| () };
        checks(self.folder.path(), &Statement::read(payload).unwrap(), payload, &with).unwrap()
    }

    /// The first failure's code, or none; and what came of the three levels.
    fn outcome(&self) -> (Option<u8>, [Outcome; 3], String) {
        outcome(&self.checks_of(&self.payload, None))
    }

    /// Changes a file, mends the manifest, and puts both back when it has looked.
    fn with(&self, name: &str, change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> (Option<u8>, String) {
        let (before, manifest) = (std::fs::read(self.path(name)).unwrap(), std::fs::read(self.path(MANIFEST)).unwrap());
        let changed = change(before.clone());
        assert_ne!(changed, before, "{name} was not changed");
        std::fs::write(self.path(name), changed).unwrap();
        if name != MANIFEST {
            let mut said: Manifest = serde_json::from_slice(&manifest).unwrap();
            let (sha256, size) = digest(&self.path(name), u64::MAX).unwrap();
            said.files.insert(name.to_owned(), FileFacts { sha256, size });
            std::fs::write(self.path(MANIFEST), serde_json::to_vec(&said).unwrap()).unwrap();
        }
        let (code, _, detail) = self.outcome();
        std::fs::write(self.path(name), before).unwrap();
        std::fs::write(self.path(MANIFEST), manifest).unwrap();
        (code, detail)
    }
}

fn outcome(checks: &[Check]) -> (Option<u8>, [Outcome; 3], String) {
    let of = |name: &str| checks.iter().find(|check| check.name == name).unwrap().outcome;
    let failed = checks.iter().find_map(|check| match check.outcome {
        Outcome::Failed(code) => Some((code, check.detail.clone())),
        _ => None,
    });
    let levels = LEVELS.map(of);
    match failed {
        Some((code, detail)) => (Some(code), levels, detail),
        None => (None, levels, String::new()),
    }
}

/// Replaces a text once.
fn swapped<'a>(from: &'a str, to: &'a str) -> impl FnOnce(Vec<u8>) -> Vec<u8> + 'a {
    move |bytes| String::from_utf8(bytes).unwrap().replacen(from, to, 1).into_bytes()
}

use Outcome::{NotChecked, Passed};

#[test]
fn each_level_is_reached_as_far_as_the_files_go_and_named() {
    for (level, levels) in
        [(1, [Passed, NotChecked, NotChecked]), (2, [Passed, Passed, NotChecked]), (3, [Passed, Passed, Passed])]
    {
        let told = Told::new(true, level);
        let (code, found, detail) = told.outcome();
        assert_eq!((code, found), (None, levels), "level {level}: {detail}");
        let checks = told.checks_of(&told.payload, None);
        assert!(checks.iter().any(|check| check.name == ARTEFACTS && check.outcome == Passed), "{checks:?}");
    }
    assert_eq!(checks(std::path::Path::new("/nowhere"), &statement(), &[], &quiet()), None);
}

fn quiet() -> With<'static> {
    With { acceptances: None, receipts: None, threads: 1, tell: &|_, _, _| () }
}

fn statement() -> Statement {
    let outcome = crate::attest::evaluation::tests::outcome();
    let subject = crate::attest::statement::Subject::new("m".to_owned(), "sha256", &[6; 32]);
    Statement { subject, predicate: Predicate::Evaluation(Box::new(outcome)) }
}

#[test]
fn a_refused_attempt_is_recomputed_once_its_owner_discloses_the_record_and_not_without() {
    let told = Told::new(false, 2);
    let (code, levels, detail) = told.outcome();
    assert_eq!((code, levels), (None, [Passed, Passed, NotChecked]), "{detail}");
    let (code, detail) = told.with(RECORD, swapped("\"pE9\": \"", "\"pE9\": \"1"));
    assert!(code == Some(15) && detail.contains("withholds"), "{detail}");
    let (code, detail) = told.with(RECORD, swapped("\"salt\": \"", "\"salt\": \"00"));
    assert!(code == Some(15) && detail.contains("withholds"), "{detail}");
    let without = |bytes: Vec<u8>| {
        let mut said: Manifest = serde_json::from_slice(&bytes).unwrap();
        said.files.remove(RECORD);
        serde_json::to_vec(&said).unwrap()
    };
    assert_eq!(told.with(MANIFEST, without).0, Some(15));
}

/// Gives the JSON object in a line's first row another value.
fn first_line(bytes: Vec<u8>, change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let text = String::from_utf8(bytes).unwrap();
    let (first, rest) = text.split_once('\n').unwrap();
    let mut value = serde_json::from_str(first).unwrap();
    change(&mut value);
    format!("{}\n{rest}", serde_json_canonicalizer::to_string(&value).unwrap()).into_bytes()
}

fn trained(bytes: &[u8], change: impl FnOnce(&mut Vec<ArrayRef>)) -> Vec<u8> {
    let batch = ipc::read(bytes, ipc::Limits::default()).unwrap();
    let mut columns = batch.columns().to_vec();
    change(&mut columns);
    ipc::write(&RecordBatch::try_new(batch.schema(), columns).unwrap(), Compression::Zstd).unwrap()
}

#[test]
fn whatever_is_changed_in_an_input_is_found_although_the_manifest_was_mended() {
    let told = Told::new(true, 3);
    let first = |name: &str, change: &dyn Fn(&mut Value)| told.with(name, |bytes| first_line(bytes, change));
    let x = |columns: &mut Vec<ArrayRef>| {
        let values = Float64Array::from_iter_values((0..400).map(f64::from));
        columns[1] = Arc::new(values);
    };
    let hash = |columns: &mut Vec<ArrayRef>| {
        columns[0] = Arc::new(FixedSizeBinaryArray::try_from_iter((0..400_u128).map(u128::to_be_bytes)).unwrap());
    };
    let found: BTreeMap<&str, (Option<u8>, String)> = BTreeMap::from([
        ("preregistration", told.with(PREREGISTRATION, swapped("mcnemar_exact", "delong"))),
        ("contract", told.with(CONTRACT, swapped("\"minimumEffect\":0.01", "\"minimumEffect\":0.02"))),
        ("score", first(SAMPLES, &|line| line["sample"]["cand"][0] = json!(1))),
        (
            "label",
            first(SAMPLES, &|line| line["sample"]["label"] = json!(1 - line["sample"]["label"].as_i64().unwrap())),
        ),
        ("stratum", first(SAMPLES, &|line| line["sample"]["strata"][0] = Value::Null)),
        ("id", first(SAMPLES, &|line| line["sample"]["id"] = json!("ab".repeat(32)))),
        ("sample salt", first(SAMPLES, &|line| line["salt"] = json!("ab".repeat(16)))),
        ("cell", first(BENCHMARK, &|line| line["row"]["x"] = json!("0.5000001"))),
        ("row salt", first(BENCHMARK, &|line| line["salt"] = json!("ab".repeat(16)))),
        ("label salt", told.with(MANIFEST, swapped("\"labelSalt\": \"", "\"labelSalt\": \"0"))),
        ("one row less", told.with(SAMPLES, |bytes| first_cut(&bytes))),
        ("one sealed row less", told.with(BENCHMARK, |bytes| first_cut(&bytes))),
        ("one row more", told.with(SAMPLES, |bytes| [&bytes[..], b"{}\n"].concat())),
        ("recipe", told.with(RECIPE, swapped("\"seed\": 5", "\"seed\": 6"))),
        ("row hashes", told.with(TRAINING, |bytes| trained(&bytes, hash))),
        ("receipt", told.with(RECEIPTS, swapped(&"03".repeat(32), &"04".repeat(32)))),
        ("one receipt less", told.with(RECEIPTS, |bytes| first_cut(&bytes))),
        ("receipts in another order", told.with(RECEIPTS, swapped(&"03".repeat(32), &"0a".repeat(32)))),
        ("no receipt", told.with(RECEIPTS, swapped("03", "zz"))),
        ("no stream", told.with(TRAINING, |bytes| bytes[..bytes.len() / 2].to_vec())),
        ("no model", told.with(BASELINE, |bytes| bytes[1..].to_vec())),
        ("other model", told.with(CANDIDATE, |bytes| [&bytes[..], b" "].concat())),
    ]);
    for (what, (code, detail)) in &found {
        assert_eq!(*code, Some(15), "{what}: {detail}");
    }
    assert!(found["score"].1.contains("root"), "{}", found["score"].1);
    // Values that do not belong to their hashes only the model shows.
    let (code, detail) = told.with(TRAINING, |bytes| trained(&bytes, x));
    assert!(code == Some(16) && detail.contains("learning again"), "{detail}");
    assert_eq!(told.outcome().0, None, "all is back");
}

#[test]
fn every_receipt_behind_the_training_rows_stands_in_the_log_that_is_given() {
    let told = Told::new(true, 3);
    let statement = Statement::read(&told.payload).unwrap();
    let with_log = |log: &[Hash]| {
        let log: HashSet<Hash> = log.iter().copied().collect();
        let with = With { receipts: Some(&log), ..quiet() };
        outcome(&checks(told.folder.path(), &statement, &told.payload, &with).unwrap())
    };
    let (code, levels, detail) = with_log(&[[1; 32], [3; 32], [9; 32]]);
    assert_eq!((code, levels), (None, [Passed; 3]), "{detail}");
    let (code, levels, detail) = with_log(&[[1; 32], [3; 32]]);
    assert_eq!((code, levels), (Some(17), [Passed, Passed, Outcome::Failed(17)]), "{detail}");
    assert!(detail.contains("1 of the 2 receipts"), "{detail}");
}

#[test]
fn of_all_trials_of_a_search_only_the_winner_passes_the_third_level() {
    let learner = learner("linear").unwrap();
    let fixed = learner.parameters(json!({"validation": 0.25}).as_object().unwrap()).unwrap();
    let declared = json!({"space": {"l2": {"log": [0.001, 10.0]}}, "trials": 4, "keep_one_in": 2, "iterations": 8});
    let search = searching::begin(&declared.to_string(), learner, &Map::new(), &fixed, 5).unwrap();
    let trials = searching::parameters(&search, learner, 5, 1, &[0, 1, 2, 3]).unwrap();
    let found: Vec<_> = trials
        .into_iter()
        .map(|(parameters, _)| {
            let of = |value: &Value| value.as_object().unwrap().clone();
            let search = Some(SearchFile { declared: declared.clone(), fixed: of(&fixed) });
            let told = Told::by(RecipeFile { parameters: of(&parameters), search, ..recipe() }, true, 3);
            let (code, levels, detail) = told.outcome();
            match code {
                None => assert_eq!(levels, [Passed; 3], "{detail}"),
                Some(_) => assert!(code == Some(16) && detail.contains("the search is won by trial"), "{detail}"),
            }
            let (code, detail) = told.with(RECIPE, swapped("\"trials\": 4", "\"trials\": 3"));
            assert!(code == Some(15) && detail.contains("its digest is"), "{detail}");
            levels[2] == Passed
        })
        .collect();
    assert_eq!(found.iter().filter(|won| **won).count(), 1, "{found:?}");
}

fn first_cut(bytes: &[u8]) -> Vec<u8> {
    let end = bytes.iter().position(|&byte| byte == b'\n').unwrap();
    bytes[end + 1..].to_vec()
}

#[test]
fn one_byte_anywhere_is_found_by_the_manifest() {
    let told = Told::new(true, 3);
    for name in [PREREGISTRATION, CONTRACT, SAMPLES, BENCHMARK, BASELINE, CANDIDATE, TRAINING, RECIPE, RECEIPTS] {
        let before = std::fs::read(told.path(name)).unwrap();
        let mut changed = before.clone();
        let place = changed.len() / 3;
        changed[place] ^= 1;
        std::fs::write(told.path(name), changed).unwrap();
        let (code, levels, detail) = told.outcome();
        assert!(code == Some(15) && levels == [NotChecked; 3] && detail.starts_with(name), "{name}: {detail}");
        std::fs::write(told.path(name), before).unwrap();
    }
    std::fs::remove_file(told.path(SAMPLES)).unwrap();
    assert_eq!(told.outcome().0, Some(15));
}

/// Has an outcome name another preregistration.
fn rests_on(said: &mut Value, laid: &[u8]) {
    use sha2::Digest;
    let hex = |hash: &[u8]| data_encoding::HEXLOWER.encode(hash);
    said["preRegistration"]["value"] = json!(hex(&crate::attest::statement::leaf_of(laid)));
    said["evidence"][0]["digest"]["sha256"] = json!(hex(&sha2::Sha256::digest(laid)));
}

/// The outcome with other figures, as an evaluator who cheats would have signed it.
fn forged(payload: &[u8], change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut statement: Value = serde_json::from_slice(payload).unwrap();
    change(&mut statement["predicate"]);
    serde_json_canonicalizer::to_vec(&statement).unwrap()
}

#[test]
fn figures_that_do_not_follow_from_the_samples_are_named_even_if_they_are_signed() {
    let told = Told::new(true, 1);
    let find = |change: &dyn Fn(&mut Value)| outcome(&told.checks_of(&forged(&told.payload, change), None));
    type Change<'a> = &'a dyn Fn(&mut Value);
    let changes: [(&str, Change<'_>); 7] = [
        ("/counts/candidateOnly", &|said| said["record"]["counts"]["candidateOnly"] = json!(599)),
        ("/metrics/0/deltaPpm", &|said| said["record"]["metrics"][0]["deltaPpm"] = json!("999999")),
        ("/metrics/0/pE9", &|said| said["record"]["metrics"][0]["pE9"] = json!("0")),
        ("/metrics/0/intervalPpm/0", &|said| said["record"]["metrics"][0]["intervalPpm"][0] = json!("1")),
        ("/lowerPpm", &|said| said["record"]["lowerPpm"] = json!("999999")),
        ("/strata/2/n", &|said| said["record"]["strata"][2]["n"] = json!(1)),
        ("/strata", &|said| drop(said["record"]["strata"].as_array_mut().unwrap().pop())),
    ];
    for (path, change) in changes {
        let (code, levels, detail) = find(change);
        assert_eq!((code, levels), (Some(16), [Outcome::Failed(16), NotChecked, NotChecked]), "{path}: {detail}");
        assert!(detail.starts_with(path) && detail.contains("the statement says"), "{path}: {detail}");
    }
    let (code, _, detail) = find(&|said| said["reasons"] = json!(["NOT_SIGNIFICANT"]));
    assert!(code == Some(16) && detail.contains("the decision"), "{detail}");
}

#[test]
fn acceptances_are_recounted_from_the_log_and_the_sixth_is_none() {
    let told = Told::new(true, 1);
    let Ok(Statement { predicate: Predicate::Evaluation(said), .. }) = Statement::read(&told.payload) else { panic!() };
    let one = Acceptance::of(&said).unwrap();
    // Its own and later ones are not before it, nor are other benchmarks'.
    let others = [
        one.clone(),
        Acceptance { number: 7, ..one.clone() },
        Acceptance { benchmark: "x@1".into(), number: 0, ..one.clone() },
    ];
    assert_eq!(outcome(&told.checks_of(&told.payload, Some(&others))).0, None);
    let five = vec![Acceptance { number: 0, ..one }; 5];
    let (code, _, detail) = outcome(&told.checks_of(&told.payload, Some(&five)));
    assert!(code == Some(16) && detail.contains("RETIRED"), "{detail}");
}

#[test]
fn scores_that_the_models_do_not_give_are_found_although_the_samples_bind_them() {
    // The evaluator bound the scores of another candidate than the one that the statement names.
    let (world, made) = (World::new(), made());
    let candidate = world.shelf.put(&made.artefact);
    let told = Told::of(&world, &world.ask("r", &candidate, &world.noise), recipe(), true, 2);
    let other = world.other_noise.digest.clone();
    std::fs::write(told.path(CANDIDATE), &lock(&world.shelf.blobs)[&other]).unwrap();
    let mut manifest: Manifest = serde_json::from_slice(&std::fs::read(told.path(MANIFEST)).unwrap()).unwrap();
    let (sha256, size) = digest(&told.path(CANDIDATE), u64::MAX).unwrap();
    manifest.files.insert(CANDIDATE.to_owned(), FileFacts { sha256, size });
    // Both statements name it.
    let rename =
        |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap().replace(&candidate.digest, &other).into_bytes();
    let laid = rename(&std::fs::read(told.path(PREREGISTRATION)).unwrap());
    std::fs::write(told.path(PREREGISTRATION), &laid).unwrap();
    let (sha256, size) = digest(&told.path(PREREGISTRATION), u64::MAX).unwrap();
    manifest.files.insert(PREREGISTRATION.to_owned(), FileFacts { sha256, size });
    std::fs::write(told.path(MANIFEST), serde_json::to_vec(&manifest).unwrap()).unwrap();
    let payload = forged(&rename(&told.payload), |said| rests_on(said, &laid));
    let (code, levels, detail) = outcome(&told.checks_of(&payload, None));
    assert_eq!((code, levels), (Some(16), [Passed, Outcome::Failed(16), NotChecked]), "{detail}");
    assert!(detail.contains("candidate's score") && detail.contains("the samples say"), "{detail}");
}

#[test]
fn a_preregistration_is_checked_against_its_contract_and_models() {
    let told = Told::new(true, 2);
    let laid = std::fs::read(told.path(PREREGISTRATION)).unwrap();
    let (code, levels, _) = outcome(&told.checks_of(&laid, None));
    assert_eq!((code, levels), (None, [NotChecked; 3]));
    let other = forged(&laid, |said| said["minimumEffectPpm"] = json!("1"));
    let (code, _, detail) = outcome(&told.checks_of(&other, None));
    assert!(code == Some(15) && detail.contains("another preregistration"), "{detail}");
}

#[test]
fn a_manifest_from_outside_names_no_file_but_the_inputs() {
    let told = Told::new(true, 1);
    for change in [
        swapped("\"samples.jsonl\"", "\"../samples.jsonl\""),
        swapped("hokusai-evaluation-inputs/v1", "hokusai-evaluation-inputs/v9"),
        swapped("\"late\"", "\"lately\""),
        swapped("\"level\": 1", "\"level\": 1, \"more\": 1"),
        swapped("{", ""),
    ] {
        let (code, detail) = told.with(MANIFEST, change);
        assert_eq!(code, Some(15), "{detail}");
    }
}

/// The evaluation of the candidate by recipe, in which a declared metric decides.
fn declared_told(value: &str, level: u8) -> Told {
    let (world, made) = (World::under(&declaring("own", "[{metric: log_loss}]", value)), made());
    let candidate = world.shelf.put(&made.artefact);
    let mut attempt = world.ask("r", &candidate, &world.noise).attempt.unwrap();
    attempt.dataset = Some(made.dataset.clone());
    attempt.recipe_digest = made.recipe_digest.clone();
    Told::of(&world, &asked(world.family(0), attempt), recipe(), true, level)
}

const COST: &str = "CASE WHEN predicted = label THEN 0 WHEN region = 'north' THEN 5 ELSE 2 END";

#[test]
fn a_declared_metric_is_recomputed_at_every_level_and_a_value_that_its_sql_does_not_give_is_found() {
    let told = declared_told(COST, 3);
    let (code, levels, detail) = told.outcome();
    assert_eq!((code, levels), (None, [Passed, Passed, Passed]), "{detail}");
    let first = |change: &dyn Fn(&mut Value)| told.with(SAMPLES, |bytes| first_line(bytes, change));
    let (code, detail) = first(&|line| line["sample"]["metrics"][0][1] = json!(7));
    assert!(code == Some(15) && detail.contains("root"), "{detail}");
    let (code, _) = first(&|line| line["sample"]["metrics"] = json!([]));
    assert_eq!(code, Some(15));
    let (code, detail) = first(&|line| line["sample"]["metrics"] = json!([[1, 2], [3, 4]]));
    assert!(code == Some(15) && detail.contains("metrics"), "{detail}");
    // Values beyond what is summed exactly come from a hand that also binds them: they are no figures.
    let (code, _) = first(&|line| line["sample"]["metrics"][0] = json!([9_007_199_254_740_991_i64, 0]));
    assert_eq!(code, Some(15));

    // The evaluator bound the values of another definition than the contract has that the statement names.
    let other = declaring("own", "[{metric: log_loss}]", &COST.replace("THEN 5", "THEN 4"));
    let (from, to) = (contract_digest(&told), other.contract_digest().unwrap());
    let rename = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap().replace(&from, &to).into_bytes();
    let laid = rename(&std::fs::read(told.path(PREREGISTRATION)).unwrap());
    let mut manifest: Manifest = serde_json::from_slice(&std::fs::read(told.path(MANIFEST)).unwrap()).unwrap();
    for (name, bytes) in [(PREREGISTRATION, laid.clone()), (CONTRACT, other.canonical_json().unwrap().into_bytes())] {
        std::fs::write(told.path(name), bytes).unwrap();
        let (sha256, size) = digest(&told.path(name), u64::MAX).unwrap();
        manifest.files.insert(name.to_owned(), FileFacts { sha256, size });
    }
    std::fs::write(told.path(MANIFEST), serde_json::to_vec(&manifest).unwrap()).unwrap();
    let payload = forged(&rename(&told.payload), |said| rests_on(said, &laid));
    let (code, levels, detail) = outcome(&told.checks_of(&payload, None));
    assert_eq!((code, levels), (Some(16), [Passed, Outcome::Failed(16), NotChecked]), "{detail}");
    assert!(detail.contains("declared metric") && detail.contains("the samples say"), "{detail}");
}

fn contract_digest(told: &Told) -> String {
    let Ok(Statement { predicate: Predicate::Evaluation(said), .. }) = Statement::read(&told.payload) else { panic!() };
    said.benchmark.contract_digest.clone()
}
