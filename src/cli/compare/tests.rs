use super::*;
use clap::Parser;
use std::io::Write;

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    args: CompareArgs,
}

fn args(file: &Path, more: &[&str]) -> CompareArgs {
    let file = file.to_string_lossy();
    let usual = ["compare", &file, "--label", "y", "--replicates", "50"];
    Cli::parse_from(usual.into_iter().chain(more.iter().copied())).args
}

/// 2,000 rows whose candidate is right more often; written with 3 decimals.
fn csv(folder: &Path) -> PathBuf {
    let file = folder.join("scores.csv");
    let mut out = std::fs::File::create(&file).unwrap();
    writeln!(out, "id,y,old,new,region").unwrap();
    for row in 0..2_000_u32 {
        let noise = f64::from(row * 7_919 % 1_000) / 1_000.0;
        let label = row % 2;
        let (old, new) = (noise * 0.8 + f64::from(label) * 0.1, noise * 0.7 + f64::from(label) * 0.2);
        writeln!(out, "{row},{label},{old:.3},{new:.3},{}", ["north", "south"][(row / 2 % 2) as usize]).unwrap();
    }
    file
}

#[test]
fn a_better_candidate_would_be_accepted_and_a_worse_one_refused_with_reasons() {
    let folder = tempfile::tempdir().unwrap();
    let file = csv(folder.path());
    let better = ["--baseline", "old", "--candidate", "new", "--stratum", "region", "--margin", "0.01"];
    let better = args(&file, &better);
    let (plan, evaluation) = compared(&better).unwrap();
    let told = json_of(&better, &plan, &evaluation);
    assert_eq!(told["would_be_accepted"], true, "{told:#}");
    assert_eq!(told["strata"].as_array().unwrap().len(), 2);
    assert_eq!(told["strata"][0]["stratum"], "north");
    let worse = args(&file, &["--baseline", "new", "--candidate", "old", "--guardrail", "log_loss=0"]);
    let (plan, evaluation) = compared(&worse).unwrap();
    let told = json_of(&worse, &plan, &evaluation);
    assert_eq!(told["would_be_accepted"], false);
    assert!(told["reasons"].to_string().contains("NOT_SIGNIFICANT"), "{told:#}");
    let lines = text_of(&worse, &plan, &evaluation);
    assert!(lines.last().unwrap().contains("would be refused"), "{lines:#?}");
}

#[test]
fn parquet_and_csv_of_the_same_numbers_give_the_same_answer() {
    use arrow::array::{Float64Array, Int32Array, RecordBatch};
    use std::sync::Arc;
    let folder = tempfile::tempdir().unwrap();
    let from_csv = csv(folder.path());
    let text = std::fs::read_to_string(&from_csv).unwrap();
    let column =
        |at: usize| text.lines().skip(1).map(move |line| line.split(',').nth(at).unwrap().parse::<f64>().unwrap());
    let batch = RecordBatch::try_from_iter([
        ("y", Arc::new(Int32Array::from_iter_values(column(1).map(|y| y as i32))) as arrow::array::ArrayRef),
        ("old", Arc::new(Float64Array::from_iter_values(column(2)))),
        ("new", Arc::new(Float64Array::from_iter_values(column(3)))),
    ])
    .unwrap();
    let file = folder.path().join("scores.parquet");
    let mut writer =
        parquet::arrow::ArrowWriter::try_new(std::fs::File::create(&file).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let of = |file: &Path| compared(&args(file, &["--baseline", "old", "--candidate", "new"])).unwrap().1;
    assert_eq!(format!("{:?}", of(&from_csv)), format!("{:?}", of(&file)));
}

#[test]
fn what_cannot_be_compared_is_refused_with_row_and_column() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bad.csv");
    for (text, told) in [
        ("y,a,b\n1,0.5,\n", "row 1, column \"b\": no value"),
        ("y,a,b\n1,0.5,0.5\n2,0.5,0.5\n", "label 2"),
        ("y,a,b\n1,0.5,1.5\n", "no probability"),
        ("y,a,b\n1,0.5,NaN\n", "row 1, column \"b\""),
        ("y,a\n1,0.5\n", "no column \"b\""),
        ("y,a,b\n", "no rows"),
        ("y,a,b\nyes,0.5,0.5\n", "row 1, column \"y\""),
    ] {
        std::fs::write(&file, text).unwrap();
        match compared(&args(&file, &["--baseline", "a", "--candidate", "b"])) {
            Err(Failure::Refused(refusal)) => assert!(refusal.contains(told), "{refusal}"),
            other => panic!("{text:?}: {:?}", other.err()),
        }
    }
}

#[test]
fn arguments_that_do_not_fit_are_a_usage_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = csv(folder.path());
    for more in [
        ["--baseline", "old,new", "--candidate", "new", "--alpha", "0.05"],
        ["--baseline", "old", "--candidate", "new", "--alpha", "1"],
        ["--baseline", "old", "--candidate", "new", "--attempt", "0"],
        ["--baseline", "old", "--candidate", "new", "--metric", "rmse"],
        ["--baseline", "old", "--candidate", "new", "--guardrail", "auroc"],
        ["--baseline", "old", "--candidate", "new", "--min-effect=-1", "--alpha=0.1"],
        ["--baseline", "old", "--candidate", "new", "--task", "multiclass"],
    ] {
        assert!(matches!(compared(&args(&file, &more)), Err(Failure::Usage(_))), "{more:?}");
    }
}
