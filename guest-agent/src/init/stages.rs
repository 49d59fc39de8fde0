//! When each stage of `/init` was done, for finding out where boot time goes.

use lib_common::error::Result;
use nix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

/// Where they lie, in the agent's directory.
pub const FILE: &str = "init-stages.json";

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
        self.0.push(json!({"stage": stage, "at_ms": Stages::now_us() as f64 / 1000.0}));
    }

    /// Microseconds since the kernel started.
    pub fn now_us() -> u64 {
        let now = clock_gettime(ClockId::CLOCK_BOOTTIME);
        now.map_or(0, |t| t.tv_sec().cast_unsigned() * 1_000_000 + t.tv_nsec().cast_unsigned() / 1000)
    }

    /// Writes `{"stages":[{"stage":"…","at_ms":0.0}]}`, `at_ms` being milliseconds since the kernel's start.
    pub fn save(&self, dir: &str) -> Result<()> {
        fs_err::write(format!("{dir}/{FILE}"), self.text())?;
        Ok(())
    }

    fn text(&self) -> String {
        format!("{}\n", json!({ "stages": self.0 }))
    }

    /// What was saved: the stages and their times in milliseconds, in their order.
    pub fn parse(text: &str) -> Option<Vec<(String, f64)>> {
        let value: Value = serde_json::from_str(text).ok()?;
        let stage = |entry: &Value| Some((entry["stage"].as_str()?.to_owned(), entry["at_ms"].as_f64()?));
        value["stages"].as_array()?.iter().map(stage).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_can_be_read() {
        let mut stages = Stages::begin();
        stages.done("root");
        let read = Stages::parse(&stages.text()).unwrap();
        assert_eq!(read.iter().map(|(stage, _)| stage.as_str()).collect::<Vec<_>>(), ["start", "root"]);
        assert!(read[0].1 > 0.0 && read[0].1 <= read[1].1);
        assert_eq!((Stages::parse("{}"), Stages::parse(""), Stages::parse(r#"{"stages":[1]}"#)), (None, None, None));
    }
}
