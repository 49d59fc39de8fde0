//! What a new VM may be called and how large it may be. VMs that are there already keep their name and size: they are
//! listed, started, stopped and removed whatever these are.

use crate::cli::Context;
use crate::cli::table::size;
use crate::config::{MEMORY_MIB, VCPUS};
use crate::doc::{Name, Spec};
use crate::error::{Code, Error, Result};
use crate::sys::host::{Memory, memory};

/// Names that the `/etc/hosts` of guests have already.
const RESERVED: [&str; 8] = [
    "localhost",
    "broadcasthost",
    "ip6-localhost",
    "ip6-loopback",
    "ip6-localnet",
    "ip6-mcastprefix",
    "ip6-allnodes",
    "ip6-allrouters",
];

/// Refuses a name that means something else to the VMs beside it, and a size that no VMM takes or the host does not have.
///
/// # Errors
/// [`Code::BadValue`].
pub(super) fn check(name: &Name, spec: &Spec) -> Result<()> {
    check_name(name)?;
    check_size(spec, memory().ok())
}

/// Says where a VM has more memory than the host has available.
pub(super) fn warn(cx: &mut Context<'_>, name: &Name, spec: &Spec) {
    let Ok(memory) = memory() else { return };
    let wanted = spec.memory_mib << 20;
    if wanted > memory.available {
        let (wanted, available) = (size(wanted), size(memory.available));
        cx.remark(&format!("warning: {name} has {wanted} of memory, and the host only {available} available"));
    }
}

fn check_name(name: &Name) -> Result<()> {
    let text = name.as_str();
    // inet_aton(3) takes these for addresses: decimal, octal and hexadecimal.
    let is_number = text.bytes().all(|b| b.is_ascii_digit());
    let is_hex = text.strip_prefix("0x").is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
    let why = match text {
        _ if RESERVED.contains(&text) => "means something else in every guest's /etc/hosts",
        _ if is_number || is_hex => "is an address to programs that resolve names",
        _ => return Ok(()),
    };
    Err(Error::new(Code::BadValue, format!("a VM cannot be named `{name}`: the name {why}"))
        .hint(format!("choose another one, such as vm-{}", text.trim_start_matches("0x"))))
}

fn check_size(spec: &Spec, host: Option<Memory>) -> Result<()> {
    let bad = |field: &str, value: u64, range: &str| {
        Err(Error::new(Code::BadValue, format!("`spec.{field}` is {value}, and not from {range}")))
    };
    if !VCPUS.contains(&spec.vcpu) {
        return bad("vcpu", spec.vcpu.into(), "1 to 32");
    }
    if !MEMORY_MIB.contains(&spec.memory_mib) {
        return bad("memory_mib", spec.memory_mib, "64 MiB to 4194304 MiB (4 TiB)");
    }
    match host {
        Some(host) if spec.memory_mib << 20 > host.total && !spec.overcommit => {
            let (wanted, total) = (size(spec.memory_mib << 20), size(host.total));
            let message = format!("a VM with {wanted} of memory is too large: the host has {total}");
            Err(Error::new(Code::BadValue, message).hint("--overcommit (`spec.overcommit`) makes it all the same"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doc::VmmChoice;

    fn spec(vcpu: u32, memory_mib: u64, overcommit: bool) -> Spec {
        Spec {
            image: Name::parse("debian").unwrap(),
            vcpu,
            memory_mib,
            overcommit,
            root_bytes: 0,
            work_bytes: 0,
            net: false,
            nat: false,
            vmm: VmmChoice::Auto,
            kernel_args: Default::default(),
        }
    }

    #[test]
    fn a_name_that_resolves_to_something_else_is_refused() {
        for bad in
            ["localhost", "ip6-localhost", "ip6-loopback", "broadcasthost", "1", "007", "0x7f", "0x", "0xdeadbeef"]
        {
            let e = check_name(&Name::parse(bad).unwrap()).unwrap_err();
            assert_eq!(e.code(), Code::BadValue, "{bad}");
            assert!(e.message().contains(bad), "{e}");
        }
        for good in ["dev", "localhost1", "my-localhost", "1a", "a1", "0y7", "0x7g", "deadbeef", "1-2", "ip6"] {
            check_name(&Name::parse(good).unwrap()).unwrap();
        }
    }

    #[test]
    fn a_size_that_no_vmm_takes_or_the_host_lacks_is_refused() {
        let host = Some(Memory { total: 24 << 30, available: 1 << 30 });
        for (vcpu, mib, overcommit) in [(0, 512, false), (33, 512, true), (99, 512, true), (1, 1, true), (1, 63, false)]
        {
            assert!(check_size(&spec(vcpu, mib, overcommit), host).is_err(), "{vcpu} {mib}");
        }
        assert!(check_size(&spec(1, (4 << 20) + 1, true), host).is_err());
        for (mib, overcommit, fine) in [
            (24 << 10, false, true),
            ((24 << 10) + 1, false, false),
            (200 << 10, false, false),
            (200 << 10, true, true),
        ] {
            assert_eq!(check_size(&spec(32, mib, overcommit), host).is_ok(), fine, "{mib} {overcommit}");
        }
        check_size(&spec(1, 4 << 20, false), None).unwrap();
    }
}
