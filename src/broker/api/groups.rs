//! Consumer groups.

use kafka_protocol::error::ResponseError as E;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::*;

use super::{code, code_of, text};
use crate::broker::connection::Context;
use crate::broker::coordinator::group::{JoinAttempt, Phase};
use crate::broker::coordinator::groups::{DescribedMember, Sender};
use crate::broker::node::Node;

/// A member joins; the answer waits for the rebalance.
pub(super) async fn join(
    context: &Context,
    client_id: &str,
    version: i16,
    request: JoinGroupRequest,
) -> JoinGroupResponse {
    let session_timeout_ms = i64::from(request.session_timeout_ms);
    let attempt = JoinAttempt {
        member_id: request.member_id.to_string(),
        instance_id: request.group_instance_id.as_ref().map(ToString::to_string),
        client_id: client_id.to_owned(),
        client_host: format!("/{}", context.peer.ip()),
        session_timeout_ms,
        rebalance_timeout_ms: if version >= 1 { i64::from(request.rebalance_timeout_ms) } else { session_timeout_ms },
        protocol_type: request.protocol_type.to_string(),
        protocols: request
            .protocols
            .iter()
            .map(|protocol| (protocol.name.to_string(), protocol.metadata.clone()))
            .collect(),
        require_known_id: version >= 4,
        can_skip_assignment: version >= 9,
    };
    let joined = context.node.groups.join(&request.group_id, attempt).await;
    let member = |(id, instance_id, metadata): (String, Option<String>, bytes::Bytes)| {
        let member = JoinGroupResponseMember::default().with_member_id(text(id)).with_metadata(metadata);
        if version >= 5 { member.with_group_instance_id(instance_id.map(text)) } else { member }
    };
    let protocol = joined.protocol.map(text);
    let response = JoinGroupResponse::default()
        .with_error_code(code(joined.error))
        .with_generation_id(joined.generation)
        // Null is legal from version 7 on.
        .with_protocol_name(if version < 7 { Some(protocol.unwrap_or_default()) } else { protocol })
        .with_leader(text(joined.leader))
        .with_member_id(text(joined.member_id))
        .with_members(joined.members.into_iter().map(member).collect());
    let response = if version >= 7 { response.with_protocol_type(joined.protocol_type.map(text)) } else { response };
    if version >= 9 { response.with_skip_assignment(joined.skip_assignment) } else { response }
}

/// A member asks for its assignment.
pub(super) async fn sync(node: &Node, version: i16, request: SyncGroupRequest) -> SyncGroupResponse {
    let sender = Sender {
        group: &request.group_id,
        member_id: &request.member_id,
        instance_id: request.group_instance_id.as_deref(),
        generation: request.generation_id,
    };
    let assignments = request.assignments.iter().map(|given| (given.member_id.to_string(), given.assignment.clone()));
    let protocol = (request.protocol_type.as_deref(), request.protocol_name.as_deref());
    match node.groups.sync(sender, protocol, assignments.collect()).await {
        Err(error) => SyncGroupResponse::default().with_error_code(error.code()),
        Ok(synced) => {
            let response = SyncGroupResponse::default().with_assignment(synced.assignment);
            match version >= 5 {
                true => response
                    .with_protocol_type(synced.protocol_type.map(text))
                    .with_protocol_name(synced.protocol.map(text)),
                false => response,
            }
        }
    }
}

/// A sign of life.
pub(super) fn heartbeat(node: &Node, request: HeartbeatRequest) -> HeartbeatResponse {
    let sender = Sender {
        group: &request.group_id,
        member_id: &request.member_id,
        instance_id: request.group_instance_id.as_deref(),
        generation: request.generation_id,
    };
    HeartbeatResponse::default().with_error_code(code_of(&node.groups.heartbeat(sender)))
}

/// Members leave.
pub(super) fn leave(node: &Node, version: i16, request: LeaveGroupRequest) -> LeaveGroupResponse {
    if version < 3 {
        let result = node.groups.leave(&request.group_id, &request.member_id, None);
        return LeaveGroupResponse::default().with_error_code(code_of(&result));
    }
    let members = request.members.into_iter().map(|member| {
        let result = node.groups.leave(&request.group_id, &member.member_id, member.group_instance_id.as_deref());
        MemberResponse::default()
            .with_member_id(member.member_id)
            .with_group_instance_id(member.group_instance_id)
            .with_error_code(code_of(&result))
    });
    LeaveGroupResponse::default().with_members(members.collect())
}

/// Groups with their members.
pub(super) fn describe(node: &Node, version: i16, request: DescribeGroupsRequest) -> DescribeGroupsResponse {
    let groups = request.groups.into_iter().map(|id| {
        let answer = DescribedGroup::default().with_group_id(id.clone());
        match node.groups.describe(&id) {
            // As Apache Kafka tells groups that do not exist.
            None => answer.with_group_state(text(Phase::Dead.name())),
            Some(group) => answer
                .with_group_state(text(group.phase.name()))
                .with_protocol_type(text(group.protocol_type))
                .with_protocol_data(text(group.protocol))
                .with_members(group.members.into_iter().map(|member| describe_member(member, version)).collect()),
        }
    });
    DescribeGroupsResponse::default().with_groups(groups.collect())
}

fn describe_member(member: DescribedMember, version: i16) -> DescribedGroupMember {
    let answer = DescribedGroupMember::default()
        .with_member_id(text(member.id))
        .with_client_id(text(member.client_id))
        .with_client_host(text(member.client_host))
        .with_member_metadata(member.subscription)
        .with_member_assignment(member.assignment);
    if version >= 4 { answer.with_group_instance_id(member.instance_id.map(text)) } else { answer }
}

/// Every group, or those in certain states.
pub(super) fn list(node: &Node, version: i16, request: ListGroupsRequest) -> ListGroupsResponse {
    let matches = |filter: &[kafka_protocol::protocol::StrBytes], value: &str| {
        filter.is_empty() || filter.iter().any(|wanted| wanted.eq_ignore_ascii_case(value))
    };
    let groups = node.groups.list().into_iter().filter(|(_, _, phase)| {
        matches(&request.states_filter, phase.name()) && matches(&request.types_filter, "classic")
    });
    let groups = groups.map(|(id, protocol_type, phase)| {
        let group = ListedGroup::default().with_group_id(GroupId(text(id))).with_protocol_type(text(protocol_type));
        let group = if version >= 4 { group.with_group_state(text(phase.name())) } else { group };
        if version >= 5 { group.with_group_type(text("classic")) } else { group }
    });
    ListGroupsResponse::default().with_groups(groups.collect())
}

/// Deletes groups without members.
pub(super) async fn delete(node: &Node, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let mut results = Vec::new();
    for id in request.groups_names {
        let result: Result<(), E> = node.groups.delete(&id).await;
        results.push(DeletableGroupResult::default().with_group_id(id).with_error_code(code_of(&result)));
    }
    DeleteGroupsResponse::default().with_results(results)
}
