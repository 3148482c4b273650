//! The state machine without a broker around it.

use super::*;
use tokio::sync::oneshot;

fn attempt(member_id: &str, protocols: &[&str]) -> JoinAttempt {
    JoinAttempt {
        member_id: member_id.into(),
        instance_id: None,
        client_id: "c".into(),
        client_host: "/127.0.0.1".into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
        protocol_type: "consumer".into(),
        protocols: protocols.iter().map(|name| ((*name).to_owned(), Bytes::from_static(b"s"))).collect(),
        require_known_id: false,
        can_skip_assignment: true,
    }
}

fn join(group: &mut Group, id: &str, now: i64) -> oneshot::Receiver<Joined> {
    let known = group.members.contains_key(id);
    group.join(attempt(if known { id } else { "" }, &["range"]), id.into(), 100, now)
}

fn sync(group: &mut Group, id: &str, now: i64) -> oneshot::Receiver<SyncAnswer> {
    let generation = group.generation;
    group.sync(id, None, generation, (None, None), vec![("a".into(), Bytes::from_static(b"share"))], now)
}

/// A stable group of "a" (the leader) and "b", in its second generation.
fn of_two() -> Group {
    let mut group = Group::new("g", 0);
    let mut first = join(&mut group, "a", 0);
    assert_eq!(first.try_recv().unwrap().generation, 1);
    let _second = join(&mut group, "b", 0);
    let _first = join(&mut group, "a", 0);
    assert_eq!((group.phase, group.generation), (Phase::CompletingRebalance, 2));
    let (_a, _b) = (sync(&mut group, "a", 0), sync(&mut group, "b", 0));
    assert_eq!(group.phase, Phase::Stable);
    group
}

#[test]
fn a_silent_member_expires_and_the_others_rebalance() {
    let mut group = of_two();
    group.heartbeat("a", None, 2, 9_000).unwrap();
    assert_eq!(group.next_deadline(), Some(10_000));
    group.tick(10_000);
    assert_eq!(group.phase, Phase::PreparingRebalance);
    assert_eq!(group.heartbeat("a", None, 2, 10_001), Err(E::RebalanceInProgress));
    assert_eq!(group.heartbeat("b", None, 2, 10_001), Err(E::UnknownMemberId));
    let mut alone = join(&mut group, "a", 10_002);
    assert_eq!(alone.try_recv().unwrap().generation, 3);
}

#[test]
fn a_member_that_does_not_rejoin_in_time_is_left_behind() {
    let mut group = of_two();
    let mut rejoined = join(&mut group, "a", 1_000);
    assert!(rejoined.try_recv().is_err(), "it waits for the other one");
    group.heartbeat("b", None, 2, 60_500).unwrap_err();
    group.tick(61_000);
    let joined = rejoined.try_recv().unwrap();
    assert_eq!((joined.generation, joined.members.len()), (3, 1));
}

#[test]
fn followers_whose_leader_never_syncs_are_told_to_rejoin() {
    let mut group = of_two();
    let _a = join(&mut group, "a", 0);
    let _b = join(&mut group, "b", 0);
    let mut waiting = sync(&mut group, "b", 0);
    group.tick(60_000);
    assert_eq!(waiting.try_recv().unwrap().unwrap_err(), E::RebalanceInProgress);
    assert!(!group.members.contains_key("a"));
}

#[test]
fn the_protocol_is_one_that_everybody_knows() {
    let mut group = Group::new("g", 0);
    let _a = group.join(attempt("", &["sticky", "range"]), "a".into(), 100, 0);
    let mut refused = group.join(attempt("", &["other"]), "b".into(), 100, 0);
    assert_eq!(refused.try_recv().unwrap().error, Some(E::InconsistentGroupProtocol));
    let _b = group.join(attempt("", &["range"]), "b".into(), 100, 0);
    let mut a = group.join(attempt("a", &["sticky", "range"]), String::new(), 100, 0);
    assert_eq!(a.try_recv().unwrap().protocol.as_deref(), Some("range"));
}

#[test]
fn a_stored_group_comes_back_with_its_members() {
    let group = of_two();
    let stored = serde_json::to_string(&group).unwrap();
    let mut back = serde_json::from_str::<Group>(&stored).unwrap().revived("g", 5_000);
    back.heartbeat("b", None, 2, 6_000).unwrap();
    assert_eq!(back.members["a"].assignment, Bytes::from_static(b"share"));
    assert_eq!(back.next_deadline(), Some(15_000));
}

#[test]
fn the_number_of_members_and_announced_members_is_bounded() {
    let mut group = Group::new("g", 0);
    for number in 0..10 {
        let announced = JoinAttempt { require_known_id: true, ..attempt("", &["range"]) };
        let error = group.join(announced, format!("m{number}"), 5, 0).try_recv().unwrap().error;
        assert_eq!(error, Some(if number < 5 { E::MemberIdRequired } else { E::GroupMaxSizeReached }));
    }
    group.tick(10_000);
    assert!(group.is_disposable(), "ids that nobody came back with are forgotten");
}
