//! States of training runs → columns.

use arrow::array::RecordBatch;
use arrow::error::ArrowError;

use super::models::named;
use super::{batch, list, long, some_integer, some_long, some_text, text};
use crate::domain::records::{Dataset, NamedValue, TrainingRun};
use crate::stages::warehouse::tables::Table;

pub(in super::super) fn states(runs: &[TrainingRun]) -> Result<RecordBatch, ArrowError> {
    let schema = Table::RunStates.schema();
    let type_of = |name: &str| schema.field_with_name(name).map(|field| field.data_type().clone());
    let of = |field: fn(&TrainingRun) -> &str| text(runs.iter().map(field));
    let maybe = |field: fn(&TrainingRun) -> Option<&str>| some_text(runs.iter().map(field));
    let counted = |field: fn(&Dataset) -> i64| some_long(runs.iter().map(move |r| r.dataset.as_ref().map(field)));
    let params: Vec<&[NamedValue]> = runs.iter().map(|r| r.params.as_slice()).collect();
    let tags: Vec<&[NamedValue]> = runs.iter().map(|r| r.tags.as_slice()).collect();
    let all = || runs.iter().flat_map(|r| &r.metrics);
    let metrics = list(
        &type_of("metrics")?,
        runs.iter().map(|r| r.metrics.len()),
        vec![text(all().map(|m| m.name.as_str())), text(all().map(|m| m.value.as_str())), long(all().map(|m| m.rows))],
    )?;
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
        ],
    )
}
