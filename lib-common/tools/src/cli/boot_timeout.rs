//! The option `--boot-timeout`, of every verb that waits for a guest with deadlines of its own.

use clap::Args;
use lib_machine::config::{Config, parse_boot_timeout};
use std::time::Duration;

/// To be flattened into a command line.
#[derive(Args, Clone, Copy, Debug)]
pub struct BootTimeout {
    /// How long a guest may take to boot on this host; its other deadlines are in proportion
    #[arg(long, value_name = "SECONDS", value_parser = parse_boot_timeout)]
    boot_timeout: Option<Duration>,
}

impl BootTimeout {
    /// What was given goes before what is configured.
    pub fn apply(self, config: &mut Config) {
        config.boot_timeout = self.boot_timeout.unwrap_or(config.boot_timeout);
    }
}
