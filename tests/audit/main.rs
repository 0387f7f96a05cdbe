//! Does each fault of a domain or a host have its finding, and each similar text without a fault
//! none, in bounded time and memory?
//!
//! A realistic domain and a host have no findings (`good`). The tables change one text so that it
//! breaks a rule, and change it to a similar text that does not.

mod arguments;
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
mod served;
mod storages;

#[global_allocator]
static ALLOCATOR: support::allocation::Counting = support::allocation::Counting;
