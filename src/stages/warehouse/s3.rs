//! Makes `s3://` known to the Delta library, which by itself knows folders only.
//!
//! The connection is the shared store's own, so its settings hold here too. The log store is the library's default one: it
//! commits by a conditional write (`If-None-Match: *`), which is what makes two writers safe; `doctor`, `up` and `worker`
//! check that the server honours it.

use std::sync::{Arc, Once};

use deltalake_core::DeltaTableError;
use deltalake_core::logstore::object_store::path::Path;
use deltalake_core::logstore::{
    LogStore, LogStoreFactory, ObjectStoreFactory, ObjectStoreRef, StorageConfig, default_logstore, logstore_factories,
    object_store_factories,
};
use url::Url;

use crate::store::{Store, StoreOptions};

struct Factory;

impl ObjectStoreFactory for Factory {
    fn parse_url_opts(&self, url: &Url, _: &StorageConfig) -> Result<(ObjectStoreRef, Path), DeltaTableError> {
        let store = Store::at(url.as_str(), &StoreOptions::from_environment());
        let store = store.map_err(|e| DeltaTableError::GenericError { source: Box::new(e) })?;
        let (objects, path) = store.parts();
        Ok((objects, path.clone()))
    }
}

impl LogStoreFactory for Factory {
    fn with_options(
        &self,
        prefixed: ObjectStoreRef,
        root: ObjectStoreRef,
        location: &Url,
        options: &StorageConfig,
    ) -> Result<Arc<dyn LogStore>, DeltaTableError> {
        Ok(default_logstore(prefixed, root, location, options))
    }
}

/// Tells the library, once per process.
pub fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if let Ok(scheme) = Url::parse("s3://") {
            object_store_factories().insert(scheme.clone(), Arc::new(Factory));
            logstore_factories().insert(scheme, Arc::new(Factory));
        }
    });
}
