//! Other people's clients: kcat, Python's confluent-kafka, and Kafka Streams (the Java client, exactly-once).

use crate::on_both_brokers;
use crate::support::broker::Broker;
use crate::support::client::{Isolation, Producer, read, read_texts, topic};
use crate::support::{cache, eventually, kafka, root, skip};
use std::io::Write;
use std::process::{Command, Output, Stdio};

on_both_brokers! {
    kcat_produces_and_consumes,
    confluent_kafka_for_python_runs_a_transaction,
    kafka_streams_runs_exactly_once,
}

fn run(mut command: Command, input: &str) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

fn kcat_produces_and_consumes(broker: &Broker) {
    if Command::new("kcat").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        return skip("kcat", "it is not installed");
    }
    let topic = topic(broker, "kcat", 1, &[]);
    let kcat = |arguments: &[&str]| {
        let mut command = Command::new("kcat");
        command.args(["-b", &broker.bootstrap, "-t", &topic]).args(arguments);
        command
    };
    run(kcat(&["-P", "-K", ":"]), "a:1\nb:2\n");
    let out = run(kcat(&["-C", "-e", "-q", "-o", "beginning", "-f", "%k=%s@%o\n"]), "");
    assert_eq!(String::from_utf8_lossy(&out.stdout), "a=1@0\nb=2@1\n");
}

fn confluent_kafka_for_python_runs_a_transaction(broker: &Broker) {
    let python = cache().join("python/bin/python");
    if !python.exists() {
        return skip("confluent-kafka for Python", "no Python environment in the cache (tests/setup.sh makes it)");
    }
    let (input, output) = (topic(broker, "py-in", 1, &[]), topic(broker, "py-out", 1, &[]));
    Producer::new(broker, &[]).texts(&input, 0, (0..20).map(|n| n.to_string()));
    let mut command = Command::new(python);
    command.arg(root().join("tests/python/transaction.py")).args([&broker.bootstrap, &input, &output]);
    run(command, "");
    let doubled: Vec<String> = (0..20).map(|n| (2 * n).to_string()).collect();
    let seen = eventually("the committed outputs", || match read_texts(broker, &output, Isolation::Committed) {
        texts if texts.is_empty() => Err("nothing yet".into()),
        texts => Ok(texts),
    });
    assert_eq!(seen, doubled);
}

fn kafka_streams_runs_exactly_once(broker: &Broker) {
    let jars = match kafka::jars() {
        Ok(jars) => jars,
        Err(reason) => return skip("Kafka Streams", &reason),
    };
    const RECORDS: usize = 2_000;
    let (input, output) = (topic(broker, "ks-in", 2, &[]), topic(broker, "ks-out", 2, &[]));
    let producer = Producer::new(broker, &[]);
    for n in 0..RECORDS {
        let value = format!(
            r#"{{"contribution_id":"c-{n:08}","email":"user{n}@example.com","features":[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15],"label":{}}}"#,
            n % 2
        );
        producer.texts(&input, i32::try_from(n % 2).expect("0 or 1"), [value]);
    }
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let mut compile = Command::new("javac");
    compile.args(["-cp", &jars, "-d"]).arg(temporary.path()).arg(root().join("benches/peers/KafkaStreamsPeer.java"));
    run(compile, "");
    let mut streams = Command::new("java");
    let class_path = format!("{}:{jars}", temporary.path().display());
    streams.arg(format!("-Djava.io.tmpdir={}", temporary.path().display()));
    streams.args([
        "-cp",
        &class_path,
        "KafkaStreamsPeer",
        &broker.bootstrap,
        &input,
        &output,
        &RECORDS.to_string(),
        "100",
        "1",
    ]);
    run(streams, "");
    let records = eventually("the last commit", || match read(broker, &output, Isolation::Committed) {
        records if records.len() >= RECORDS => Ok(records),
        records => Err(format!("{} records", records.len())),
    });
    let mut ids: Vec<String> = records
        .iter()
        .map(|r| {
            serde_json::from_str::<serde_json::Value>(&r.text()).expect("JSON")["contribution_id"]
                .as_str()
                .expect("text")
                .to_owned()
        })
        .collect();
    ids.sort();
    let wanted: Vec<String> = (0..RECORDS).map(|n| format!("c-{n:08}")).collect();
    assert_eq!(ids, wanted, "each once");
    assert!(records.iter().all(|r| !r.text().contains('@')), "and processed");
}
