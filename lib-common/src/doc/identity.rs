//! What one boot of one VM is given: a file in the initrd that the host appends, read by the guest's `/init`.

use serde::{Deserialize, Serialize};

/// Where the initrd has it. It holds a secret (mode 0600) and is gone once `/init` has read it.
pub const IDENTITY_PATH: &str = "/banger/identity.json";

/// Where the initrd has the kernel modules: raw `.ko` files, and beside them [`MODULES_LIST`].
pub const MODULES_DIR: &str = "/banger/modules";

/// The modules' file names in [`MODULES_DIR`], one a line, in the order in which they are loaded.
pub const MODULES_LIST: &str = "/banger/modules/list";

/// The vsock port of the agent's HTTP server.
pub const HEALTH_PORT: u32 = 52;

/// The vsock port that the agent relays to the guest's sshd.
pub const SSH_PORT: u32 = 22;

/// Who this guest is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "host", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The machine-id: 32 hexadecimal digits.
    pub machine_id: String,
    /// The host name.
    pub hostname: String,
    /// Lines for root's `authorized_keys`.
    pub authorized_keys: Vec<String>,
    /// The SSH host key: an OpenSSH private key in PEM.
    pub host_key: String,
    /// Its public half, `ssh-ed25519 …`.
    pub host_key_public: String,
}
