//! The fold of one partition's events without a task: to make `models` anew, or to check it.

use std::collections::BTreeMap;

use super::fold::{ContractCheck, Place, Rules};
use super::{behind, counting};
use crate::attest::trust::Trust;
use crate::domain::records::{Model, RegistryEvent};
use crate::stream::stage::StageError;

/// What a partition's events have come to so far.
#[derive(Debug, Default)]
pub struct Refold {
    models: BTreeMap<String, Model>,
    serial: Option<i64>,
}

impl Refold {
    /// Takes the partition's next event.
    ///
    /// # Errors
    /// [`StageError::Behind`] when the trust file is older than the one under which the event was put in order.
    pub fn take(
        &mut self,
        trust: &Trust,
        check: &ContractCheck,
        event: &RegistryEvent,
        offset: i64,
    ) -> Result<(), StageError> {
        let serial = counting(event.trust, self.serial);
        behind(serial, trust)?;
        self.serial = Some(serial);
        let decision = Rules { trust, check }.decide(self.models.get(&event.model), event, Place { offset, serial });
        if let Some(model) = decision.model {
            self.models.insert(event.model.clone(), model);
        }
        Ok(())
    }

    /// The models.
    #[must_use]
    pub fn into_models(self) -> BTreeMap<String, Model> {
        self.models
    }
}
