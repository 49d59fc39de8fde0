//! Void's packages: the test distribution is whole, and what is wrong with a repository is refused.

mod closed;
mod corpus;
mod from_rootfs;
mod refused;
mod repeatable;
