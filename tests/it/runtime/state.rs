//! State on this machine's disk: a shortcut past the changelog, never another truth.

use std::path::Path;
use std::sync::atomic::Ordering;

use super::toy::{Process, Tenant, total};
use crate::on_both_brokers;
use crate::support::broker::Broker;
use crate::support::{DEADLINE, eventually};
use hokusai::store::StoreOptions;
use hokusai::stream::Settings;
use hokusai::stream::health::TaskState;
use hokusai::stream::snapshot::SnapshotSettings;

on_both_brokers! {
    a_start_goes_on_from_local_state_and_reads_only_what_follows_in_the_changelog,
    local_state_that_is_old_gone_or_of_another_topic_changes_no_sum,
    a_task_that_restores_for_long_does_not_hold_up_the_other_partitions,
    local_state_of_a_newer_version_stops_the_task_by_name,
    a_machine_with_an_empty_folder_goes_on_from_the_snapshot_and_without_one_from_the_changelog,
}

fn settings(folder: &Path, memory: usize) -> Settings {
    Settings { state_folder: Some(folder.to_owned()), state_memory: memory, ..Settings::default() }
}

fn restored(process: &Process) -> u64 {
    process.faults.restored.load(Ordering::Relaxed)
}

fn copy(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").args(["-a", "--"]).arg(from.join(".")).arg(to).status();
    assert!(copied.expect("cp(1)").success());
}

fn a_start_goes_on_from_local_state_and_reads_only_what_follows_in_the_changelog(broker: &Broker) {
    let (tenant, folder) = (Tenant::new(broker), tempfile::tempdir().unwrap());
    // Without memory every commit goes to disk, with it only the clean end does.
    for (round, memory) in [(1, 1 << 20), (2, 0), (3, 1 << 20)] {
        let process = tenant.start_with(settings(folder.path(), memory)).ready();
        assert_eq!(restored(&process), 0, "round {round}");
        tenant.write_amounts("amounts", 300);
        tenant.expect_sums(round * 300, i64::try_from(round).unwrap() * total(300));
        process.stop();
    }
}

fn local_state_that_is_old_gone_or_of_another_topic_changes_no_sum(broker: &Broker) {
    let (tenant, folder) = (Tenant::new(broker), tempfile::tempdir().unwrap());
    let old = tempfile::tempdir().unwrap();
    let mut rounds = 0;
    let mut run = |state: &Path| {
        rounds += 1;
        let process = tenant.start_with(settings(state, 1 << 20)).ready();
        let read = restored(&process);
        tenant.write_amounts("amounts", 100);
        tenant.expect_sums(rounds * 100, i64::try_from(rounds).unwrap() * total(100));
        process.stop();
        read
    };
    run(folder.path());
    copy(folder.path(), old.path());
    run(folder.path());
    assert!(run(old.path()) > 0, "it reads on from where the old state ends");
    std::fs::remove_dir_all(folder.path()).unwrap();
    assert!(run(folder.path()) > 0);
    // Another tenant's tasks keep their state under other names, and another changelog has another id.
    let other = Tenant::new(broker);
    let (ours, theirs) = (format!("{}sums", tenant.cluster.prefix), format!("{}sums", other.cluster.prefix));
    std::fs::create_dir_all(folder.path().join(&theirs)).unwrap();
    copy(&folder.path().join(ours), &folder.path().join(theirs));
    let process = other.start_with(settings(folder.path(), 1 << 20)).ready();
    other.write_amounts("amounts", 100);
    other.expect_sums(100, total(100));
    process.stop();
}

fn a_task_that_restores_for_long_does_not_hold_up_the_other_partitions(broker: &Broker) {
    let (tenant, folder) = (Tenant::new(broker), tempfile::tempdir().unwrap());
    let process = tenant.start().ready();
    tenant.write_amounts("amounts", 70);
    tenant.expect_sums(70, total(70));
    process.stop();

    let process = tenant.start_with(settings(folder.path(), 1 << 20));
    process.faults.holds_restore.store(true, Ordering::Relaxed);
    let of_partition = |partition| {
        let tasks = process.health.tasks();
        tasks.into_iter().find(|(id, _)| id.stage == "sums" && id.partition == partition).map(|(_, task)| task.state)
    };
    eventually("the other partition", || match of_partition(1) {
        Some(TaskState::Running) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    tenant.write_amounts("amounts", 70);
    eventually("sums of the other partition", || match tenant.sums().len() {
        sums if sums > 70 => Ok(()),
        sums => Err(format!("{sums}")),
    });
    assert_eq!(of_partition(0), Some(TaskState::Restoring));
    process.faults.holds_restore.store(false, Ordering::Relaxed);
    tenant.expect_sums(140, 2 * total(70));
    process.stop();
}

fn local_state_of_a_newer_version_stops_the_task_by_name(broker: &Broker) {
    let (tenant, folder) = (Tenant::new(broker), tempfile::tempdir().unwrap());
    let process = tenant.start_with(settings(folder.path(), 1 << 20)).ready();
    tenant.write_amounts("amounts", 10);
    tenant.expect_sums(10, total(10));
    process.stop();
    let file = folder.path().join(format!("{}sums/1/entries.redb", tenant.cluster.prefix));
    std::fs::remove_file(&file).unwrap();
    let database = redb::Database::create(&file).unwrap();
    let transaction = database.begin_write().unwrap();
    let about = redb::TableDefinition::<&str, &[u8]>::new("about");
    transaction.open_table(about).unwrap().insert("state", br#"{"format":99}"#.as_slice()).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let process = tenant.start_with(settings(folder.path(), 1 << 20));
    let problem = process.problem("MISCONFIGURED");
    assert!(problem.contains("format version 99") && problem.contains("help:"), "{problem}");
    process.stop();
}

fn a_machine_with_an_empty_folder_goes_on_from_the_snapshot_and_without_one_from_the_changelog(broker: &Broker) {
    let (tenant, folder) = (Tenant::new(broker), tempfile::tempdir().unwrap());
    let store = folder.path().join("store");
    let on = |machine: &str| {
        let options = StoreOptions { s3: Vec::new(), check_limit: DEADLINE };
        let snapshots =
            SnapshotSettings { end_limit: DEADLINE, ..SnapshotSettings::new(store.to_str().unwrap(), options) };
        let settings = settings(&folder.path().join(machine), 1 << 20);
        tenant.start_with(Settings { snapshots: Some(snapshots), ..settings }).ready()
    };
    let mut rounds = 0;
    let mut run = |machine: &str| {
        rounds += 1;
        let process = on(machine);
        let read = restored(&process);
        tenant.write_amounts("amounts", 100);
        tenant.expect_sums(rounds * 100, i64::try_from(rounds).unwrap() * total(100));
        process.stop();
        read
    };
    run("one");
    // The clean end has put the state there.
    assert_eq!(run("two"), 0, "nothing of the changelog had to be read");
    for (file, content) in blobs(&store) {
        std::fs::write(file, &content[..content.len() / 2]).unwrap();
    }
    assert!(run("three") > 0, "what is damaged is not used");
    assert_eq!(run("four"), 0, "and the next snapshot is whole");
}

/// The files of all snapshots, and what is in them.
fn blobs(store: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let (mut found, mut folders) = (Vec::new(), vec![store.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_str().unwrap().contains("/sha256/") {
                let content = std::fs::read(&path).unwrap();
                found.push((path, content));
            }
        }
    }
    assert!(!found.is_empty());
    found
}
