//! What a benchmark's owner discloses of an evaluation, and what a stranger recomputes of it offline: called by the case of evaluations,
//! which has an accepted and a refused attempt at hand.

use super::evaluation::{logged, text};
use crate::support::cluster::Cluster;
use crate::support::hokusai::{Finished, command, finish};
use crate::support::{eventually, unique};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

const LEVELS: [&str; 3] = ["level 1, figures", "level 2, predictions", "level 3, retraining"];

/// A stranger's folder: a bundle of an evaluation, the log, the trust root, and its inputs.
struct Stranger {
    folder: PathBuf,
}

impl Stranger {
    fn new(cluster: &Cluster, model: &str, told: &Value, level: &str) -> Self {
        let folder = cluster.scratch().join(unique("inputs-of"));
        std::fs::create_dir_all(&folder).expect("a folder");
        let own = Self { folder };
        let entries = logged(cluster, model, text(told, "/evaluation_id"));
        let leaf = text(&entries[1], "/leaf");
        cluster.lines(&["attestation", "trust", "-o", &own.file("trust.json")]);
        // By the hash that the evaluation's record names; the log's own leaf does as well.
        let bundled = cluster
            .lines(&["attestation", "export", text(told, "/statement"), "-o", &own.file("bundle.json")])
            .remove(0);
        assert_eq!(bundled["leaf"], leaf);
        cluster.lines(&["attestation", "log", "-o", &own.file("log.jsonl")]);
        let written =
            cluster.lines(&["attestation", "inputs", leaf, "--level", level, "-o", &own.file("inputs")]).remove(0);
        assert_eq!(
            (&written["evaluation_id"], &written["level"].to_string()),
            (&told["evaluation_id"], &level.to_owned())
        );
        own
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).to_string_lossy().into_owned()
    }

    fn input(&self, name: &str) -> PathBuf {
        self.folder.join("inputs").join(name)
    }

    /// Verifies with no broker in reach.
    fn verify(&self) -> Finished {
        self.verify_with("bundle.json", "inputs")
    }

    fn verify_with(&self, bundle: &str, inputs: &str) -> Finished {
        let (bundle, trust, inputs, log) =
            (self.file(bundle), self.file("trust.json"), self.file(inputs), self.file("log.jsonl"));
        let mut verify = command(&["verify", &bundle, "--trust", &trust, "--inputs", &inputs, "--log", &log]);
        verify.args(["--format", "json", "--data"]).arg(self.folder.join("nowhere"));
        verify.env("HOKUSAI_BROKERS", "127.0.0.1:1");
        finish(verify)
    }

    /// The outcome of each level.
    fn levels(&self, code: i32) -> [Value; 3] {
        let told = self.verify().lines(code).remove(0);
        let checks = told["checks"].as_array().expect("checks").clone();
        LEVELS.map(|level| {
            let check = checks.iter().find(|check| check["check"] == level);
            check.unwrap_or_else(|| panic!("{level}: {told}"))["outcome"].clone()
        })
    }

    /// Changes a file, mends the manifest if it is asked to, and puts both back after the look.
    fn changed(&self, name: &str, mended: bool, change: impl FnOnce(Vec<u8>) -> Vec<u8>) {
        let (path, manifest) = (self.input(name), self.input("inputs.json"));
        let (before, said) = (std::fs::read(&path).expect("a file"), std::fs::read(&manifest).expect("a manifest"));
        let after = change(before.clone());
        assert_ne!(after, before, "{name}");
        std::fs::write(&path, &after).expect("a file");
        if mended {
            let mut said: Value = serde_json::from_slice(&said).expect("JSON");
            let hash: [u8; 32] = Sha256::digest(&after).into();
            let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
            said["files"][name] = json!({"sha256": hex, "size": after.len()});
            std::fs::write(&manifest, said.to_string()).expect("a manifest");
        }
        let found = self.verify();
        assert_eq!(found.code, Some(15), "{name}, mended {mended}: {found:?}");
        std::fs::write(&path, before).expect("a file");
        std::fs::write(&manifest, said).expect("a manifest");
    }
}

/// An accepted evaluation, at every level.
pub(super) fn every_level(cluster: &Cluster, model: &str, told: &Value) {
    let stranger = Stranger::new(cluster, model, told, "3");
    assert_eq!(stranger.levels(0), ["passed", "passed", "passed"].map(|outcome| json!(outcome)));
    let checked = |finished: Finished, code: i32, name: &str| {
        let told = finished.lines(code).remove(0);
        let checks = told["checks"].as_array().expect("checks").clone();
        checks.into_iter().find(|check| check["check"] == name).unwrap_or_else(|| panic!("{name}: {told}"))
    };
    let open = checked(stranger.verify(), 0, "unanswered preregistrations");
    assert!(!text(&open, "/detail").contains(text(told, "/evaluation_id")), "it is answered: {open}");
    // The decision that made the baseline a version is about the very file.
    let subject = format!("{model}@1.0.0");
    let entries = cluster.lines(&["attestation", "list"]);
    let decision = entries.iter().find(|entry| entry["subject"] == subject.as_str()).expect("a decision");
    cluster.lines(&["attestation", "export", text(decision, "/leaf"), "-o", &stranger.file("decision.json")]);
    cluster.lines(&["attestation", "log", "-o", &stranger.file("log.jsonl")]);
    assert_eq!(checked(stranger.verify_with("decision.json", "inputs"), 0, "artefacts")["outcome"], "passed");
    std::fs::create_dir(stranger.folder.join("nothing")).expect("a folder");
    assert_eq!(checked(stranger.verify_with("decision.json", "nothing"), 15, "artefacts")["outcome"], "failed");
}

/// An accepted evaluation, at every level, with every file changed once.
pub(super) fn accepted(cluster: &Cluster, model: &str, told: &Value) {
    let stranger = Stranger::new(cluster, model, told, "3");
    assert_eq!(stranger.levels(0), ["passed", "passed", "passed"].map(|outcome| json!(outcome)));
    let flipped = |mut bytes: Vec<u8>| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        bytes
    };
    let mut files: Vec<String> = names(&stranger.folder.join("inputs"));
    assert_eq!(files.len(), 10, "{files:?}");
    files.retain(|name| name != "inputs.json");
    for name in &files {
        stranger.changed(name, false, flipped);
    }
    // A hand that mends the manifest too is found by what the statement binds.
    let swapped = |from: &'static str, to: &'static str| {
        move |bytes: Vec<u8>| String::from_utf8(bytes).expect("a text").replacen(from, to, 1).into_bytes()
    };
    stranger.changed("samples.jsonl", true, swapped("\"label\":1", "\"label\":0"));
    stranger.changed("samples.jsonl", true, swapped("\"cand\":[", "\"cand\":[1"));
    stranger.changed("benchmark.jsonl", true, swapped("\"late\":1", "\"late\":0"));
    stranger.changed("receipts.jsonl", true, |mut bytes| {
        bytes[1] = if bytes[1] == b'0' { b'1' } else { b'0' };
        bytes
    });
    stranger.changed("contract.json", true, swapped("0.02", "0.01"));
    stranger.changed("recipe.json", true, swapped("\"seed\": 0", "\"seed\": 1"));
    let baseline = std::fs::read(stranger.input("baseline.model")).expect("a model");
    stranger.changed("candidate.model", true, |_| baseline);
    // Without the rows of level 3, level 2 is named; then level 1.
    for (gone, levels) in [
        (["training.arrow", "recipe.json"].as_slice(), ["passed", "passed", "not_checked"]),
        (["benchmark.jsonl", "candidate.model"].as_slice(), ["passed", "not_checked", "not_checked"]),
    ] {
        let manifest = stranger.input("inputs.json");
        let mut said: Value = serde_json::from_slice(&std::fs::read(&manifest).expect("a manifest")).expect("JSON");
        for name in gone {
            said["files"].as_object_mut().expect("files").remove(*name);
        }
        std::fs::write(&manifest, said.to_string()).expect("a manifest");
        assert_eq!(stranger.levels(0), levels.map(|outcome| json!(outcome)), "without {gone:?}");
    }
}

/// What the inputs of an evaluation disclose.
pub(super) struct Disclosed {
    /// The sealed rows, in their order.
    pub rows: Vec<Value>,
    /// The candidate's scores of them, in millionths.
    pub scores: Vec<i64>,
    /// File of the candidate's artefact.
    pub candidate: PathBuf,
}

/// Every level of an evaluation is right; what its inputs say.
pub(super) fn disclosed(cluster: &Cluster, model: &str, told: &Value) -> Disclosed {
    let stranger = Stranger::new(cluster, model, told, "3");
    assert_eq!(stranger.levels(0), ["passed", "passed", "passed"].map(|outcome| json!(outcome)));
    let lines = |name: &str| -> Vec<Value> {
        let text = std::fs::read_to_string(stranger.input(name)).expect("a file");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    let rows = lines("benchmark.jsonl").into_iter().map(|line| line["row"].clone()).collect();
    let score = |line: Value| line.pointer("/cand/0").or(line.pointer("/sample/cand/0")).and_then(Value::as_i64);
    let scores = lines("samples.jsonl").into_iter().filter_map(score).collect();
    Disclosed { rows, scores, candidate: stranger.input("candidate.model") }
}

fn names(folder: &Path) -> Vec<String> {
    let files = std::fs::read_dir(folder).expect("a folder").flatten();
    let mut names: Vec<String> = files.map(|file| file.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// A refused attempt tells nothing by itself; its benchmark's owner opens it, which is audited, and nobody else can.
pub(super) fn refused(cluster: &Cluster, model: &str, told: &Value) {
    let id = text(told, "/evaluation_id");
    let audited = || {
        let of_it = |entry: &Value| entry["value"]["resource"] == format!("evaluation/{id}");
        cluster.watch("audit").into_iter().filter(of_it).collect::<Vec<_>>()
    };
    let keyless = cluster.scratch().join(unique("no-keys"));
    std::fs::create_dir(&keyless).expect("a folder");
    let (keyless, out) = (keyless.to_string_lossy().into_owned(), unique("stolen"));
    logged(cluster, model, id);
    let stolen = cluster.run(&["attestation", "inputs", id, "-o", &out, "--keys", &keyless]);
    assert!(stolen.code == Some(1) && stolen.err.contains("no evaluation key"), "{stolen:?}");
    assert!(audited().is_empty() && !Path::new(&out).exists(), "nothing was opened");
    let stranger = Stranger::new(cluster, model, told, "2");
    assert_eq!(stranger.levels(0), ["passed", "passed", "not_checked"].map(|outcome| json!(outcome)));
    assert!(names(&stranger.folder.join("inputs")).contains(&"record.json".to_owned()));
    let figure =
        |bytes: Vec<u8>| String::from_utf8(bytes).expect("JSON").replacen("Ppm\": \"", "Ppm\": \"9", 1).into_bytes();
    stranger.changed("record.json", true, figure);
    let opened = eventually("the opening is audited", || {
        let found = audited();
        if found.is_empty() { Err("not yet".to_owned()) } else { Ok(found) }
    });
    let said = &opened[0]["value"];
    assert_eq!((text(said, "/action"), &said["allowed"]), ("evaluation.open", &json!(true)), "{said}");
    assert!(text(said, "/reason").contains("level 2"), "{said}");
}
