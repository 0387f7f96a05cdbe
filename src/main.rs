//! The command line of luksmith. What it may print and how it exits is written at the top of `cli/mod.rs`.

mod cli;

/// Whatever a dependency copies of a secret to the heap is wiped when it is freed.
#[global_allocator]
static ALLOCATOR: luksmith::secret::WipingAllocator = luksmith::secret::WipingAllocator;

fn main() -> std::process::ExitCode {
    cli::main()
}
