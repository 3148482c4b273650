//! Where a store is, and how it is reached there.

use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{Error, ObjectStore, RetryConfig};
use url::Url;

use super::StoreError;

/// Settings any of which stands for credentials that are not asked of an instance's metadata service.
const CREDENTIALS: &[&str] = &[
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_SKIP_SIGNATURE",
];
/// How long a request is repeated while the server is out of reach; whoever asked has to see to its other duties then.
const PATIENCE: Duration = Duration::from_secs(30);
const ENDPOINTS: &[&str] = &["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"];

/// A location that was understood.
#[derive(Debug)]
pub struct Location {
    given: String,
    url: Url,
    root: Path,
    folder: Option<PathBuf>,
}

fn wrong(store: &str, detail: impl Into<String>) -> StoreError {
    StoreError::Location { store: store.to_owned(), detail: detail.into() }
}

impl Location {
    pub fn parse(given: &str) -> Result<Self, StoreError> {
        if given.is_empty() {
            return Err(wrong(given, "it is empty"));
        }
        let url = if given.contains("://") {
            Url::parse(given).map_err(|e| wrong(given, e.to_string()))?
        } else {
            let path = std::path::absolute(given).map_err(|e| wrong(given, e.to_string()))?;
            Url::from_directory_path(&path).map_err(|()| wrong(given, "not an absolute path"))?
        };
        match url.scheme() {
            "file" => Self::of_folder(given, url),
            "s3" => Self::of_bucket(given, url),
            other => Err(wrong(given, format!("the scheme {other}:// is unknown"))),
        }
    }

    fn of_folder(given: &str, url: Url) -> Result<Self, StoreError> {
        let folder = url.to_file_path().map_err(|()| wrong(given, "not a folder of this machine"))?;
        // Without the slash at the end: a file in its place is then seen as one.
        let folder: PathBuf = folder.components().collect();
        let root = Path::from_absolute_path(&folder).map_err(|e| wrong(given, e.to_string()))?;
        Ok(Self { given: given.to_owned(), url: ending_in_slash(url), root, folder: Some(folder) })
    }

    fn of_bucket(given: &str, url: Url) -> Result<Self, StoreError> {
        // An URL with a password would end in logs; what it holds is not repeated.
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("s3://…", "keys stand in the environment, not in the URL"));
        }
        if url.query().is_some() || url.fragment().is_some() || url.port().is_some() {
            return Err(wrong(given, "only a bucket and a prefix may stand in it"));
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(wrong(given, "it names no bucket"));
        }
        let root = Path::from_url_path(url.path()).map_err(|e| wrong(given, e.to_string()))?;
        Ok(Self { given: given.to_owned(), url: ending_in_slash(url), root, folder: None })
    }

    pub fn url(&self) -> &Url {
        &self.url
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn folder(&self) -> Option<&FilePath> {
        self.folder.as_deref()
    }

    pub fn wrong(&self, detail: &str) -> StoreError {
        wrong(&self.given, detail)
    }

    /// The whole bucket, or the file system.
    pub fn connect(
        &self,
        settings: &[(String, String)],
        retry: Option<RetryConfig>,
    ) -> Result<Arc<dyn ObjectStore>, StoreError> {
        if self.folder.is_some() {
            return Ok(Arc::new(LocalFileSystem::new()));
        }
        let mut builder = AmazonS3Builder::new();
        for (name, value) in settings {
            // What is unknown is for other programs.
            if let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
                builder = builder.with_config(key, value);
            }
        }
        builder = builder.with_retry(retry.unwrap_or(RetryConfig { retry_timeout: PATIENCE, ..Default::default() }));
        let bucket = self.url.host_str().unwrap_or_default();
        let built = builder.with_bucket_name(bucket).build();
        built.map(|s3| Arc::new(s3) as Arc<dyn ObjectStore>).map_err(|e| self.wrong(&told(&e)))
    }

    /// What a refusal means.
    pub fn refused(&self, settings: &[(String, String)], error: Error) -> StoreError {
        let (store, detail) = (self.given.clone(), told(&error));
        // A listing's refusal comes without a kind: S3's own codes tell.
        let says = |codes: &[&str]| codes.iter().any(|code| detail.contains(code));
        match error {
            Error::NotFound { .. } => StoreError::NoBucket { store, detail },
            _ if says(&["NoSuchBucket", "404 Not Found"]) => StoreError::NoBucket { store, detail },
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => StoreError::Denied { store, detail },
            _ if says(&["403 Forbidden", "401 Unauthorized"]) => StoreError::Denied { store, detail },
            _ if !has(settings, CREDENTIALS) => StoreError::NoCredentials { store, detail },
            _ => StoreError::Unreachable { store, endpoint: self.endpoint(settings), detail },
        }
    }

    /// What it means when nothing answers in time.
    pub fn silent(&self, settings: &[(String, String)], limit: Duration) -> StoreError {
        let (store, detail) = (self.given.clone(), StoreError::after(limit));
        if has(settings, CREDENTIALS) {
            StoreError::Unreachable { store, endpoint: self.endpoint(settings), detail }
        } else {
            StoreError::NoCredentials { store, detail: format!("the platform gave {detail}") }
        }
    }

    fn endpoint(&self, settings: &[(String, String)]) -> String {
        let given = ENDPOINTS.iter().find_map(|name| value(settings, name));
        let region = || value(settings, "AWS_REGION").or_else(|| value(settings, "AWS_DEFAULT_REGION"));
        given.map_or_else(|| format!("Amazon S3, region {}", region().unwrap_or("us-east-1")), str::to_owned)
    }
}

fn value<'s>(settings: &'s [(String, String)], name: &str) -> Option<&'s str> {
    settings.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.as_str())
}

fn has(settings: &[(String, String)], names: &[&str]) -> bool {
    names.iter().any(|name| value(settings, name).is_some())
}

/// The first lines of what the library says, on one line.
fn told(error: &Error) -> String {
    let text = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    text.chars().take(600).collect()
}

fn ending_in_slash(mut url: Url) -> Url {
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    url
}
