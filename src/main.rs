//! The program `luksmith`. The rules of its command line are at the top of `cli/mod.rs`.

mod cli;

/// Wipes freed memory, since dependencies may copy secrets to the heap.
#[global_allocator]
static ALLOCATOR: luksmith::secret::WipingAllocator = luksmith::secret::WipingAllocator;

fn main() -> std::process::ExitCode {
    cli::main()
}
