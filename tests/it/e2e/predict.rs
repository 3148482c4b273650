//! Models that the library made, registered, scored and exported as other programs do it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema};
use hokusai::codec::formats::{Format, Limits, decode};
use hokusai::domain::contract::Spec;
use hokusai::ml::arrow::{frame_of, labels};
use hokusai::ml::declare::declaration;
use hokusai::ml::encoding::Encoding;
use hokusai::ml::model::Model;
use hokusai::ml::random::{Purpose, draw};
use hokusai::ml::{Training, Unattended, learner};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::on_every_cluster;
use crate::support::cluster::Cluster;
use crate::support::flow::{rows, shop, shop_spec};
use crate::support::hokusai::{Finished, command, finish};
use crate::support::unique;

on_every_cluster! {
    a_registered_model_scores_as_the_library_does_and_is_exported,
    what_cannot_be_scored_is_told_and_leaves_nothing,
    a_model_of_another_program_is_registered_once_it_conforms_and_then_scores,
}

fn batch(values: &[Value]) -> RecordBatch {
    let field = |name, kind| Field::new(name, kind, true);
    let schema = Arc::new(Schema::new(vec![
        field("order", DataType::Int64),
        field("amount", DataType::Float64),
        field("plan", DataType::Utf8),
        field("again", DataType::Int64),
    ]));
    let text = Value::Array(values.to_vec()).to_string();
    let decoded = decode(Format::Json, text.as_bytes(), &schema, &Limits::default()).unwrap();
    assert!(decoded.rejects.is_empty());
    decoded.batch
}

/// What is learned of the shop's rows, as its contract declares it.
fn trained(spec: &str) -> Model {
    let declared = declaration(&Spec::parse_yaml(spec, "shop.yaml").unwrap()).unwrap();
    let batches = [batch(&rows(0..400))];
    let frame = frame_of(&batches, &declared.features).unwrap();
    let labels: Vec<f64> = labels(&batches, &declared.label, &declared.task).unwrap().into_iter().flatten().collect();
    let encoding = Encoding::compile(&declared.features, &frame).unwrap();
    let features = encoding.encode(&frame).unwrap();
    let row_keys: Vec<u64> = (0..400).map(|row| draw(1, Purpose::Trials, 0, row)).collect();
    let training = Training {
        features: &features,
        labels: &labels,
        task: &declared.task,
        row_keys: &row_keys,
        fold: &hokusai::ml::fold::Fold::Rows,
        seed: 1,
        threads: 1,
        warm: None,
    };
    let learner = learner("trees").unwrap();
    let parameters = learner.parameters(json!({"iterations": 20}).as_object().unwrap()).unwrap();
    let learned = learner.learn(&training, &parameters, None, &mut Unattended).unwrap();
    Model { task: declared.task, encoding, predictor: learned.predictor }
}

/// The library's scores of rows, as CSV.
fn expected(model: &Model, values: &[Value]) -> String {
    let declared = declaration(&Spec::parse_yaml(&shop_spec("m"), "shop.yaml").unwrap()).unwrap().features;
    let scores = values.chunks(50_000).flat_map(|values| {
        model
            .predict(&frame_of(&[batch(values)], &declared).unwrap())
            .unwrap()
            .into_iter()
            .map(|score| format!("{score}\n"))
    });
    std::iter::once("score\n".to_owned()).chain(scores).collect()
}

fn write(folder: &Path, ending: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join(format!("{}.{ending}", unique("file")));
    std::fs::write(&path, content).expect("a file");
    path
}

fn csv(values: &[Value], columns: &[&str]) -> String {
    let line = |row: &Value| {
        let cell = |name: &&str| match &row[*name] {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            other => other.to_string(),
        };
        columns.iter().map(cell).collect::<Vec<_>>().join(",") + "\n"
    };
    columns.join(",") + "\n" + &values.iter().map(line).collect::<String>()
}

fn registered(cluster: &Cluster, model: &str, file: &Path) -> Value {
    cluster.lines(&["model", "register", model, "--artefact", &file.to_string_lossy()]).remove(0)
}

fn a_registered_model_scores_as_the_library_does_and_is_exported(cluster: &Cluster) {
    let (model, _) = shop(cluster);
    let learned = trained(&shop_spec(&model));
    let artefact = write(cluster.scratch(), "hkml", learned.to_bytes());
    assert_eq!(registered(cluster, &model, &artefact)["version"], "1.0.0");
    let shown = cluster.lines(&["model", "show", &model]).remove(0);
    let version = &shown["versions"][0];
    assert_eq!(version["features"], json!(["amount", "order", "plan"]), "{version}");
    assert_eq!(version["artefact"]["media_type"], "application/vnd.hokusai.model");

    let mut values = rows(390..800);
    values[3]["plan"] = json!("never seen");
    values[4]["plan"] = Value::Null;
    values[5]["amount"] = Value::Null;
    let expected = expected(&learned, &values);
    // Label and personal data are columns of the contract: they may stand in the file and are not read.
    let columns = ["note", "order", "plan", "amount", "again", "email"];
    let file = write(cluster.scratch(), "csv", csv(&values, &columns));
    let file = file.to_string_lossy();
    let scores = cluster.run(&["predict", &format!("{model}@1.0.0"), &file]);
    assert_eq!((scores.code, scores.out.as_str()), (Some(0), expected.as_str()), "{}", scores.err);
    cluster.lines(&["model", "alias", &model, "champion", "1.0.0"]);
    let lines = cluster.run(&["predict", &format!("{model}@champion"), &file, "--format", "json"]);
    let wanted: String = expected.lines().skip(1).map(|score| format!("{{\"score\":{score}}}\n")).collect();
    assert_eq!((lines.code, lines.out), (Some(0), wanted), "{}", lines.err);

    let (onnx, native) = (cluster.scratch().join(unique("onnx")), cluster.scratch().join(unique("native")));
    let (onnx_path, native_path) = (onnx.to_string_lossy(), native.to_string_lossy());
    let which = format!("{model}@champion");
    let told = cluster.lines(&["model", "export", &which, "--onnx", &onnx_path, "--native", &native_path]).remove(0);
    assert_eq!(told["inputs"], json!(["order", "amount", "plan"]), "{told}");
    assert_eq!((&told["opset"]["ai.onnx"], &told["opset"]["ai.onnx.ml"]), (&json!(13), &json!(3)));
    assert_eq!(told["model"], format!("{model}@1.0.0"));
    assert_eq!(std::fs::read(&onnx).unwrap(), learned.to_onnx());
    assert_eq!(std::fs::read(&native).unwrap(), learned.to_bytes());

    let refusals = [(format!("{model}@2.0.0"), 1), (format!("{model}-none@1.0.0"), 1), (model.clone(), 2)];
    for (which, code) in refusals {
        let refused = cluster.run(&["predict", &which, &file]);
        assert!(refused.code == Some(code) && refused.err.contains("help:"), "{which}: {refused:?}");
    }
}

fn what_cannot_be_scored_is_told_and_leaves_nothing(cluster: &Cluster) {
    let (model, _) = shop(cluster);
    let learned = trained(&shop_spec(&model));
    let bytes = learned.to_bytes();
    let rows = write(cluster.scratch(), "csv", csv(&rows(0..3), &["order", "plan", "amount"]));
    let predict = |version: &str| cluster.run(&["predict", &format!("{model}@{version}"), &rows.to_string_lossy()]);
    let told = |ran: &Finished, code: i32, text: &str| {
        assert!(ran.code == Some(code) && ran.err.contains(text), "{text}: {ran:?}");
    };

    let mut stranger = learned.clone();
    stranger.encoding.features[0].column = "basket".to_owned();
    for (bytes, text) in [
        (bytes[..bytes.len() - 1].to_vec(), "is damaged"),
        (Vec::new(), "is empty"),
        (stranger.to_bytes(), "reads the column basket"),
    ] {
        let file = write(cluster.scratch(), "hkml", bytes);
        let refused = cluster.run(&["model", "register", &model, "--artefact", &file.to_string_lossy()]);
        told(&refused, 4, text);
    }
    let shown = cluster.lines(&["model", "show", &model]).remove(0);
    assert_eq!(shown["versions"], json!([]));

    // Of another form: its bytes are kept, and another runtime runs them. ONNX has to be imported.
    let onnx = write(cluster.scratch(), "onnx", learned.to_onnx());
    let refused = cluster.run(&["model", "register", &model, "--artefact", &onnx.to_string_lossy()]);
    told(&refused, 4, "--conformance");
    let other = write(cluster.scratch(), "bin", ["PK", &model].concat());
    assert_eq!(registered(cluster, &model, &other)["version"], "1.0.0");
    told(&predict("1.0.0"), 4, "its own runtime");
    // Registered by its digest alone.
    let digest = data_encoding::HEXLOWER.encode(&Sha256::digest(model.as_bytes()));
    cluster.lines(&["model", "register", &model, "--digest", &digest, "--size", "10"]);
    told(&predict("1.1.0"), 1, "--store");
    // Damaged in the store: the digest is checked before anything reads the bytes.
    let mut own = learned.clone();
    if let hokusai::ml::Task::Classes(classes) = &mut own.task {
        classes[0] = format!("not of {model}");
    }
    let file = write(cluster.scratch(), "hkml", own.to_bytes());
    let version = registered(cluster, &model, &file)["version"].as_str().expect("a version").to_owned();
    assert_eq!(predict(&version).code, Some(0));
    let digest = data_encoding::HEXLOWER.encode(&Sha256::digest(own.to_bytes()));
    let store = cluster.tables().parent().expect("the store").to_owned();
    let blob = store.join("blobs/sha256").join(&digest[..2]).join(&digest);
    let mut damaged = std::fs::read(&blob).unwrap();
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    std::fs::write(&blob, damaged).unwrap();
    told(&predict(&version), 1, &digest);
}

/// ONNX with the features of a version that was exported; files of other programs are read in the library's tests.
fn a_model_of_another_program_is_registered_once_it_conforms_and_then_scores(cluster: &Cluster) {
    let (model, _) = shop(cluster);
    let learned = trained(&shop_spec(&model));
    let onnx = write(cluster.scratch(), "onnx", learned.to_onnx());
    let values = rows(0..64);
    let declared = declaration(&Spec::parse_yaml(&shop_spec("m"), "shop.yaml").unwrap()).unwrap().features;
    let frame = frame_of(&[batch(&values)], &declared).unwrap();
    let (encoded, scores) = (learned.encoding.encode(&frame).unwrap(), learned.predict(&frame).unwrap());
    let conformance = |error: f64| {
        let line = |row: usize| {
            let cells = encoded.columns.iter().map(|column| column.values[row].to_string());
            cells.chain([(scores[row] + if row == 40 { error } else { 0.0 }).to_string()]).collect::<Vec<_>>().join(",")
        };
        let lines: Vec<String> = (0..64).map(line).collect();
        write(cluster.scratch(), "csv", format!("{},prediction\n{}\n", encoded.names.join(","), lines.join("\n")))
    };
    let native = write(cluster.scratch(), "hkml", learned.to_bytes());
    let encoding = cluster.scratch().join(unique("encoding"));
    let (native, encoding) = (native.to_string_lossy(), encoding.to_string_lossy());
    let exported = finish(command(&["model", "export", "--artefact", &native, "--encoding", &encoding]));
    assert_eq!(exported.code, Some(0), "{exported:?}");

    let register = |file: &Path, rows: &Path| {
        let (file, rows) = (file.to_string_lossy(), rows.to_string_lossy());
        let arguments =
            ["model", "register", &model, "--artefact", &file, "--encoding", &encoding, "--conformance", &rows];
        cluster.run(&arguments)
    };
    let wrong = register(&onnx, &conformance(0.01));
    assert!(wrong.code == Some(4) && wrong.err.contains("conformance row 41"), "{wrong:?}");
    let bomb = write(cluster.scratch(), "onnx", [&[0x3A, 0xFF, 0xFF, 0xFF, 0xFF, 0x07][..], &[0x0A; 4_096]].concat());
    let refused = register(&bomb, &conformance(0.0));
    assert!(refused.code == Some(4) && refused.err.contains("this is no ONNX model"), "{refused:?}");
    let shown = cluster.lines(&["model", "show", &model]).remove(0);
    assert_eq!(shown["versions"], json!([]));

    let told = register(&onnx, &conformance(0.0));
    assert_eq!(told.code, Some(0), "{told:?}");
    let file = write(cluster.scratch(), "csv", csv(&values, &["order", "plan", "amount"]));
    let which = format!("{model}@1.0.0");
    let found = cluster.run(&["predict", &which, &file.to_string_lossy()]);
    assert_eq!(found.code, Some(0), "{found:?}");
    let found: Vec<f64> = found.out.lines().skip(1).map(|score| score.parse().expect("a score")).collect();
    assert_eq!(found.len(), scores.len());
    assert!(found.iter().zip(&scores).all(|(a, b)| (a - b).abs() < 1e-5), "{found:?}\n{scores:?}");
    let back = cluster.scratch().join(unique("back"));
    cluster.lines(&["model", "export", &which, "--onnx", &back.to_string_lossy()]);
    assert_eq!(std::fs::read(back).unwrap(), std::fs::read(onnx).unwrap(), "the file comes back as it was");
}

fn offline(artefact: &Path, more: &[&str]) -> Finished {
    let artefact = artefact.to_string_lossy();
    finish(command(&[&["predict", "--artefact", &artefact], more].concat()))
}

#[test]
fn the_same_rows_have_the_same_bytes_of_score_in_every_format_and_in_whatever_chunk_they_stand() {
    let folder = tempfile::tempdir().unwrap();
    let model = trained(&shop_spec("shop"));
    let artefact = write(folder.path(), "hkml", model.to_bytes());
    // More than one chunk holds.
    let values: Vec<Value> = rows(0..70_000)
        .into_iter()
        .map(|row| json!({"order": row["order"], "plan": row["plan"], "amount": row["amount"]}))
        .collect();
    let expected = expected(&model, &values);
    let lines: String = values.iter().map(|row| format!("{row}\n")).collect();
    let parquet = folder.path().join("rows.parquet");
    let all: Vec<RecordBatch> = values.chunks(30_000).map(|v| batch(v).project(&[1, 2, 0]).unwrap()).collect();
    let file = std::fs::File::create(&parquet).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, all[0].schema(), None).unwrap();
    all.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.close().unwrap();
    let files = [
        write(folder.path(), "csv", csv(&values, &["plan", "order", "amount"])),
        write(folder.path(), "jsonl", lines),
        parquet,
    ];
    for file in files {
        let scores = offline(&artefact, &[&file.to_string_lossy()]);
        assert_eq!(scores.code, Some(0), "{}", scores.err);
        assert!(scores.out == expected, "{}", file.display());
    }
}

#[test]
fn rows_that_do_not_fit_the_model_are_told_by_row_and_column_and_leave_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let artefact = write(folder.path(), "hkml", trained(&shop_spec("shop")).to_bytes());
    let out = folder.path().join("scores.csv");
    let out = out.to_string_lossy();
    let (own, mut wrong) = (rows(0..5), rows(0..5));
    wrong[3]["amount"] = json!("many");
    let wanted = ["order", "plan", "amount"];
    for (content, parts) in [
        (csv(&own, &["order", "plan"]), ["no column amount", "help:"]),
        (csv(&own, &["order", "plan", "amount", "again"]), ["does not know the columns again", "--ignore-extra"]),
        (csv(&wrong, &wanted), ["row 4: column amount", "expected finite number"]),
    ] {
        let file = write(folder.path(), "csv", content);
        let refused = offline(&artefact, &[&file.to_string_lossy(), "--out", &out]);
        assert!(refused.code == Some(4) && parts.iter().all(|part| refused.err.contains(part)), "{refused:?}");
        assert!(!Path::new(&*out).exists());
    }
    let file = write(folder.path(), "csv", csv(&own, &["order", "plan", "amount", "again"]));
    let scored = offline(&artefact, &[&file.to_string_lossy(), "--out", &out, "--ignore-extra"]);
    assert_eq!((scored.code, scored.out.as_str()), (Some(0), ""), "{}", scored.err);
    assert_eq!(std::fs::read_to_string(&*out).unwrap().lines().count(), 6);
    assert_eq!(
        std::fs::read_dir(folder.path())
            .unwrap()
            .filter(|f| f.as_ref().unwrap().file_name().to_string_lossy().starts_with('.'))
            .count(),
        0
    );
}

#[test]
fn a_file_that_is_no_artefact_is_refused_before_any_row_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let model = trained(&shop_spec("shop"));
    let bytes = model.to_bytes();
    for (content, text) in [
        (model.to_onnx(), "does not begin with HKML"),
        (bytes[..bytes.len() / 2].to_vec(), "help:"),
        ([&bytes[..], b"x"].concat(), "bytes are left over"),
        ([&bytes[..4], &[9, 9], &bytes[6..]].concat(), "format version"),
        ([&bytes[..7], &[255; 12], &bytes[19..]].concat(), "help:"),
    ] {
        let artefact = write(folder.path(), "hkml", content);
        let refused = offline(&artefact, &["nowhere.csv"]);
        assert!(refused.code == Some(4) && refused.err.contains(text), "{text}: {refused:?}");
        let onnx = folder.path().join("out.onnx");
        let arguments =
            ["model", "export", "--artefact", &artefact.to_string_lossy(), "--onnx", &onnx.to_string_lossy()];
        assert_eq!(finish(command(&arguments)).code, Some(4));
        assert!(!onnx.exists());
    }
    assert_eq!(finish(command(&["predict", "nowhere.csv"])).code, Some(2));
}
