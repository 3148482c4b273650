//! `hokusai model export`: a version as a file, for other runtimes.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::artefact::{Loaded, Which};
use super::{Failure, Outcome, Settings, blocking, say};
use crate::cli::atomic::Atomic;
use crate::ml::encoding::Kind;
use crate::ml::onnx::{ML_OPSET, OPSET};

/// Arguments of `model export`.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    which: Which,
    /// Write an ONNX model whose input is the encoded features, in the order that is printed
    #[arg(long, value_name = "FILE", required_unless_present = "native")]
    onnx: Option<PathBuf>,
    /// Write the native artefact, whose SHA-256 the registry has
    #[arg(long, value_name = "FILE")]
    native: Option<PathBuf>,
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
        told(&settings, &args, &loaded)
    })
    .await
}

fn write(path: &Path, bytes: &[u8]) -> Outcome<()> {
    let written = Atomic::create(path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.finish()
    });
    written.map_err(|e| Failure::because(format!("{}: {e}", path.display())))
}

fn told(settings: &Settings, args: &ExportArgs, loaded: &Loaded) -> Outcome<()> {
    let features = &loaded.model.encoding.features;
    if settings.json() {
        let inputs: Vec<String> = features.iter().map(crate::ml::encoding::Feature::name).collect();
        return say(json!({
            "model": loaded.name, "sha256": loaded.digest.to_string(), "task": loaded.model.task.name(),
            "onnx": args.onnx, "native": args.native, "opset": {"ai.onnx": OPSET, "ai.onnx.ml": ML_OPSET}, "inputs": inputs,
        }));
    }
    if let Some(file) = &args.native {
        say(format_args!("{}: {}, native, SHA-256 {}", file.display(), loaded.name, loaded.digest))?;
    }
    let Some(file) = &args.onnx else { return Ok(()) };
    let (count, task) = (features.len(), loaded.model.task.name());
    say(format_args!(
        "{}: {} ({task}), ai.onnx opset {OPSET}, ai.onnx.ml opset {ML_OPSET}",
        file.display(),
        loaded.name
    ))?;
    say(format_args!("input `features`, float [N, {count}], missing is NaN:"))?;
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
