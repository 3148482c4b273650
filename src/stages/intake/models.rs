//! The models that intake knows: the fold of the broadcast topic, contracts compiled when they are first used.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;

use super::contract::{CompiledContract, Compiler};
use super::near::NearPlan;
use super::parts::screened_schema;
use super::protect::Protection;
use super::sums::{CellKey, SumPlan};
use crate::domain::contract::{Spec, SpecError};
use crate::domain::keys::{KeyRing, LiveKeys, ModelKeys};
use crate::domain::reason::Reason;
use crate::domain::records::{Model, ModelContract};

/// Most models of a tenant.
const MAX_MODELS: usize = 10_000;
/// Most contracts that are compiled at a time.
const MAX_COMPILED: usize = 128;

/// A contract with everything that is made once for it.
#[derive(Debug)]
pub(super) struct Ready {
    pub contract: CompiledContract,
    pub sums: SumPlan,
    pub near: NearPlan,
    pub protection: Protection,
    pub screened: SchemaRef,
}

impl Ready {
    pub(super) fn new(contract: CompiledContract, keys: &KeyRing) -> Result<Self, SpecError> {
        let (sums, near) = (SumPlan::new(contract.spec()), NearPlan::new(contract.spec()));
        let protection = Protection::new(contract.spec(), keys)?;
        let screened = Arc::new(screened_schema(protection.screened_schema()));
        Ok(Self { contract, sums, near, protection, screened })
    }
}

/// Keys of one model.
#[derive(Debug)]
pub(super) struct Keys {
    pub model: ModelKeys,
    pub cells: CellKey,
}

impl Keys {
    pub(super) fn new(ring: &KeyRing, model: &str) -> Self {
        let model = ring.model(model);
        // Canonical rows begin with their version, never with zero: no row's hash is this key.
        let cells = CellKey::new(model.rows().digest128(&[b"\0hk/cell/v1"]));
        Self { model, cells }
    }
}

#[derive(Debug)]
struct Entry {
    keys: Arc<Keys>,
    in_force: String,
    specs: HashMap<String, String>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Models {
    keys: LiveKeys,
    ring: Arc<KeyRing>,
    compiler: Compiler,
    models: BTreeMap<String, Entry>,
    /// By contract digest; the digest covers the model's name.
    compiled: HashMap<String, Arc<Ready>>,
}

impl Models {
    pub(super) fn new(keys: LiveKeys) -> Self {
        Self { ring: keys.ring(), keys, compiler: Compiler::new(), models: BTreeMap::new(), compiled: HashMap::new() }
    }

    pub(super) fn ring(&self) -> &KeyRing {
        &self.ring
    }

    /// Takes the ring that is in force now. Contracts are compiled anew when they are used: they hold the token key.
    pub(super) fn follow_keys(&mut self) {
        let ring = self.keys.ring();
        if !Arc::ptr_eq(&ring, &self.ring) {
            self.ring = ring;
            self.compiled.clear();
        }
    }

    /// Takes the latest record of a model. The contract in force is compiled at once: one that this version cannot
    /// compile leaves the earlier record standing.
    pub(super) fn fold(&mut self, name: &str, model: Option<Model>) -> Result<(), SpecError> {
        let Some(model) = model else {
            self.models.remove(name);
            return Ok(());
        };
        if self.models.len() >= MAX_MODELS && !self.models.contains_key(name) {
            return Err(SpecError::at(
                "",
                format!("there are {MAX_MODELS} models already"),
                "remove models that are not used",
            ));
        }
        if let Some(newest) = model.contracts.iter().find(|c| c.digest == model.contract_digest) {
            self.ready(&newest.digest, &newest.spec)?;
        }
        let specs = model.contracts.into_iter().map(|ModelContract { digest, spec, .. }| (digest, spec)).collect();
        let keys = Arc::new(Keys::new(&self.ring, name));
        self.models.insert(name.to_owned(), Entry { keys, in_force: model.contract_digest, specs });
        Ok(())
    }

    /// The contract of a digest, or the one in force.
    pub(super) fn resolve(&mut self, model: &str, digest: Option<&str>) -> Result<(Arc<Ready>, Arc<Keys>), Reason> {
        let entry = self.models.get(model).ok_or(Reason::UnknownModel)?;
        let digest = digest.unwrap_or(&entry.in_force).to_owned();
        let spec = entry.specs.get(&digest).ok_or(Reason::UnknownContract)?.clone();
        let keys = Arc::clone(&entry.keys);
        let ready = self.ready(&digest, &spec).map_err(|error| {
            tracing::error!(model, contract = digest, %error, "a contract that was applied cannot be compiled");
            Reason::UnknownContract
        })?;
        Ok((ready, keys))
    }

    fn ready(&mut self, digest: &str, spec: &str) -> Result<Arc<Ready>, SpecError> {
        if let Some(ready) = self.compiled.get(digest) {
            return Ok(Arc::clone(ready));
        }
        let contract = self.compiler.compile(Spec::from_canonical_json(spec)?)?;
        if contract.digest() != digest {
            return Err(SpecError::at("", "does not have the digest it is known by", "apply the model again"));
        }
        let ready = Arc::new(Ready::new(contract, &self.ring)?);
        if self.compiled.len() >= MAX_COMPILED {
            self.compiled.clear();
        }
        self.compiled.insert(digest.to_owned(), Arc::clone(&ready));
        Ok(ready)
    }
}
