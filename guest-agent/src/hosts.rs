//! `/etc/hosts`: our own lines in it, written at boot, and by `guest-agent hosts` when other VMs came or went since.

use crate::init::files;
use lib_common::doc::Host;
use lib_common::error::{Code, Context, Error, Result};
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

/// Ends a line that is ours; every other one is the user's.
const MARK: &str = "# banger";

/// What the file begins with where there is none.
const BASE: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";

/// No network has more guests than that: each line of input is at most so long.
const MAX_BYTES: u64 = 16_384 * 128;

/// Writes our lines into the file, in place of our earlier ones: the guest's own name, and the other VMs'.
pub fn write(path: &Path, own: &str, hosts: &[Host]) -> Result<()> {
    let old = fs_err::read_to_string(path).unwrap_or_else(|_| BASE.to_owned());
    files::write_if_different(path, with(&old, own, hosts).as_bytes(), 0o644)
}

fn with(old: &str, own: &str, hosts: &[Host]) -> String {
    let mut text = String::with_capacity(old.len() + 64 * (hosts.len() + 1));
    for line in old.lines().filter(|line| !line.trim_end().ends_with(MARK)) {
        text.push_str(line);
        text.push('\n');
    }
    text.push_str(&format!("127.0.1.1\t{own}\t{MARK}\n"));
    for Host { address, name } in hosts {
        text.push_str(&format!("{address}\t{name} {name}.vm\t{MARK}\n"));
    }
    text
}

/// `guest-agent hosts`: reads the other VMs from stdin, a JSON list of `{"address":…,"name":…}`.
pub fn main() -> ExitCode {
    match update() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("guest-agent: {}: {}", e.message(), e.causes().join(": "));
            ExitCode::FAILURE
        }
    }
}

fn update() -> Result<()> {
    let mut text = vec![];
    std::io::stdin().take(MAX_BYTES).read_to_end(&mut text).context("cannot read the list of hosts")?;
    let hosts: Vec<Host> = serde_json::from_slice(&text)
        .map_err(|e| Error::new(Code::BadDocument, "the list of hosts is not one").because(&e))?;
    let own = nix::unistd::gethostname().context("cannot read the host name")?;
    write(Path::new("/etc/hosts"), &own.to_string_lossy(), &hosts).context("cannot write /etc/hosts")
}

#[cfg(test)]
mod tests {
    use super::*;
    use lib_common::doc::Name;

    #[test]
    fn new_names_replace_our_lines_and_no_other() {
        let first = with("127.0.0.1 localhost\n10.0.0.1 mine # keep", "dev", &[]);
        assert_eq!(first, "127.0.0.1 localhost\n10.0.0.1 mine # keep\n127.0.1.1\tdev\t# banger\n");
        assert_eq!(with(&first, "dev", &[]), first);
        let hosts = [Host { address: "192.0.2.7".parse().unwrap(), name: Name::parse("web").unwrap() }];
        let second = with(&first, "other", &hosts);
        assert!(second.ends_with("# keep\n127.0.1.1\tother\t# banger\n192.0.2.7\tweb web.vm\t# banger\n"), "{second}");
        assert_eq!(with(&second, "dev", &[]), first);
    }
}
