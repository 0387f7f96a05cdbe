//! Lists, adds, changes and removes the keyslots of a volume:
//! `cargo run --example keyslots -- IMAGE list`, `add`, `change` or `remove N`

#![allow(clippy::print_stdout)] // a program, not the library

use std::error::Error;

use luksmith::container::{Container, NewKeyslot, Which};
use luksmith::formats::Limits;
use luksmith::location::Location;
use luksmith::secret::{Passphrase, Purpose, SecretError, SecretSource, Source};
use luksmith::task::cost::CostOptions;
use luksmith::task::open::Image;
use luksmith::task::{Silent, Watch};

const USAGE: &str = "usage: keyslots IMAGE list|add|change|remove N";

/// Wipes freed memory, since other crates may leave copies of secrets on the heap.
#[cfg(not(test))]
#[global_allocator]
static ALLOCATOR: luksmith::secret::WipingAllocator = luksmith::secret::WipingAllocator;

fn main() -> Result<(), Box<dyn Error>> {
    luksmith::sys::harden()?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [image, command @ ..] = &arguments[..] else {
        return Err(USAGE.into());
    };
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let (watch, prompt) = (Silent::default(), "prompt".parse::<Source>()?);
    let old = || prompt.read(Purpose::unlock("the volume", watch.interrupt()));
    let new = || prompt.read(Purpose::new_secret("the keyslot", watch.interrupt()));
    // No other program may have the header open.
    let image = Image::new(Location::parse(image.as_ref())?);
    let mut container = image.open_to_write(None, Limits::default(), &watch)?;
    // Opening a new keyslot takes two seconds on this machine.
    let cost = CostOptions::default();
    let done = run(&mut container, &command, [&old, &new], &cost, &watch)?;
    println!("{done}");
    Ok(())
}

/// Carries out a command. The two functions read the passphrases that it needs.
pub(crate) fn run(
    container: &mut Container,
    command: &[&str],
    [old, new]: [&dyn Fn() -> Result<Passphrase, SecretError>; 2],
    cost: &CostOptions,
    watch: &dyn Watch,
) -> Result<String, Box<dyn Error>> {
    let slot = match command {
        ["list"] => return Ok(format!("{:#?}", container.keyslots())),
        ["remove", slot] => {
            // `false`: not the last keyslot that opens the volume.
            container.remove_keyslot(slot.parse()?, false)?;
            slot.parse()?
        }
        ["add" | "change"] => {
            // Only a passphrase gives access to the volume key, which every keyslot holds.
            let unlocked = container.unlock(&old()?, Which::Any, watch.interrupt())?;
            let size = unlocked.key().as_bytes().len();
            let cost = cost.of_another_keyslot(container, size, watch)?;
            let passphrase = new()?;
            let new = NewKeyslot::new(&passphrase, cost);
            match command {
                ["add"] => container.add_keyslot(&unlocked, &new, watch.interrupt())?,
                _ => container.change_keyslot(&unlocked, &new, watch.interrupt())?,
            }
        }
        _ => return Err(USAGE.into()),
    };
    Ok(format!("keyslot {slot}"))
}
