//! Void's packages as the real xbps tools make them, and what those tools answered: [`data`] unpacks the record, `strings`
//! compares versions, patterns and names, `scenarios` runs every transaction through `bg-rootfs`, `hostile` every archive.
//! Where banger differs on purpose, docs/void.md says so, and the tests expect just that.

mod data;
mod hostile;
mod scenarios;
mod strings;
mod tree;
