//! Consumer groups: sharing, handing over, coming back.

use super::*;

fn assigned(consumer: &BaseConsumer) -> Vec<i32> {
    consumer.poll(Duration::from_millis(5));
    let mut partitions: Vec<i32> =
        consumer.assignment().unwrap().elements().iter().map(|element| element.partition()).collect();
    partitions.sort_unstable();
    partitions
}

fn shares_and_hands_over(strategy: &str) {
    let cluster = Cluster::start();
    cluster.create_topic("t", 4, &[]);
    let settings = [("partition.assignment.strategy", strategy)];
    let first = cluster.consumer(&settings);
    first.subscribe(&["t"]).unwrap();
    until("the first member owns everything", || assigned(&first) == [0, 1, 2, 3]);
    let second = cluster.consumer(&settings);
    second.subscribe(&["t"]).unwrap();
    until("both members share", || {
        let (a, b) = (assigned(&first), assigned(&second));
        a.len() == 2 && b.len() == 2 && a.iter().all(|partition| !b.contains(partition))
    });
    drop(second);
    until("the first member owns everything again", || assigned(&first) == [0, 1, 2, 3]);
}

#[test]
fn two_members_share_eagerly_and_one_takes_over() {
    shares_and_hands_over("range");
}

#[test]
fn two_members_share_cooperatively_and_one_takes_over() {
    shares_and_hands_over("cooperative-sticky");
}

#[test]
fn a_static_member_comes_back_to_its_partitions_without_a_rebalance() {
    let cluster = Cluster::start();
    cluster.create_topic("t", 2, &[]);
    let start = |instance: &str| {
        let consumer = cluster.consumer(&[("group.instance.id", instance), ("partition.assignment.strategy", "range")]);
        consumer.subscribe(&["t"]).unwrap();
        consumer
    };
    let (first, second) = (start("a"), start("b"));
    let mut shares = (Vec::new(), Vec::new());
    until("both members share", || {
        shares = (assigned(&first), assigned(&second));
        shares.0.len() == 1 && shares.1.len() == 1
    });
    let generation = |cluster: &Cluster| cluster.broker().group_generation("g");
    let before = generation(&cluster);
    drop(second);
    let second = start("b");
    until("the member is back", || {
        assigned(&first);
        assigned(&second) == shares.1
    });
    assert_eq!(generation(&cluster), before, "nobody had to rebalance");
}

#[test]
fn members_stay_members_when_the_broker_restarts() {
    let mut cluster = Cluster::start_with(|config| config.listen = PORT.get_or_init(free_port).parse().unwrap());
    cluster.create_topic("t", 1, &[]);
    let consumer = cluster.consumer(&[("reconnect.backoff.max.ms", "100")]);
    consumer.subscribe(&["t"]).unwrap();
    until("an assignment", || assigned(&consumer) == [0]);
    let before = cluster.broker().group_generation("g");
    cluster.restart();
    let producer = cluster.producer(&[]);
    send(&producer, "t", "k", "v");
    drain(&producer);
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset("t", 0, Offset::Offset(1)).unwrap();
    until("a commit of the old generation is taken", || {
        consumer.poll(Duration::from_millis(5));
        consumer.commit(&offsets, rdkafka::consumer::CommitMode::Sync).is_ok()
    });
    assert_eq!(cluster.broker().group_generation("g"), before);
}

static PORT: std::sync::OnceLock<String> = std::sync::OnceLock::new();

fn free_port() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[test]
fn a_group_with_members_cannot_be_deleted_and_one_without_can() {
    let cluster = Cluster::start();
    cluster.create_topic("t", 1, &[]);
    let consumer = cluster.consumer(&[]);
    consumer.subscribe(&["t"]).unwrap();
    until("an assignment", || assigned(&consumer) == [0]);
    let delete =
        || cluster.runtime.block_on(cluster.admin().delete_groups(&["g"], &AdminOptions::new())).unwrap().remove(0);
    assert!(delete().is_err());
    drop(consumer);
    until("the group is empty", || delete().is_ok());
    assert_eq!(cluster.consumer(&[]).fetch_group_list(None, PATIENCE).unwrap().groups().len(), 0);
}
