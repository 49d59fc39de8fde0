//! The building of a microVM, as far as it can fail: the configuration, its files, and what each part asks of the others.

use crate::log::{self, Log};
use crate::schema;
use serde_json::Value;
use std::collections::HashSet;
use std::io::Read;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// The longest command line, its NUL included.
const COMMAND_LINE: usize = 2048;

/// A microVM that is built.
pub struct Built {
    pub vsock: Option<(PathBuf, UnixListener)>,
    pub metrics: Option<PathBuf>,
}

/// Reads a configuration as the real one does, where a key that stands twice in an object is an error.
pub fn parse(text: &str) -> Result<Value, String> {
    let config = serde_json::from_str(text).map_err(|e| e.to_string())?;
    match double_key(text) {
        Some(key) => Err(format!("duplicate field `{key}`")),
        None => Ok(config),
    }
}

/// Builds the microVM of that configuration.
pub fn build(config: &Value, version: &str, log: &mut Log) -> Result<Built, String> {
    schema::check_configuration(config, version)?;
    logger(config, log)?;
    let metrics = path(config, "/metrics/metrics_path");
    if let Some(path) = &metrics {
        log::open(path).map_err(|e| format!("Failed to open target file {}: {e}", path.display()))?;
    }
    machine(config)?;
    drives(config)?;
    interfaces(config)?;
    boot_source(config)?;
    let vsock = path(config, "/vsock/uds_path").map(|uds| match UnixListener::bind(&uds) {
        Ok(listener) => Ok((uds, listener)),
        Err(e) => Err(format!("Error binding to the host-side Unix socket {}: {e}", uds.display())),
    });
    Ok(Built { vsock: vsock.transpose()?, metrics })
}

fn path(config: &Value, pointer: &str) -> Option<PathBuf> {
    config.pointer(pointer).and_then(Value::as_str).map(PathBuf::from)
}

fn logger(config: &Value, log: &mut Log) -> Result<(), String> {
    let logger = &config["logger"];
    if let Some(level) = logger["level"].as_str() {
        log.set_level(level)?;
    }
    if let Some(show) = logger["show_level"].as_bool() {
        log.show_level(show);
    }
    path(config, "/logger/log_path").map_or(Ok(()), |path| log.open(&path))
}

fn machine(config: &Value) -> Result<(), String> {
    let machine = &config["machine-config"];
    let number = |key: &str, default: u64| machine[key].as_u64().unwrap_or(default);
    let (vcpus, mib) = (number("vcpu_count", 1), number("mem_size_mib", 128));
    if machine["smt"] == true && vcpus > 1 && vcpus % 2 == 1 {
        return Err("The number of vCPUs must be 1 or an even number when SMT is enabled.".into());
    }
    // A kernel is loaded above the first MiB.
    if mib < 2 || mib.checked_mul(1 << 20).is_none_or(|bytes| bytes > 1 << 47) {
        return Err(format!("Cannot create a guest memory of {mib} MiB"));
    }
    if machine["huge_pages"] == "2M" && free_huge_pages() < mib / 2 {
        return Err("Cannot create guest memory of huge pages: Cannot allocate memory (os error 12)".into());
    }
    Ok(())
}

/// How many pages of 2 MiB the host has to give.
pub fn free_huge_pages() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let free = text.lines().find_map(|line| line.strip_prefix("HugePages_Free:")?.trim().parse().ok());
    free.unwrap_or(0)
}

fn drives(config: &Value) -> Result<(), String> {
    let drives = array(config, "drives");
    for drive in drives {
        let file = PathBuf::from(drive["path_on_host"].as_str().unwrap_or_default());
        if !file.is_file() {
            return Err(format!("Unable to create the virtio block device: {} is no file", file.display()));
        }
    }
    if drives.iter().filter(|drive| drive["is_root_device"] == true).count() > 1 {
        return Err("A root block device already exists!".into());
    }
    Ok(())
}

fn interfaces(config: &Value) -> Result<(), String> {
    let interfaces = array(config, "network-interfaces");
    let mut macs = HashSet::new();
    for mac in interfaces.iter().filter_map(|interface| interface["guest_mac"].as_str()) {
        if !macs.insert(mac.to_ascii_lowercase()) {
            return Err(format!("The MAC address is already in use: {mac}"));
        }
    }
    let Some(users) = config.pointer("/mmds-config/network_interfaces").and_then(Value::as_array) else {
        return Ok(());
    };
    let exists = |id: &Value| interfaces.iter().any(|interface| interface["iface_id"] == *id);
    if users.is_empty() || !users.iter().all(exists) {
        return Err("The list of network interface IDs for MMDS is invalid".into());
    }
    Ok(())
}

fn boot_source(config: &Value) -> Result<(), String> {
    let kernel = path(config, "/boot-source/kernel_image_path").unwrap_or_default();
    if !starts_as_kernel(&kernel).map_err(|e| format!("The kernel file cannot be opened: {}: {e}", kernel.display()))? {
        return Err(format!("Cannot load kernel: {} is not an ELF file", kernel.display()));
    }
    if let Some(initrd) = path(config, "/boot-source/initrd_path") {
        let meta = std::fs::metadata(&initrd).map_err(|e| format!("The initrd file cannot be opened: {e}"))?;
        if !meta.is_file() || meta.len() == 0 {
            return Err(format!("Cannot load initrd: {} is empty", initrd.display()));
        }
    }
    let given = config.pointer("/boot-source/boot_args").and_then(Value::as_str).unwrap_or_default();
    if given.len() + appended(config) >= COMMAND_LINE {
        return Err("Cannot build the kernel command line: the command line is too large".into());
    }
    Ok(())
}

/// How much is appended to the command line: where each device is, and what the root device is.
fn appended(config: &Value) -> usize {
    let has = |section: &str| usize::from(config[section].is_object());
    let count = array(config, "drives").len() + array(config, "network-interfaces").len();
    let devices = count + has("vsock") + has("entropy") + has("balloon");
    let root = array(config, "drives").iter().any(|drive| drive["is_root_device"] == true);
    let root = if root { " root=/dev/vda rw".len() } else { 0 };
    devices * " virtio_mmio.device=4K@0xc0001000:5".len() + " pci=off".len() + root
}

fn array<'a>(config: &'a Value, key: &str) -> &'a [Value] {
    config[key].as_array().map_or(&[], Vec::as_slice)
}

/// Whether a file begins as an ELF file, as a kernel does on x86_64.
fn starts_as_kernel(file: &Path) -> std::io::Result<bool> {
    let mut magic = vec![];
    std::fs::File::open(file)?.take(4).read_to_end(&mut magic)?;
    Ok(std::env::consts::ARCH != "x86_64" || magic == b"\x7fELF")
}

/// A key that stands twice in an object of this text, which is JSON.
fn double_key(text: &str) -> Option<String> {
    let mut open: Vec<HashSet<&str>> = vec![];
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}', '"']) {
        let (mark, after) = (rest.as_bytes()[at], &rest[at + 1..]);
        rest = after;
        match mark {
            b'{' => open.push(HashSet::new()),
            b'}' => drop(open.pop()),
            _ => {
                let end = end_of_string(after);
                rest = after.get(end + 1..)?;
                let is_key = rest.trim_start().starts_with(':');
                if is_key && !open.last_mut()?.insert(&after[..end]) {
                    return Some(after[..end].to_owned());
                }
            }
        }
    }
    None
}

/// Where the string ends whose first quote is just before.
fn end_of_string(text: &str) -> usize {
    let mut escaped = false;
    let ends = |b: u8| {
        let is_end = b == b'"' && !escaped;
        escaped = b == b'\\' && !escaped;
        is_end
    };
    text.bytes().position(ends).unwrap_or(text.len())
}
