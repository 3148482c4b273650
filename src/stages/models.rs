//! Models as the broadcast topic `models` has them now.

use std::collections::HashMap;

use crate::codec::wire::Wire;
use crate::domain::records::Model;
use crate::domain::topics;
use crate::stream::stage::StageError;

/// Every model by its name.
#[derive(Debug, Default)]
pub struct KnownModels(HashMap<String, Model>);

impl KnownModels {
    /// Takes a broadcast record in; those of other topics change nothing.
    ///
    /// # Errors
    /// A record that cannot be read: the earlier state of the model stays.
    pub fn fold(&mut self, topic: &str, key: &[u8], value: Option<&[u8]>, wire: &Wire) -> Result<(), StageError> {
        if topic != topics::MODELS {
            return Ok(());
        }
        match value {
            Some(value) => {
                let model: Model = wire.decode(value)?;
                self.0.insert(model.model.clone(), model);
            }
            None => drop(self.0.remove(String::from_utf8_lossy(key).as_ref())),
        }
        Ok(())
    }

    /// The model of a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Model> {
        self.0.get(name)
    }
}
