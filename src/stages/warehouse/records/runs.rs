//! States of training runs, and results of trials → columns.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;

use super::models::named;
use super::{batch, list, long, some_double, some_integer, some_long, some_text, some_time, text};
use crate::domain::records::{Dataset, Metric, NamedValue, TrainingRun, TrialResult};
use crate::stages::warehouse::tables::Table;

fn metrics(kind: &DataType, lists: Vec<&[Metric]>) -> Result<ArrayRef, ArrowError> {
    let all = || lists.iter().copied().flatten();
    let columns =
        vec![text(all().map(|m| m.name.as_str())), text(all().map(|m| m.value.as_str())), long(all().map(|m| m.rows))];
    list(kind, lists.iter().map(|list| list.len()), columns)
}

/// Results of trials with their runs.
pub(in super::super) fn trials(results: &[(String, TrialResult)]) -> Result<RecordBatch, ArrowError> {
    let schema = Table::TrialResults.schema();
    let type_of = |name: &str| schema.field_with_name(name).map(|field| field.data_type().clone());
    let all = || results.iter().map(|(_, result)| result);
    let of = |field: fn(&TrialResult) -> &str| text(all().map(field));
    let whole = |field: fn(&TrialResult) -> i32| some_integer(all().map(move |r| Some(field(r))));
    let params: Vec<&[NamedValue]> = all().map(|r| r.parameters.as_slice()).collect();
    batch(
        Table::TrialResults,
        vec![
            text(results.iter().map(|(run_id, _)| run_id.as_str())),
            whole(|r| r.number),
            whole(|r| r.rung),
            of(|r| &r.model),
            of(|r| &r.algorithm),
            long(all().map(|r| r.seed)),
            named(&type_of("params")?, &params)?,
            whole(|r| r.iterations),
            some_double(all().map(|r| r.loss.as_ref().and_then(|loss| loss.parse().ok()))),
            metrics(&type_of("metrics")?, all().map(|r| r.metrics.as_slice()).collect())?,
            of(|r| &r.reason),
            of(|r| &r.detail),
        ],
    )
}

pub(in super::super) fn states(runs: &[TrainingRun]) -> Result<RecordBatch, ArrowError> {
    let schema = Table::RunStates.schema();
    let type_of = |name: &str| schema.field_with_name(name).map(|field| field.data_type().clone());
    let of = |field: fn(&TrainingRun) -> &str| text(runs.iter().map(field));
    let maybe = |field: fn(&TrainingRun) -> Option<&str>| some_text(runs.iter().map(field));
    let counted = |field: fn(&Dataset) -> i64| some_long(runs.iter().map(move |r| r.dataset.as_ref().map(field)));
    let params: Vec<&[NamedValue]> = runs.iter().map(|r| r.params.as_slice()).collect();
    let tags: Vec<&[NamedValue]> = runs.iter().map(|r| r.tags.as_slice()).collect();
    let metrics = metrics(&type_of("metrics")?, runs.iter().map(|r| r.metrics.as_slice()).collect())?;
    batch(
        Table::RunStates,
        vec![
            of(|r| &r.run_id),
            of(|r| &r.request_id),
            of(|r| &r.model),
            of(|r| &r.status),
            of(|r| &r.algorithm),
            long(runs.iter().map(|r| r.seed)),
            maybe(|r| r.base_version.as_deref()),
            maybe(|r| r.group.as_deref()),
            of(|r| &r.contract_digest),
            maybe(|r| r.dataset.as_ref().map(|d| d.digest.as_str())),
            counted(|d| d.rows),
            counted(|d| d.contributions),
            maybe(|r| r.recipe_digest.as_deref()),
            some_integer(runs.iter().map(|r| Some(r.iteration))),
            some_integer(runs.iter().map(|r| Some(r.iterations))),
            maybe(|r| r.artefact.as_ref().map(|a| a.digest.as_str())),
            some_long(runs.iter().map(|r| r.artefact.as_ref().map(|a| a.size))),
            named(&type_of("params")?, &params)?,
            metrics,
            named(&type_of("tags")?, &tags)?,
            of(|r| &r.reason),
            of(|r| &r.detail),
            some_integer(runs.iter().map(|r| Some(r.position.partition))),
            long(runs.iter().map(|r| r.position.offset)),
            maybe(|r| r.benchmark.as_deref()),
            maybe(|r| r.evaluation_id.as_deref()),
            maybe(|r| r.search.as_deref()),
            some_integer(runs.iter().map(|r| r.trial)),
            maybe(|r| r.job.as_ref().map(|job| job.digest.as_str())),
            // 0 is no time: it stands for none.
            some_time(runs.iter().map(|r| Some(r.requested_at).filter(|at| *at != 0))),
        ],
    )
}
