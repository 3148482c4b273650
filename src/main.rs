//! The `hokusai` program: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    hokusai::cli::main()
}
