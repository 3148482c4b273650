//! attest.
