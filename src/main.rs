//! The program: see `storekeeper --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    storekeeper::cli::run()
}
