//! Learns from one Parquet file, scores another: the learners without the platform around them.
//!
//! `learn_parquet TRAIN.parquet TEST.parquet LABEL OUT.csv [ALGORITHM [PARAMETERS_JSON [THREADS]]]`
//!
//! Writes the test rows' chances of the second class to `OUT.csv` (column `score`), the artefact to `OUT.csv.hkml` and the ONNX model to
//! `OUT.csv.onnx`; prints a JSON object with CPU seconds and the peak of memory. `benches/trees.py` runs it beside LightGBM.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use arrow::array::RecordBatch;
use hokusai::ml::arrow::{classes, declared_by, frame};
use hokusai::ml::artefact::digest;
use hokusai::ml::encoding::{Declared, Encoding};
use hokusai::ml::fold::Fold;
use hokusai::ml::model::Model;
use hokusai::ml::random::{Purpose, draw};
use hokusai::ml::{Task, Training, Unattended, learner};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

const SEED: u64 = 7;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [train, test, label, out, rest @ ..] = arguments.as_slice() else {
        bail!("usage: learn_parquet TRAIN.parquet TEST.parquet LABEL OUT.csv [ALGORITHM [PARAMETERS_JSON [THREADS]]]");
    };
    let learner = learner(rest.first().map_or("trees", String::as_str))?;
    let given = serde_json::from_str(rest.get(1).map_or("{}", String::as_str)).context("parameters")?;
    let parameters = learner.parameters(&given)?;
    let threads = rest.get(2).map_or(Ok(1), |threads| threads.parse()).context("threads")?;

    let train = read(train)?;
    let schema = train.first().context("no rows")?.schema();
    let own = schema.fields().iter().filter(|field| field.name() != label);
    let declared: Vec<Declared> =
        own.map(|field| declared_by(field.name(), field.data_type())).collect::<Result<_, _>>()?;
    let columns: Vec<&str> = declared.iter().map(|declared| declared.column.as_str()).collect();
    let raw = frame(&train, &columns)?;
    let (names, labels) = classes(&train, label)?;
    drop(train);
    let labels = labels.into_iter().map(|label| label.map(f64::from)).collect::<Option<Vec<f64>>>();
    let labels = labels.context("a row has no label")?;
    let row_keys: Vec<u64> = (0..raw.rows() as u64).map(|row| draw(SEED, Purpose::Trials, 0, row)).collect();
    let task = Task::Classes(names);

    let (start, wall) = (cpu_s()?, Instant::now());
    let encoding = Encoding::compile(&declared, &raw)?;
    let features = encoding.encode(&raw)?;
    let training = Training {
        features: &features,
        labels: &labels,
        task: &task,
        row_keys: &row_keys,
        fold: &Fold::Rows,
        seed: SEED,
        threads,
        warm: None,
    };
    let learned = learner.learn(&training, &parameters, None, &mut Unattended)?;
    let (trained, wall) = (cpu_s()?, wall.elapsed().as_secs_f64());
    let model = Model { task: task.clone(), encoding, predictor: learned.predictor };
    let bytes = model.to_bytes();

    let raw = frame(&read(test)?, &columns)?;
    let before = cpu_s()?;
    let scores = Model::from_bytes(&bytes)?.predict(&raw)?;
    let scored = cpu_s()?;
    write(out, &scores[..], task.outputs(), &bytes, &model)?;
    println!(
        "{}",
        serde_json::json!({
            "algorithm": learner.name(), "threads": threads, "rows": [labels.len(), raw.rows()],
            "iterations": learned.iterations, "train_cpu_s": round(trained - start), "train_wall_s": round(wall),
            "score_cpu_s": round(scored - before), "peak_mb": peak_mb()?, "artefact_bytes": bytes.len(),
            "artefact_sha256": data_encoding::HEXLOWER.encode(&digest(&bytes)),
        })
    );
    Ok(())
}

fn read(path: &str) -> Result<Vec<RecordBatch>> {
    let file = File::open(path).with_context(|| format!("{path}: cannot be read"))?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)?.with_batch_size(65_536).build()?;
    Ok(reader.collect::<Result<_, _>>()?)
}

fn write(out: &str, scores: &[f64], outputs: usize, bytes: &[u8], model: &Model) -> Result<()> {
    let mut text = String::from("score\n");
    for row in scores.chunks(outputs) {
        writeln!(text, "{}", row.last().copied().unwrap_or(f64::NAN))?;
    }
    fs::write(out, text)?;
    fs::write(format!("{out}.hkml"), bytes)?;
    fs::write(format!("{out}.onnx"), model.to_onnx())?;
    Ok(())
}

fn round(seconds: f64) -> f64 {
    (seconds * 100.0).round() / 100.0
}

/// User and system time of all threads, from ticks of 10 ms.
fn cpu_s() -> Result<f64> {
    let text = fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = text.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |at: usize| -> Result<f64> { Ok(fields.get(at).context("/proc/self/stat")?.parse()?) };
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}

fn peak_mb() -> Result<u64> {
    let text = fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse::<u64>()? / 1024)
}
