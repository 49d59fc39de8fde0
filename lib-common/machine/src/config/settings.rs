//! Every setting as it is for this run, and where it came from, for people who wonder.

use super::{Config, KEYS};
use lib_common::doc::{API_VERSION, Setting};
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
            let from_bundle = value.as_ref().filter(|_| origin == DEFAULT).and_then(|value| self.of_bundle(key, value));
            Setting {
                api_version: API_VERSION.into(),
                kind: "Setting".into(),
                key: (*key).into(),
                variable: (*variable).into(),
                value,
                origin: from_bundle.unwrap_or_else(|| origin.to_owned()),
            }
        };
        KEYS.iter().map(setting).collect()
    }

    /// The bundle's file, where that is what gives a key the value.
    fn of_bundle(&self, key: &str, value: &str) -> Option<String> {
        let bundle = self.bundle().ok()??;
        let is_its = matches!(key, "guest_agent" | "firecracker") && Path::new(value).starts_with(bundle.dir());
        is_its.then(|| bundle.json().display().to_string())
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
            "bundle" => self.bundle().ok().flatten().map(|bundle| shown(bundle.json())),
            "guest_agent" => found(self.agent_path().ok()),
            "qemu" => found(self.qemu_path().ok()),
            "firecracker" => found(self.firecracker_path().ok().flatten()),
            "vhost_device_vsock" => found(self.vhost_device_vsock_path().ok()),
            _ => Some(default.to_owned()),
        }
    }
}
