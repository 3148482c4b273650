//! Promises of the compiled contract and of the stage.

mod contamination;
mod contract;
mod flags;
mod fuzz;
mod identity;
mod screening;
mod sealed;
mod signed;
mod stage;
mod support;
mod undeclared;
