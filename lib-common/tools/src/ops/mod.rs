//! The verbs: each composes the domains into what one tool does, on a [`crate::cli::Context`]. The tools' files in
//! `bins/` hold their command lines and nothing else.

pub mod audit;
pub mod doctor;
pub mod gc;
pub mod health;
pub mod image;
pub mod image_build;
pub mod kernel;
pub mod machine;
pub mod register;
pub mod rootfs;
pub mod seed;
pub mod ssh;
pub mod tap;
mod temporary;
