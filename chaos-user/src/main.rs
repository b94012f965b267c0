//! The `kfault` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    chaos_user::cli::main_with(std::env::args_os())
}
