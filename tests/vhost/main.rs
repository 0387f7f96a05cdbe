//! Do guests of vhost-user get their disk, and is the server safe from hostile ones?

#![allow(missing_docs)]

mod clients;
mod disk;
mod hostile;
mod killed;
mod linux;
mod migration;
mod program;
mod requests;
