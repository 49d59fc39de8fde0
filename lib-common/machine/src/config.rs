//! Settings in layers: flag > `BG_*` > the user's file > the system's file > default. Reads configuration and nothing
//! else.
//!
//! Files are TOML with the keys of [`KEYS`]; an unknown key is an error that names the nearest one. Flags are merged
//! by the verbs, which own them.

use lib_common::doc::{Cidr, KernelArgs, Name, Via, VmmChoice, subnet};
use lib_common::error::{Code, Error, Result};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

mod bundle;
mod file;
mod legacy;
mod parse;
mod programs;
mod settings;
mod variables;

pub use parse::{MEMORY_MIB, VCPUS, parse_boot_timeout, parse_memory_mib, parse_seconds, parse_size, parse_vcpu};

use parse::{parse_addresses, parse_net};
pub use variables::unknown_variables;

pub use bundle::{Loaded, default_dir as default_bundle_dir, mend as mend_bundle};

/// Every key, its variable, its default in words, and what it is.
pub const KEYS: &[(&str, &str, &str, &str)] = &[
    ("state_dir", "BG_STATE_DIR", "$XDG_STATE_HOME/banger; root: /var/lib/banger", "images and VMs"),
    (
        "runtime_dir",
        "BG_RUNTIME_DIR",
        "$XDG_RUNTIME_DIR/banger; root: /run/banger; else run/ in the state directory",
        "sockets of running VMs",
    ),
    (
        "cache_dir",
        "BG_CACHE_DIR",
        "$XDG_CACHE_HOME/banger",
        "kernels, root file systems and downloads, to be built again at any time",
    ),
    (
        "bundle",
        "BG_BUNDLE",
        "bundle/bundle.json in the state directory, where that is there",
        "the bundle's bundle.json, or `none`",
    ),
    ("image", "BG_IMAGE", "the image made default by bg-image", "the image of a new VM"),
    ("vmm", "BG_VMM", "auto", "which VMM: auto, firecracker, qemu"),
    ("vcpu", "BG_VCPU", "1", "virtual processors of a new VM"),
    ("memory", "BG_MEMORY", "1G", "memory of a new VM"),
    ("work_size", "BG_WORK_SIZE", "8G", "work disk of a new VM"),
    (
        "guest_agent",
        "BG_GUEST_AGENT",
        "the bundle's, else ../libexec/banger/guest-agent from the tool, else beside it",
        "the agent that goes into a kernel's initrd",
    ),
    ("kernel_args", "BG_KERNEL_ARGS", "none", "appended to the command line of a new VM's kernel"),
    (
        "boot_timeout",
        "BG_BOOT_TIMEOUT",
        "60",
        "seconds that a guest may take to boot; its other deadlines are in proportion",
    ),
    ("firecracker", "BG_FIRECRACKER", "the bundle's, else firecracker in PATH", "the Firecracker to run"),
    ("qemu", "BG_QEMU", "qemu-system-ARCH", "the QEMU to run"),
    (
        "vhost_device_vsock",
        "BG_VHOST_DEVICE_VSOCK",
        "vhost-device-vsock in PATH, else in the cache directory, else ../libexec/banger/vhost-device-vsock from the tool",
        "the vsock device beside QEMU",
    ),
    ("net_dir", "BG_NET_DIR", "/run/banger/net", "TAPs and addresses, a directory for each network namespace"),
    ("subnet", "BG_SUBNET", subnet::DEFAULT, "the guests' network that bg-tap makes"),
    ("net", "BG_NET", "auto", "whether a new VM gets a network card: auto (where it may), on, off"),
    (
        "nameservers",
        "BG_NAMESERVERS",
        "the host's own, without those on its loopback interface",
        "whom guests that reach other networks ask for names: addresses, separated by commas",
    ),
    ("ssh_via", "BG_SSH_VIA", "auto", "how bg-ssh reaches a guest: auto, tap, vsock"),
    ("lock_wait", "BG_LOCK_WAIT", "10", "seconds to wait for a lock"),
    ("console_bytes", "BG_CONSOLE_BYTES", "4M", "at most so much of a VM's console is kept"),
];

/// The settings of this run, without flags.
#[derive(Clone, Debug)]
pub struct Config {
    /// Images and VMs.
    pub state_dir: PathBuf,
    /// Sockets of running VMs.
    pub runtime_dir: PathBuf,
    /// What can be built again.
    pub cache_dir: PathBuf,
    /// The image of a new VM.
    pub image: Option<Name>,
    /// Which VMM.
    pub vmm: VmmChoice,
    /// Appended to the command line of a new VM's kernel.
    pub kernel_args: KernelArgs,
    /// How long a guest may take to boot; see [`Config::guest_deadline`].
    pub boot_timeout: Duration,
    /// Processors of a new VM.
    pub vcpu: u32,
    /// Memory of a new VM.
    pub memory_mib: u64,
    /// Work disk of a new VM.
    pub work_bytes: u64,
    /// TAPs and leases, by network namespace.
    pub net_dir: PathBuf,
    /// The guests' network that `bg-tap up` makes.
    pub subnet: Cidr,
    /// Whether a new VM gets a network card; where it may have one, if that is not said.
    pub net: Option<bool>,
    /// Whom guests ask for names, instead of the host's name servers.
    pub nameservers: Option<Vec<Ipv4Addr>>,
    /// How `bg-ssh` reaches a guest.
    pub ssh_via: Via,
    /// How long to wait for a lock.
    pub lock_wait: Duration,
    /// How much of a console is kept.
    pub console_bytes: u64,
    bundle: Result<Option<Loaded>>,
    legacy: Vec<String>,
    guest_agent: Option<PathBuf>,
    firecracker: Option<PathBuf>,
    qemu: Option<PathBuf>,
    vhost_device_vsock: Option<PathBuf>,
    tool_dir: Option<PathBuf>,
    values: Layer,
}

/// The environment as a value, so that a test can give its own.
pub type Env = BTreeMap<String, String>;

/// This process's environment; variables that are not UTF-8 are no settings of ours.
pub fn process_env() -> Env {
    std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect()
}

/// A value and the place it came from, for messages.
type Layer = BTreeMap<&'static str, (String, String)>;

impl Config {
    /// Reads the layers. `root`: whether the caller is root.
    pub fn load(env: &Env, root: bool) -> Result<Self> {
        let (mut values, mut legacy) = (Layer::new(), vec![]);
        for file in file::places(env)? {
            values.extend(file::read(&file, &mut legacy)?);
        }
        for (key, variable, ..) in KEYS {
            if let Some(value) = env.get(*variable).filter(|v| !v.is_empty()) {
                values.insert(key, (value.clone(), (*variable).to_owned()));
            }
        }
        values.extend(legacy::variables(env, &mut legacy)?);
        let mut config = Self::from_values(&values, env, root)?;
        if let Ok(Some(bundle)) = &config.bundle {
            legacy.extend(bundle.legacy());
        }
        config.legacy = legacy;
        Ok(config)
    }

    fn from_values(values: &Layer, env: &Env, root: bool) -> Result<Self> {
        let xdg = |variable: &str, in_home: &str| -> Result<PathBuf> {
            if let Some(dir) = env.get(variable).filter(|d| d.starts_with('/')) {
                return Ok(PathBuf::from(dir).join("banger"));
            }
            match file::home(env)? {
                Some(home) => Ok(home.join(in_home).join("banger")),
                None => {
                    Err(Error::new(Code::BadConfig, "HOME is not set, and you have no entry in the passwd database")
                        .hint("set HOME, or BG_STATE_DIR and BG_CACHE_DIR"))
                }
            }
        };
        let state_dir = match (path(values, "state_dir")?, root) {
            (Some(dir), _) => dir,
            (None, true) => "/var/lib/banger".into(),
            (None, false) => xdg("XDG_STATE_HOME", ".local/state")?,
        };
        let runtime_dir = match (path(values, "runtime_dir")?, root, env.get("XDG_RUNTIME_DIR")) {
            (Some(dir), ..) => dir,
            // Another state directory is another banger: their sockets do not meet.
            (None, true, _) if !values.contains_key("state_dir") => "/run/banger".into(),
            (None, false, Some(dir)) if dir.starts_with('/') && !values.contains_key("state_dir") => {
                PathBuf::from(dir).join("banger")
            }
            _ => state_dir.join("run"),
        };
        Ok(Config {
            cache_dir: path(values, "cache_dir")?.map_or_else(|| xdg("XDG_CACHE_HOME", ".cache"), Ok)?,
            image: parsed(values, "image", |v| Name::parse(v).map_err(|e| e.to_string()))?,
            vmm: parsed(values, "vmm", |v| v.parse::<VmmChoice>())?.unwrap_or(VmmChoice::Auto),
            kernel_args: parsed(values, "kernel_args", KernelArgs::parse)?.unwrap_or_default(),
            boot_timeout: parsed(values, "boot_timeout", parse_boot_timeout)?.unwrap_or(USUAL_BOOT),
            vcpu: parsed(values, "vcpu", parse_vcpu)?.unwrap_or(1),
            memory_mib: parsed(values, "memory", parse_memory_mib)?.unwrap_or(1024),
            work_bytes: parsed(values, "work_size", parse_size)?.unwrap_or(8 << 30),
            net_dir: path(values, "net_dir")?.unwrap_or_else(|| lib_common::doc::NETWORKS_DIR.into()),
            subnet: match parsed(values, "subnet", subnet::parse)? {
                Some(subnet) => subnet,
                None => subnet::parse(subnet::DEFAULT)?,
            },
            net: parsed(values, "net", parse_net)?.flatten(),
            nameservers: parsed(values, "nameservers", parse_addresses)?,
            ssh_via: parsed(values, "ssh_via", |v| v.parse::<Via>())?.unwrap_or(Via::Auto),
            lock_wait: parsed(values, "lock_wait", parse_seconds)?.unwrap_or(Duration::from_secs(10)),
            console_bytes: parsed(values, "console_bytes", parse_size)?.unwrap_or(4 << 20),
            bundle: Loaded::find(parsed(values, "bundle", bundle::parse)?, &state_dir),
            legacy: vec![],
            guest_agent: path(values, "guest_agent")?,
            firecracker: path(values, "firecracker")?,
            qemu: parsed(values, "qemu", programs::parse_qemu)?,
            vhost_device_vsock: path(values, "vhost_device_vsock")?,
            tool_dir: std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.to_owned())),
            values: values.clone(),
            state_dir,
            runtime_dir,
        })
    }

    /// The bundle that is used, where there is one.
    ///
    /// # Errors
    /// Why it cannot be used: [`Code::BadDocument`], [`Code::MissingFile`].
    pub fn bundle(&self) -> Result<Option<&Loaded>> {
        self.bundle.as_ref().map(Option::as_ref).map_err(Clone::clone)
    }

    /// These settings without a bundle, for whoever makes one.
    pub fn without_bundle(&self) -> Self {
        Config { bundle: Ok(None), ..self.clone() }
    }

    /// One remark on all old names of settings that were used, where there are any.
    pub fn legacy(&self) -> Option<String> {
        (!self.legacy.is_empty()).then(|| format!("old names: {}", self.legacy.join("; ")))
    }

    /// How long something that usually has a guest done it within `usual` may take on this host: in proportion to the
    /// time that a boot may take.
    pub fn guest_deadline(&self, usual: Duration) -> Duration {
        scaled(usual, self.boot_timeout)
    }

    /// The deadline that was asked for, as it is, or else the usual one by [`Config::guest_deadline`].
    pub fn deadline(&self, asked: Option<Duration>, usual_seconds: u64) -> Duration {
        asked.unwrap_or_else(|| self.guest_deadline(Duration::from_secs(usual_seconds)))
    }
}

/// How long a boot may take that is waited for with the usual deadlines.
pub const USUAL_BOOT: Duration = Duration::from_secs(60);

/// A deadline where a boot may take `boot`, in proportion: `usual` where that is [`USUAL_BOOT`].
pub fn scaled(usual: Duration, boot: Duration) -> Duration {
    usual.mul_f64(boot.as_secs_f64() / USUAL_BOOT.as_secs_f64())
}

fn path(values: &Layer, key: &str) -> Result<Option<PathBuf>> {
    parsed(values, key, |v| match lib_common::doc::AbsPath::new(v) {
        Ok(path) => Ok(path.to_path_buf()),
        Err(e) => Err(e.to_string()),
    })
}

fn parsed<T, E: std::fmt::Display>(
    values: &Layer,
    key: &str,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<Option<T>> {
    let Some((value, origin)) = values.get(key) else { return Ok(None) };
    parse(value).map(Some).map_err(|e| Error::new(Code::BadConfig, format!("{origin}: `{key}`: {e}")))
}

#[cfg(test)]
mod tests;
