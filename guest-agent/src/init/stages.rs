//! When each stage of `/init` was done, for finding out where boot time goes.

use lib_common::error::Result;
use nix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

/// The stages so far, with the time since the kernel started.
pub struct Stages(Vec<Value>);

impl Stages {
    /// The list with its first entry, `start`.
    pub fn begin() -> Self {
        let mut stages = Stages(vec![]);
        stages.done("start");
        stages
    }

    /// Notes that `stage` is done now.
    pub fn done(&mut self, stage: &str) {
        let at_ms = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0.0, |t| {
            let micros = t.tv_sec() * 1_000_000 + t.tv_nsec() / 1000;
            micros as f64 / 1000.0
        });
        self.0.push(json!({"stage": stage, "at_ms": at_ms}));
    }

    /// Writes `{"stages":[{"stage":"…","at_ms":0.0}]}`, `at_ms` being milliseconds since the kernel's start.
    pub fn save(&self, path: &str) -> Result<()> {
        fs_err::write(path, format!("{}\n", json!({ "stages": self.0 })))?;
        Ok(())
    }
}
