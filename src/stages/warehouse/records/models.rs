//! Models → columns.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;

use super::{batch, element_of, fields_of, list, long, some_long, some_text, text};
use crate::domain::records::{Dataset, Model, ModelVersion, NamedValue, VersionEvaluation};
use crate::stages::warehouse::tables::Table;

type Columns = Result<ArrayRef, ArrowError>;

pub(in super::super) fn revisions(models: &[Model]) -> Result<RecordBatch, ArrowError> {
    let schema = Table::ModelRevisions.schema();
    let aliases = list(
        schema.field_with_name("aliases")?.data_type(),
        models.iter().map(|m| m.aliases.len()),
        vec![
            text(models.iter().flat_map(|m| &m.aliases).map(|a| a.name.as_str())),
            text(models.iter().flat_map(|m| &m.aliases).map(|a| a.version.as_str())),
        ],
    )?;
    let tags: Vec<&[NamedValue]> = models.iter().map(|m| m.tags.as_slice()).collect();
    batch(
        Table::ModelRevisions,
        vec![
            text(models.iter().map(|m| m.model.as_str())),
            long(models.iter().map(|m| m.revision)),
            text(models.iter().map(|m| m.contract_digest.as_str())),
            versions(schema.field_with_name("versions")?.data_type(), models)?,
            aliases,
            named(schema.field_with_name("tags")?.data_type(), &tags)?,
        ],
    )
}

pub(super) fn named(data_type: &DataType, lists: &[&[NamedValue]]) -> Columns {
    let all = || lists.iter().copied().flatten();
    let columns = vec![text(all().map(|pair| pair.name.as_str())), text(all().map(|pair| pair.value.as_str()))];
    list(data_type, lists.iter().map(|l| l.len()), columns)
}

fn versions(data_type: &DataType, models: &[Model]) -> Columns {
    let element = element_of(data_type)?;
    let fields = fields_of(&element)?;
    let type_of = |name: &str| {
        let found = fields.find(name).map(|(_, field)| field.data_type().clone());
        found.ok_or_else(|| ArrowError::SchemaError(format!("a version has no {name}")))
    };
    let all: Vec<&ModelVersion> = models.iter().flat_map(|m| &m.versions).collect();
    let mut columns = scalars(&all);
    let params: Vec<&[NamedValue]> = all.iter().map(|v| v.params.as_slice()).collect();
    let tags: Vec<&[NamedValue]> = all.iter().map(|v| v.tags.as_slice()).collect();
    columns.push(named(&type_of("params")?, &params)?);
    columns.push(list(
        &type_of("metrics")?,
        all.iter().map(|v| v.metrics.len()),
        vec![
            text(all.iter().flat_map(|v| &v.metrics).map(|m| m.name.as_str())),
            text(all.iter().flat_map(|v| &v.metrics).map(|m| m.value.as_str())),
            long(all.iter().flat_map(|v| &v.metrics).map(|m| m.rows)),
        ],
    )?);
    columns.push(named(&type_of("tags")?, &tags)?);
    columns.push(evaluations(&type_of("evaluations")?, &all)?);
    list(data_type, models.iter().map(|m| m.versions.len()), columns)
}

fn scalars(all: &[&ModelVersion]) -> Vec<ArrayRef> {
    let of = |field: fn(&ModelVersion) -> &str| text(all.iter().map(move |v| field(v)));
    let maybe = |field: fn(&ModelVersion) -> Option<&str>| some_text(all.iter().map(move |v| field(v)));
    let rows = |field: fn(&Dataset) -> i64| some_long(all.iter().map(move |v| v.lineage.dataset.as_ref().map(field)));
    vec![
        of(|v| &v.version),
        of(|v| &v.stage),
        of(|v| &v.origin),
        long(all.iter().map(|v| v.revision)),
        of(|v| &v.artefact.digest),
        long(all.iter().map(|v| v.artefact.size)),
        of(|v| &v.artefact.media_type),
        of(|v| &v.contract_digest),
        of(|v| &v.features_digest),
        maybe(|v| v.lineage.parent.as_deref()),
        maybe(|v| v.lineage.dataset.as_ref().map(|d| d.digest.as_str())),
        rows(|d| d.rows),
        rows(|d| d.contributions),
        maybe(|v| v.lineage.run_id.as_deref()),
        maybe(|v| v.lineage.recipe_digest.as_deref()),
        maybe(|v| v.lineage.benchmark.as_deref()),
        maybe(|v| v.lineage.contributor.as_deref()),
        of(|v| &v.signer),
        of(|v| &v.command_id),
    ]
}

fn evaluations(data_type: &DataType, versions: &[&ModelVersion]) -> Columns {
    let all: Vec<&VersionEvaluation> = versions.iter().flat_map(|v| &v.evaluations).collect();
    let of = |field: fn(&VersionEvaluation) -> &str| text(all.iter().map(move |e| field(e)));
    let maybe = |field: fn(&VersionEvaluation) -> Option<&str>| some_text(all.iter().map(move |e| field(e)));
    let element = element_of(data_type)?;
    let fields = fields_of(&element)?;
    let reasons = fields.find("reasons").map(|(_, field)| field.data_type().clone());
    let reasons = list(
        &reasons.ok_or_else(|| ArrowError::SchemaError("an evaluation has no reasons".to_owned()))?,
        all.iter().map(|e| e.reasons.len()),
        vec![text(all.iter().flat_map(|e| &e.reasons).map(String::as_str))],
    )?;
    let columns = vec![
        of(|e| &e.evaluation_id),
        of(|e| &e.benchmark),
        of(|e| &e.baseline),
        of(|e| &e.status),
        reasons,
        of(|e| &e.metric),
        maybe(|e| e.delta.as_deref()),
        maybe(|e| e.lower.as_deref()),
        of(|e| &e.statement),
    ];
    list(data_type, versions.iter().map(|v| v.evaluations.len()), columns)
}
