//! Firecracker: what it is started with and how its API is spoken to. Starts nothing but `firecracker --version`.
//!
//! Sources: its API's specification (src/firecracker/swagger/firecracker.yaml), docs/getting-started.md for
//! `--config-file`, docs/logger.md for the options of the log, docs/kernel-policy.md for the command line, docs/vsock.md, docs/api_requests/actions.md.

mod api;
pub(super) mod client;
mod config;
mod version;

pub(super) use config::configuration;
pub use version::{LEAST, Version};

use super::files;
use lib_common::doc::Launch;
use lib_common::sys::cmd::Cmd;

/// Firecracker for one boot. Its stdin and stdout are the serial console.
pub(super) fn command(launch: &Launch) -> Cmd {
    let run = |file: &str| launch.runtime_dir.join(file);
    super::beside_its_parent(&launch.vmm_program)
        // The id is here for audits, too: it says whose process this is, also when every record is lost.
        .args(["--id", &launch.machine_id])
        .arg("--api-sock")
        .arg(run(files::API))
        .arg("--config-file")
        .arg(run(files::CONFIG))
        // Before it has read its configuration it logs to stdout, which is the serial console.
        .arg("--log-path")
        .arg(run(files::VMM_LOG))
        .args(["--level", "Warning", "--show-level"])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmm::qemu::tests::example;

    #[test]
    fn the_command_line() {
        let launch =
            Launch { vmm_program: lib_common::doc::AbsPath::new("/usr/bin/firecracker").unwrap(), ..example() };
        let expected = "/usr/bin/firecracker --id 0123456789abcdef0123456789abcdef \
            --api-sock /run/banger/0123456789ab/api.sock --config-file /run/banger/0123456789ab/firecracker.json \
            --log-path /run/banger/0123456789ab/vmm.log --level Warning --show-level";
        assert_eq!(command(&launch).to_shell(), expected);
    }
}
