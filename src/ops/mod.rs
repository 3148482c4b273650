//! What operators do: keys on disk, configuration, observation.

pub mod secrets;
