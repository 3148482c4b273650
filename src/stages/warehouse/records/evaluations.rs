//! What may be told of evaluations → columns.

use arrow::array::RecordBatch;
use arrow::error::ArrowError;

use super::{batch, boolean, list, long, some_text, text};
use crate::domain::records::{Evaluation, EvaluationStratum};
use crate::stages::warehouse::tables::Table;

pub(in super::super) fn told(all: &[Evaluation]) -> Result<RecordBatch, ArrowError> {
    let schema = Table::Evaluations.schema();
    let type_of = |name: &str| schema.field_with_name(name).map(|field| field.data_type().clone());
    let of = |field: fn(&Evaluation) -> &str| text(all.iter().map(field));
    let maybe = |field: fn(&Evaluation) -> Option<&str>| some_text(all.iter().map(field));
    let reasons = list(
        &type_of("reasons")?,
        all.iter().map(|e| e.reasons.len()),
        vec![text(all.iter().flat_map(|e| &e.reasons).map(String::as_str))],
    )?;
    let strata = || all.iter().flat_map(|e| &e.strata);
    let stratum = |field: fn(&EvaluationStratum) -> &str| text(strata().map(field));
    let strata = list(
        &type_of("strata")?,
        all.iter().map(|e| e.strata.len()),
        vec![
            stratum(|s| &s.name),
            long(strata().map(|s| s.rows)),
            stratum(|s| &s.delta),
            stratum(|s| &s.lower),
            stratum(|s| &s.margin),
            boolean(strata().map(|s| s.passed)),
        ],
    )?;
    batch(
        Table::Evaluations,
        vec![
            of(|e| &e.evaluation_id),
            of(|e| &e.request_id),
            of(|e| &e.run_id),
            of(|e| &e.model),
            of(|e| &e.benchmark),
            of(|e| &e.family),
            of(|e| &e.candidate),
            of(|e| &e.baseline),
            of(|e| &e.baseline_version),
            of(|e| &e.recipe_digest),
            long(all.iter().map(|e| e.attempt)),
            of(|e| &e.alpha),
            of(|e| &e.status),
            reasons,
            of(|e| &e.detail),
            of(|e| &e.metric),
            maybe(|e| e.ladder_score.as_deref()),
            maybe(|e| e.baseline_value.as_deref()),
            maybe(|e| e.candidate_value.as_deref()),
            maybe(|e| e.delta.as_deref()),
            maybe(|e| e.lower.as_deref()),
            maybe(|e| e.p_value.as_deref()),
            strata,
            of(|e| &e.preregistration),
            of(|e| &e.statement),
        ],
    )
}
