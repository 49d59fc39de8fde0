//! What the agent needs to know of the identity once `/init` has deleted it: a small file each, no secret in any.

use super::{AGENT_DIR, files};
use lib_common::doc::Identity;
use lib_common::error::Result;
use std::path::Path;

/// Writes them to the agent's directory.
pub fn write(identity: &Identity) -> Result<()> {
    write_in(Path::new(AGENT_DIR), identity)
}

fn write_in(dir: &Path, identity: &Identity) -> Result<()> {
    let put =
        |name: &str, text: String| files::write_if_different(&dir.join(name), format!("{text}\n").as_bytes(), 0o644);
    put(crate::SECOND_DISK_FILE, identity.second_disk.as_str().to_owned())?;
    put(crate::KEYS_FILE, identity.authorized_keys.join("\n"))?;
    match identity.proxy_port {
        Some(port) => put(crate::PROXY_PORT_FILE, port.to_string()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lib_common::doc::SecondDisk;

    #[test]
    fn the_agent_is_told_of_the_second_disk_and_of_a_proxy_only_where_there_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let read = |name: &str| fs_err::read_to_string(dir.path().join(name)).ok();
        let mut identity = Identity {
            machine_id: String::new(),
            hostname: String::new(),
            authorized_keys: vec![],
            host_key: "a secret".into(),
            host_key_public: String::new(),
            second_disk: SecondDisk::Modules,
            proxy_port: None,
            net: None,
            hosts: vec![],
            configure: false,
        };
        write_in(dir.path(), &identity).unwrap();
        assert_eq!((read("second-disk").as_deref(), read("proxy-port")), (Some("modules\n"), None));
        identity.proxy_port = Some(3128);
        write_in(dir.path(), &identity).unwrap();
        assert_eq!(read("proxy-port").as_deref(), Some("3128\n"));
    }
}
