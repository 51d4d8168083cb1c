//! The program: arguments in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    radialsim::program(std::env::args_os()).into()
}
