//! Every setting as it is for this run, and where it came from, for people who wonder.

use super::{Config, KEYS};
use crate::doc::{API_VERSION, Setting};
use std::path::{Path, PathBuf};

/// The origin of what nobody has set.
const DEFAULT: &str = "default";

impl Config {
    /// Each key of [`KEYS`], in their order.
    pub fn settings(&self) -> Vec<Setting> {
        let setting = |(key, variable, default, _): &(&str, &str, &str, &str)| {
            let (value, origin) = match self.values.get(key) {
                Some((value, origin)) => (Some(value.clone()), origin.as_str()),
                None => (self.by_default(key, default), DEFAULT),
            };
            Setting {
                api_version: API_VERSION.into(),
                kind: "Setting".into(),
                key: (*key).into(),
                variable: (*variable).into(),
                value,
                origin: origin.into(),
            }
        };
        KEYS.iter().map(setting).collect()
    }

    /// What a key is that nobody has set: places as they were found; for the others their default is a value.
    fn by_default(&self, key: &str, default: &str) -> Option<String> {
        let shown = |path: &Path| path.display().to_string();
        let found = |path: Option<PathBuf>| path.as_deref().map(shown);
        match key {
            "state_dir" => Some(shown(&self.state_dir)),
            "runtime_dir" => Some(shown(&self.runtime_dir)),
            "cache_dir" => Some(shown(&self.cache_dir)),
            "net_dir" => Some(shown(&self.net_dir)),
            "image" => None,
            "guest_agent" => found(self.agent_path().ok()),
            "qemu" => Some(shown(&self.qemu_path())),
            "firecracker" => found(self.firecracker_path()),
            "vhost_device_vsock" => found(self.vhost_device_vsock_path().ok()),
            _ => Some(default.to_owned()),
        }
    }
}
