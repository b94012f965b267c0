//! The front door of the workspace.

mod vm;

use clap::Parser;

#[derive(Parser)]
enum Cli {
    /// Boot a kernel of the matrix and run a command in it
    Vm(vm::Args),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse() {
        Cli::Vm(args) => vm::main(args),
    }
}
