//! What the tools say to somebody who is new to them: a slip names what to type, and what fails says why, last.

#![allow(clippy::disallowed_types, reason = "a test may start programs itself")]

mod names;
mod pages;
mod settings;
mod slips;
mod ssh;
mod store;
