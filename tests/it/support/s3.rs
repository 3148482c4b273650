//! An S3 server of the test's own, in memory.

use super::hokusai::Running;
use super::{cache, root, skip};
use std::process::Command;

/// The bucket that it has.
pub const BUCKET: &str = "hokusai-tests";

/// The server; it ends with this.
pub struct S3 {
    server: Running,
    _folder: tempfile::TempDir,
}

impl S3 {
    /// Starts one; none without the Python environment (and says so).
    pub fn start() -> Option<Self> {
        let python = cache().join("python/bin/python");
        if !python.exists() {
            skip("tests on an S3 server", "no Python environment in the cache (tests/setup.sh makes it)");
            return None;
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut server = Command::new(python);
        server.arg(root().join("tests/python/s3_server.py")).arg(BUCKET);
        Some(Self { server: Running::start(server, &folder.path().join("s3.log")), _folder: folder })
    }

    /// What a process needs to use it as its shared store.
    pub fn environment(&self, store: &str) -> Vec<(String, String)> {
        let port = self.server.ready["port"].as_u64().expect("a port");
        let settings = [
            ("HOKUSAI_STORE", store),
            ("AWS_ENDPOINT_URL", &format!("http://127.0.0.1:{port}")),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "tests"),
            ("AWS_SECRET_ACCESS_KEY", "not-a-secret"),
        ];
        settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
    }
}
