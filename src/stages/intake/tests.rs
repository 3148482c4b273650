//! Promises of the compiled contract and of the stage.

mod contract;
