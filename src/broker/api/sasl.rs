//! SASL/PLAIN, when users are configured.

use bytes::Bytes;
use kafka_protocol::error::ResponseError as E;
use kafka_protocol::messages::{
    ApiKey, SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};

use super::text;
use crate::broker::connection::Context;

const PLAIN: &str = "PLAIN";

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nothing but the handshake is allowed.
    Required,
    /// The mechanism is agreed on.
    Agreed,
    /// Everything is allowed.
    Done,
}

impl Progress {
    /// Whether a request may be served at this point.
    pub(super) fn allows(self, api: ApiKey) -> bool {
        match self {
            Self::Done => true,
            Self::Required => matches!(api, ApiKey::ApiVersions | ApiKey::SaslHandshake),
            Self::Agreed => matches!(api, ApiKey::ApiVersions | ApiKey::SaslHandshake | ApiKey::SaslAuthenticate),
        }
    }
}

/// Agrees on a mechanism.
pub(super) fn handshake(progress: &mut Progress, request: SaslHandshakeRequest) -> SaslHandshakeResponse {
    let response = SaslHandshakeResponse::default().with_mechanisms(vec![text(PLAIN)]);
    if *progress == Progress::Done {
        return response.with_error_code(E::IllegalSaslState.code());
    }
    if &*request.mechanism != PLAIN {
        return response.with_error_code(E::UnsupportedSaslMechanism.code());
    }
    *progress = Progress::Agreed;
    response
}

/// Checks user and password.
pub(super) fn authenticate(
    progress: &mut Progress,
    context: &Context,
    request: SaslAuthenticateRequest,
) -> SaslAuthenticateResponse {
    if *progress != Progress::Agreed {
        return SaslAuthenticateResponse::default().with_error_code(E::IllegalSaslState.code());
    }
    let users = context.node.config.sasl_plain.as_deref().unwrap_or_default();
    if is_known(users, &request.auth_bytes) {
        *progress = Progress::Done;
        return SaslAuthenticateResponse::default();
    }
    // The next try needs a new handshake, and a new connection for most clients.
    *progress = Progress::Required;
    tracing::warn!(peer = %context.peer, "authentication failed");
    SaslAuthenticateResponse::default()
        .with_error_code(E::SaslAuthenticationFailed.code())
        .with_error_message(Some(text("Authentication failed: Invalid username or password")))
}

/// RFC 4616: authorization identity, user, password, separated by NUL.
fn is_known(users: &[(String, String)], token: &Bytes) -> bool {
    let mut parts = token.split(|byte| *byte == 0);
    let (Some(_), Some(user), Some(password), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    let mut found = false;
    for (known_user, known_password) in users {
        // Both comparisons always run over everything, so that time tells nothing.
        found |= same(known_user.as_bytes(), user) & same(known_password.as_bytes(), password);
    }
    found
}

fn same(a: &[u8], b: &[u8]) -> bool {
    let differences = a.iter().zip(b).fold(a.len() ^ b.len(), |differences, (a, b)| differences | usize::from(a ^ b));
    differences == 0
}
