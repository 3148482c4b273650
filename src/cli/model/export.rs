//! `hokusai model export`: a version as a file, for other runtimes.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::artefact::{Loaded, Which};
use super::{Outcome, Settings, blocking, say};
use crate::cli::atomic::write;
use crate::ml::encoding::Kind;
use crate::ml::model::Predictor;
use crate::ml::onnx::{ML_OPSET, OPSET};

/// Arguments of `model export`.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    which: Which,
    /// Write an ONNX model whose input is the encoded features, in the order that is printed
    #[arg(long, value_name = "FILE", required_unless_present_any = ["native", "encoding"])]
    onnx: Option<PathBuf>,
    /// Write the native artefact, whose SHA-256 the registry has
    #[arg(long, value_name = "FILE")]
    native: Option<PathBuf>,
    /// Write how each feature is made as JSON: who trains elsewhere on the same features registers the ONNX model with it
    #[arg(long, value_name = "FILE")]
    encoding: Option<PathBuf>,
}

/// Exports a model.
///
/// # Errors
/// No such model, an artefact that is none, or a file that cannot be written.
pub(super) async fn run(settings: &Settings, args: ExportArgs) -> Outcome<()> {
    let loaded = args.which.load(settings).await?;
    let settings = settings.clone();
    blocking(move || {
        if let Some(file) = &args.native {
            write(file, &loaded.bytes)?;
        }
        if let Some(file) = &args.onnx {
            write(file, &loaded.model.to_onnx())?;
        }
        if let Some(file) = &args.encoding {
            write(file, format!("{:#}\n", loaded.model.encoding.to_json()).as_bytes())?;
        }
        told(&settings, &args, &loaded)
    })
    .await
}

fn told(settings: &Settings, args: &ExportArgs, loaded: &Loaded) -> Outcome<()> {
    let features = &loaded.model.encoding.features;
    // An imported model has the operator sets of whoever made it.
    let own = !matches!(loaded.model.predictor, Predictor::Imported(_));
    if settings.json() {
        let inputs: Vec<String> = features.iter().map(crate::ml::encoding::Feature::name).collect();
        return say(json!({
            "model": loaded.name, "sha256": loaded.digest.to_string(), "task": loaded.model.task.name(),
            "onnx": args.onnx, "native": args.native, "encoding": args.encoding,
            "opset": own.then(|| json!({"ai.onnx": OPSET, "ai.onnx.ml": ML_OPSET})), "inputs": inputs,
        }));
    }
    if let Some(file) = &args.native {
        say(format_args!("{}: {}, native, SHA-256 {}", file.display(), loaded.name, loaded.digest))?;
    }
    if let Some(file) = &args.encoding {
        say(format_args!("{}: {} features of {}", file.display(), features.len(), loaded.name))?;
    }
    let Some(file) = &args.onnx else { return Ok(()) };
    let (count, task) = (features.len(), loaded.model.task.name());
    let opsets = if own {
        format!("ai.onnx opset {OPSET}, ai.onnx.ml opset {ML_OPSET}")
    } else {
        "as it was imported".to_owned()
    };
    say(format_args!("{}: {} ({task}), {opsets}", file.display(), loaded.name))?;
    let input = if own { "input `features`" } else { "its input" };
    say(format_args!("{input}, float [N, {count}], missing is NaN:"))?;
    for (i, feature) in features.iter().enumerate() {
        let how = match &feature.kind {
            Kind::Number => "number".to_owned(),
            Kind::Time(_) => "part of a time, UTC".to_owned(),
            Kind::Category(levels) => {
                format!("code of one of {} categories, {} for any other", levels.len(), levels.len())
            }
        };
        let made =
            if loaded.model.encoding.derivation.adds(&feature.column) { ", made by the artefact's SQL" } else { "" };
        say(format_args!("  {i} {}: {how}{made}", feature.name()))?;
    }
    Ok(())
}
