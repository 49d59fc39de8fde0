//! What one boot of one VM is given: a file in the initrd that the host appends, read by the guest's `/init`.

use super::{Cidr, Name, Secret};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// Where the initrd has it. It holds a secret (mode 0600) and is gone once `/init` has read it.
pub const IDENTITY_PATH: &str = "/banger/identity.json";

/// Where the initrd has the kernel modules: raw `.ko` files, and beside them [`MODULES_LIST`].
pub const MODULES_DIR: &str = "/banger/modules";

/// The modules' file names in [`MODULES_DIR`], one a line, in the order in which they are loaded.
pub const MODULES_LIST: &str = "/banger/modules/list";

/// The vsock port of CID 2, the host, to which the agent connects as soon as it listens. Before that nobody connects to
/// the guest: vhost-device-vsock 0.3 does not survive a connection in the moment in which the guest sets its device up.
pub const UP_PORT: u32 = 51;

/// The vsock port of the agent's HTTP server.
pub const HEALTH_PORT: u32 = 52;

/// The vsock port that the agent relays to the guest's sshd.
pub const SSH_PORT: u32 = 22;

/// The vsock port of CID 2, the host, that the agent relays the package proxy's connections to: the VMM hands them to
/// whoever listens on the Unix socket `<vsock>_3128`.
pub const PROXY_PORT: u32 = 3128;

/// Where `/init` mounts the disk of [`SecondDisk::Modules`], read-only. It holds `lib/modules/VERSION`.
pub const MODULES_AT: &str = "/run/banger/modules";

/// Who this guest is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The machine-id: 32 hexadecimal digits.
    pub machine_id: String,
    /// The host name.
    pub hostname: String,
    /// Lines for root's `authorized_keys`.
    pub authorized_keys: Vec<String>,
    /// The SSH host key: an OpenSSH private key in PEM.
    pub host_key: Secret,
    /// Its public half, `ssh-ed25519 …`.
    pub host_key_public: String,
    /// What the second disk is.
    pub second_disk: SecondDisk,
    /// The TCP port of the guest's loopback interface that the agent relays to [`PROXY_PORT`]; without it there is no
    /// proxy. A guest that is built has one, any other has not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_port: Option<u16>,
    /// What its network card gets; without it, there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub net: Option<IdentityNet>,
    /// Names of other VMs, for `/etc/hosts`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<Host>,
    /// Whether this boot is to run the scripts at [`super::CONFIGURE_DIR`], and nothing else.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub configure: bool,
}

/// The network as a guest sees it from `eth0`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IdentityNet {
    /// Its own address.
    pub address: Cidr,
    /// Its default route: the host's address on the bridge.
    pub gateway: Ipv4Addr,
    /// Whom it asks for names, for `/etc/resolv.conf`; nobody where the guest reaches no other network.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<Ipv4Addr>,
}

/// A VM by its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Its address.
    pub address: Ipv4Addr,
    /// Its name; `NAME.vm` is another one.
    pub name: Name,
}

/// What a guest finds at `/dev/vdb`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SecondDisk {
    /// There is no second disk, and nobody waits for one.
    None,
    /// The work disk, mounted at `/root`.
    Work,
    /// Kernel modules, mounted read-only at [`MODULES_AT`].
    Modules,
}

impl SecondDisk {
    /// Every kind there is.
    pub const ALL: [SecondDisk; 3] = [SecondDisk::None, SecondDisk::Work, SecondDisk::Modules];

    /// Its word in the document.
    pub const fn as_str(self) -> &'static str {
        match self {
            SecondDisk::None => "none",
            SecondDisk::Work => "work",
            SecondDisk::Modules => "modules",
        }
    }
}
