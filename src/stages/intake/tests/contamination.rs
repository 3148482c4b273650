//! Rows whose features stand in a sealed benchmark.

use std::sync::Arc;

use serde_json::json;

use super::super::contamination::FilterSource;
use super::super::{Intake, Limits};
use super::support::{NOW, apply, chunk, manifests, refusals, ring, row, send, spec, task, with};
use crate::domain::records::{Artefact, Benchmark, Model};
use crate::domain::topics;
use crate::sealing::filter::MatchFilter;
use crate::stages::intake::sealing::RowChecker;
use crate::stages::testing::Task;
use crate::stream::stage::{Stage, StageError};

struct One(Arc<MatchFilter>);

impl FilterSource for One {
    fn filter(&self, artefact: &Artefact) -> Result<Arc<MatchFilter>, StageError> {
        match artefact.digest.as_str() {
            "gone" => Err(StageError::Outside("out of reach".to_owned())),
            _ => Ok(Arc::clone(&self.0)),
        }
    }
}

/// A benchmark of the example's rows 0 to 9.
fn filter() -> MatchFilter {
    let rows: Vec<String> = (0..10).map(|i| row(i).to_string()).collect();
    let checker = RowChecker::new(spec("", ""), ring()).unwrap();
    let checked = checker.check("json", rows.join("\n").into_bytes(), NOW).unwrap();
    assert_eq!(checked.features.len(), 10);
    MatchFilter::new(&checked.features, &checked.overlaps)
}

fn sealed(digest: &str, retired: bool) -> Benchmark {
    let artefact = Artefact { digest: digest.to_owned(), size: 1, media_type: "x".to_owned() };
    let json = json!({
        "benchmark": "holdout@1", "model": "signup-churn", "contract_digest": "", "rows": 10, "rows_root": "", "family": "",
        "label_commitment": "", "collision_rate": "0.020000", "strata": [], "merged": [], "match_filter": artefact,
        "sealed_rows": artefact, "sealed_to": "e1", "revision": 2, "signer": "", "command_id": "", "retired": retired,
    });
    serde_json::from_value(json).unwrap()
}

fn tell(task: &mut Task<Intake>, benchmark: &Benchmark) {
    let record = task.wire.encode(benchmark).unwrap();
    task.stage.broadcast(topics::BENCHMARKS, benchmark.key().as_bytes(), Some(&record), &task.wire).unwrap();
}

fn knowing() -> Task<Intake> {
    let mut task = task();
    task.stage = Intake::new(ring(), Limits::default()).with_filters(Box::new(One(Arc::new(filter()))));
    apply(&mut task, &[&spec("", "")]);
    task
}

#[test]
fn a_sealed_row_is_refused_alike_under_every_label_and_the_manifest_names_the_filter() {
    let outcome = |label: bool| {
        let mut task = knowing();
        tell(&mut task, &sealed("abc", false));
        let rows: Vec<_> = (5..15).map(|i| with(row(i), json!({"churned": label}))).collect();
        send(&mut task, &[(None, chunk(&rows))]);
        let manifest = manifests(&task).remove(0);
        assert_eq!((manifest.match_filters.clone(), manifest.collision_ppm), (vec!["abc".to_owned()], 20_000));
        let told: Vec<_> = refusals(&task).into_iter().map(|r| (r.row, r.code, r.column, r.rule, r.shape)).collect();
        assert!(told.iter().all(|(_, code, ..)| code == "CONTAMINATION"));
        assert_eq!(told.iter().map(|(row, ..)| *row).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        (told, manifest.refused, manifest.shards, manifest.quality.valid)
    };
    assert_eq!(outcome(true), outcome(false));
}

#[test]
fn a_chunk_of_nothing_but_sealed_rows_has_a_manifest_and_a_retired_benchmark_holds_nothing_back() {
    let mut task = knowing();
    tell(&mut task, &sealed("abc", false));
    let rows: Vec<_> = (0..10).map(row).collect();
    send(&mut task, &[(None, chunk(&rows))]);
    tell(&mut task, &sealed("abc", true));
    send(&mut task, &[(None, chunk(&rows))]);
    let manifests = manifests(&task);
    let passed = |at: usize| manifests[at].shards.iter().map(|s| s.rows).sum::<i64>();
    assert_eq!((passed(0), passed(1)), (0, 10));
    assert_eq!((manifests[0].received, manifests[0].refused[0].count), (10, 10));
    assert!(manifests[1].match_filters.is_empty() && manifests[1].collision_ppm == 0);
}

#[test]
fn without_its_filter_no_row_is_let_through() {
    let mut task = knowing();
    tell(&mut task, &sealed("gone", false));
    let mut batch = crate::stream::stage::Batch::new(topics::CONTRIBUTIONS, 0);
    batch.push(0, NOW, None, Some(chunk(&[row(50)]).to_string().as_bytes()));
    assert!(matches!(task.commit(&[batch]), Err(StageError::Outside(_))));
    assert!(task.values::<Model>(topics::MODELS).is_empty() && manifests(&task).is_empty());
}
