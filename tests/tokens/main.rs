//! Do tokens open what other programs enrolled, and the other way around?

#![allow(missing_docs)]
#![allow(clippy::print_stderr)] // what is skipped, and why

mod bus;
mod commands;
mod keyring;
mod mutations;
mod recovery;
mod seeds;
mod site;
mod tang;
mod tpm2;
