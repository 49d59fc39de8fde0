//! What /proc says of this host, for whoever reads what was measured on it. Knows no domain.

use crate::error::{Error, Result};
use std::path::Path;

/// The kernel's release.
pub fn kernel_release() -> Result<String> {
    read("/proc/sys/kernel/osrelease").map(|text| text.trim().to_owned())
}

/// The processor's model; `None` where the architecture does not name it.
pub fn cpu_model() -> Result<Option<String>> {
    let text = read("/proc/cpuinfo")?;
    let model = text.lines().filter_map(|line| line.split_once(':')).find(|(key, _)| key.trim() == "model name");
    Ok(model.map(|(_, value)| value.trim().to_owned()))
}

/// How many processors this process may use.
pub fn cpus() -> Result<u32> {
    Ok(std::thread::available_parallelism()?.get() as u32)
}

/// How many processes ran or wanted to, in the mean of the last minute.
pub fn load_average() -> Result<f64> {
    let text = read("/proc/loadavg")?;
    Ok(text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0.0))
}

fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(path).map_err(|e| Error::io("read", Path::new(path), &e))
}
