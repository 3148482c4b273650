//! Promises of the compiled contract and of the stage.

mod contract;
mod screening;
mod sealed;
mod stage;
mod support;
