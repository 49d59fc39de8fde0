//! vmms
