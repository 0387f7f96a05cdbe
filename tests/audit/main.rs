//! Does each fault of a domain or a host get its finding, and each good neighbour none, in bounded time and memory?
//!
//! A realistic good domain and a good host have no finding (`good`); tables change one thing about them and say which rule must find
//! it, and change it to a neighbour that is good again.

mod bounds;
mod command;
mod conf;
mod docs;
mod domains;
mod good;
mod hosts;
mod images;
mod judge;
mod policy;
mod sarif;
mod storages;

#[global_allocator]
static ALLOCATOR: support::allocation::Counting = support::allocation::Counting;
