//! What the verbs do: domains put together. Touches no stream but through `cli`.

pub mod health;
pub mod ssh;
