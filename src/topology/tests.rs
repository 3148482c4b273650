use super::*;
use crate::domain::topics;

fn problems(text: &str) -> Vec<String> {
    match Topology::parse("t.yaml", text) {
        Err(TopologyError::Invalid(problems)) => problems.iter().map(ToString::to_string).collect(),
        other => panic!("expected problems, got {other:?}"),
    }
}

/// A small complete topology whose lines tests change.
const SMALL: &str = "version: 1
defaults: {partitions: {single: 1, cluster: 4}, max_message_bytes: 1000000}
topics:
  - {name: in, from: outsiders, schema: command, cleanup: kept, timestamps: append}
  - {name: keyed, key: model, schema: registry_event, cleanup: kept}
  - {name: other, key: actor, schema: audit, cleanup: kept}
  - {name: facts, key: model, schema: model, cleanup: compacted, partitions: 1}
stages:
  - {name: keying, implemented: true, state_key: none, inputs: [in], outputs: [keyed, other]}
  - {name: fold, implemented: true, state_key: model, inputs: [keyed], outputs: [facts], settings: {plaintext_grace: 1h}}
  - {name: use, implemented: false, state_key: none, inputs: [keyed], broadcast: [facts], outputs: [other]}
";

fn changed(from: &str, to: &str) -> Vec<String> {
    assert!(SMALL.contains(from), "{from}");
    problems(&SMALL.replacen(from, to, 1))
}

#[test]
fn the_built_in_topology_keeps_its_own_rules_and_names_every_topic_of_the_code() {
    let topology = Topology::builtin().unwrap();
    for name in [
        topics::CONTRIBUTIONS,
        topics::MODEL_COMMANDS,
        topics::SCREENED,
        topics::MANIFESTS,
        topics::VERDICTS,
        topics::ACCEPTED,
        topics::REFUSED,
        topics::RECEIPTS,
        topics::ATTESTATION_REQUESTS,
        topics::ATTESTATIONS,
        topics::CHECKPOINTS,
        topics::PROOFS,
        topics::TRUST,
        topics::REGISTRY_EVENTS,
        topics::MODELS,
        topics::AUDIT,
        topics::DEAD_LETTERS,
        topics::ALERTS,
        topics::PROGRESS,
    ] {
        assert!(topology.topic(name).unwrap_or_else(|| panic!("{name}")).active, "{name}");
    }
    let implemented: Vec<_> = topology.stages().iter().filter(|s| s.implemented).map(|s| s.name.as_str()).collect();
    assert_eq!(
        implemented,
        [
            "intake",
            "dedup",
            "receipts",
            "keying",
            "registry",
            "warehouse",
            "training",
            "trials",
            "evaluation",
            "attribution",
            "attesting"
        ]
    );
    for topic in topology.active_topics() {
        let published = |s: &String| crate::codec::schema::EMBEDDED.iter().any(|e| e.name == s && e.published);
        assert!(topic.schema.as_ref().is_none_or(published), "{} is active, its schema must be published", topic.name);
    }
}

#[test]
fn profiles_change_partition_counts_only() {
    let single = Topology::builtin().unwrap();
    let cluster = single.clone().with_profile(Profile::Cluster);
    let two = [
        "contributions",
        "contributions.screened",
        "contributions.manifests",
        "contributions.verdicts",
        "contributions.accepted",
        "hokusai.changelog.dedup",
        "hokusai.changelog.receipts",
    ];
    for topic in single.topics() {
        assert_eq!(topic.partitions, if two.contains(&topic.name.as_str()) { 2 } else { 1 }, "{}", topic.name);
    }
    assert_eq!(cluster.topic("contributions.screened").unwrap().partitions, 16);
    assert_eq!(cluster.partition_counts()["hokusai.changelog.dedup"], 16);
    assert_eq!(cluster.with_profile(Profile::Single), single);
}

#[test]
fn stateful_stages_have_a_changelog_with_the_partitions_of_their_inputs() {
    let topology = Topology::builtin().unwrap();
    let receipts = topology.stage("receipts").unwrap();
    assert_eq!(receipts.changelog.as_deref(), Some("hokusai.changelog.receipts"));
    assert_eq!(receipts.settings.contribution_timeout, Some(Duration::from_secs(86_400)));
    assert_eq!(receipts.lead(), Some("contributions.manifests"));
    assert_eq!(topology.stage("intake").unwrap().changelog, None);
    assert!(topology.stage("nothing").unwrap_err().to_string().contains("intake, dedup"));
    assert!(topology.topic("hokusai.changelog.registry").unwrap().active);
    assert!(!topology.topic("hokusai.changelog.joining").unwrap().active);
}

#[test]
fn topic_configurations_are_kafkas_and_sorted() {
    let topology = Topology::builtin().unwrap();
    let configs = |name: &str| -> Vec<String> {
        topology.topic(name).unwrap().configs().into_iter().map(|(k, v)| format!("{k}={v}")).collect()
    };
    assert_eq!(
        configs("contributions"),
        [
            "cleanup.policy=delete",
            "max.message.bytes=8388608",
            "message.timestamp.type=LogAppendTime",
            "retention.bytes=-1",
            "retention.ms=604800000",
            "segment.ms=900000",
        ]
    );
    assert!(configs("receipts").contains(&"cleanup.policy=compact".to_owned()));
    assert!(configs("contributions.manifests").contains(&"message.timestamp.type=LogAppendTime".to_owned()));
    assert!(configs("contributions.screened").contains(&"retention.ms=-1".to_owned()));
}

#[test]
fn an_input_that_is_not_partitioned_by_the_state_key_is_refused_with_its_line() {
    let problems = changed("state_key: model, inputs: [keyed]", "state_key: model, inputs: [keyed, other]");
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].starts_with("t.yaml:10:"), "{problems:?}");
    assert!(problems[0].contains("fold keeps its state by model, but other is partitioned by actor"), "{problems:?}");
    let problems = changed("state_key: model, inputs: [keyed]", "state_key: model, inputs: [in]");
    assert!(problems.iter().any(|p| p.contains("in is written by outsiders")), "{problems:?}");
}

#[test]
fn inputs_of_one_stage_have_equal_partition_counts() {
    let text = SMALL
        .replace("key: actor, schema: audit, cleanup: kept", "key: model, schema: audit, cleanup: kept, partitions: 2")
        .replace("state_key: model, inputs: [keyed]", "state_key: model, inputs: [keyed, other]");
    let problems = problems(&text);
    assert!(problems[0].contains("keyed with [1, 4] partitions") && problems[0].contains("[2, 2]"), "{problems:?}");
}

#[test]
fn every_rule_names_its_line() {
    for (from, to, line, says) in [
        ("broadcast: [facts]", "broadcast: [keyed]", 11, "reads keyed twice"),
        ("broadcast: [facts]", "broadcast: [other]", 11, "must be compacted"),
        ("outputs: [facts]", "outputs: [nowhere]", 10, "there is no topic nowhere"),
        ("schema: audit", "schema: audits", 6, "there is no schemas/audits.avsc"),
        ("timestamps: append", "timestamps: create", 4, "needs `timestamps: append`"),
        ("{name: in,", "{name: in, key: model,", 4, "keys and partitions are not trusted"),
        ("{name: keyed, key: model,", "{name: keyed,", 5, "names no key"),
        ("partitions: 1}", "partitions: 0}", 7, "0 partitions"),
        ("cleanup: compacted", "cleanup: timed", 7, "needs `retain`"),
        (
            "name: other, key: actor, schema: audit, cleanup: kept",
            "name: other, key: actor, schema: audit, cleanup: purged",
            6,
            "no stage reads it",
        ),
        ("outputs: [facts]", "outputs: []", 7, "no stage writes facts"),
        (
            "name: keyed, key: model, schema: registry_event, cleanup: kept}",
            "name: keyed, key: model, schema: registry_event, cleanup: purged, segment: 2h}",
            5,
            "at most `plaintext_grace`",
        ),
        ("name: fold", "name: keying", 10, "stage keying stands twice"),
        ("name: other, key", "name: keyed, key", 6, "topic keyed stands twice"),
        ("name: fold", "name: Fold", 10, "no usable name"),
        ("state_key: model, ", "", 10, "names no state_key"),
        ("version: 1", "version: 2", 1, "version 2 is not known"),
        ("inputs: [in]", "inputs: []", 9, "reads no keyed input"),
    ] {
        let found = changed(from, to);
        assert!(found.iter().any(|p| p.starts_with(&format!("t.yaml:{line}:")) && p.contains(says)), "{to}: {found:?}");
    }
}

#[test]
fn unknown_fields_and_broken_yaml_name_their_line() {
    let found = changed("cleanup: kept, timestamps", "clean: kept, timestamps");
    assert!(found[0].starts_with("t.yaml:4:") && found[0].contains("clean"), "{found:?}");
    let found = changed("partitions: 1}", "partitions: {single: 1}}");
    assert!(found[0].starts_with("t.yaml:7:") && found[0].contains("cluster"), "{found:?}");
    let found = changed("  - {name: fold", "  - {name: [fold");
    assert!(found[0].starts_with("t.yaml:"), "{found:?}");
    let found = changed("cleanup: compacted", "cleanup: timed, retain: 7 days");
    assert!(found[0].contains("7 days") && found[0].contains("15m"), "{found:?}");
}

#[test]
fn a_file_that_extends_the_built_in_one_changes_counts_times_and_settings_only() {
    let topology = Topology::parse(
        "mine.yaml",
        "version: 1
extends: builtin
topics:
  - {name: contributions, partitions: 1}
  - {name: receipts, partitions: {single: 3, cluster: 5}}
stages:
  - {name: receipts, settings: {contribution_timeout: 5s}}
",
    )
    .unwrap();
    assert_eq!(topology.topic("contributions").unwrap().partitions, 1);
    assert_eq!(topology.topic("receipts").unwrap().partitions, 3);
    let settings = &topology.stage("receipts").unwrap().settings;
    assert_eq!(settings.contribution_timeout, Some(Duration::from_secs(5)));
    assert_eq!(settings.max_open_contributions, Some(100_000));
    let head = "version: 1\nextends: builtin\n";
    let found = problems(&format!("{head}topics: [{{name: contributions.manifests, partitions: 3}}]"));
    assert!(found[0].contains("contributions.verdicts with [2, 16]"), "{found:?}");
    assert!(problems(&format!("{head}topics: [{{name: receipts, key: x}}]"))[0].contains("cannot differ"));
    assert!(problems("version: 1\nextends: other\n")[0].contains("cannot be extended"));
    assert!(problems("version: 1\n")[0].contains("needs `defaults`"));
}

#[test]
fn every_topic_and_stage_is_shown() {
    let topology = Topology::builtin().unwrap();
    let (table, mermaid, json) = (topology.render_table(), topology.render_mermaid(), topology.to_json());
    for topic in topology.topics() {
        assert!(table.contains(&topic.name), "{}", topic.name);
        assert!(topic.name.starts_with("hokusai.") || mermaid.contains(&topic.name), "{}", topic.name);
    }
    for stage in topology.stages() {
        assert!(table.contains(&stage.name) && mermaid.contains(&stage.name), "{}", stage.name);
    }
    assert!(table.lines().any(|line| line.starts_with("predictions *")), "{table}");
    assert!(mermaid.contains("t_contributions --> s_intake") && mermaid.contains("t_models -->|broadcast| s_intake"));
    assert!(mermaid.contains("t_joining_events -.-> s_joining"));
    assert_eq!(json["stages"][0]["name"], "intake");
}

#[test]
fn a_reader_outside_may_hold_back_internal_topics_but_no_plaintext() {
    let with = |reader: &str| format!("version: 1\nextends: builtin\nreaders:\n  - {reader}\n");
    let text = with("{name: audit, about: a stranger, topics: [contributions.screened, contributions.manifests]}");
    let topology = Topology::parse("t.yaml", &text).unwrap();
    let [reader] = topology.readers() else { panic!("one reader") };
    assert_eq!((reader.name.as_str(), reader.patience.as_secs()), ("audit", 3_600));
    assert!(topology.render_table().contains("READER OUTSIDE") && topology.render_mermaid().contains("r_audit"));
    assert!(!Topology::builtin().unwrap().render_table().contains("READER OUTSIDE"));
    for (reader, rule) in [
        (
            "{name: audit, topics: [contributions]}",
            "t.yaml:4:28: contributions is purged of plaintext in time, whoever else",
        ),
        ("{name: audit, topics: [receipts]}", "receipts is not purged; help:"),
        ("{name: audit, topics: [nothing]}", "there is no topic nothing"),
        ("{name: audit, topics: []}", "audit reads no topic"),
        ("{name: dedup, topics: [contributions.screened]}", "a stage or reader dedup stands twice"),
    ] {
        let found = problems(&with(reader));
        assert!(found.len() == 1 && found[0].contains(rule), "{reader}: {found:?}");
    }
}
