//! Is a changed, swapped or old header refused, and is every change of ours accepted?
//!
//! `tests/crash` builds each state that a crash can leave of a change of a pinned header.

#![allow(missing_docs)]

mod commands;
mod folder;
mod places;
mod refused;
mod site;
mod tags_commands;
mod tags_memory;
mod tags_model;
mod tags_places;
mod tags_refused;
mod tags_store;
mod tags_world;

#[global_allocator]
static ALLOCATOR: support::allocation::Counting = support::allocation::Counting;
