//! `bg-doctor --image`: what of an image will hang, from its files alone: no VM is started.

use super::DoctorArgs;
use crate::cli::{Answer, Context};
use lib_common::doc::{Accel, Check, Identity, Kernel, Name, SecondDisk, VmmKind};
use lib_common::error::{Code, Result};
use lib_image::build::kernel::{initrd, modules};
use lib_machine::vmm::bootcheck::{self, Facts, Initrd, MEND, checks};
use std::io;
use std::path::Path;

/// A [`lib_common::doc::Report`] on whether the image `name` can boot; [`Answer::No`] where it cannot. `line`: a kernel command
/// line, instead of that which its VMs get.
///
/// # Errors
/// [`Code::NotFound`], [`Code::BadDocument`]; what keeps the files from being read.
pub fn check(cx: &mut Context<'_>, name: &Name, line: Option<&str>, args: DoctorArgs) -> Result<Answer> {
    cx.stages.begin("boot_check");
    let kernel: Kernel = cx.store().image(name)?.require()?;
    let mend = format!("{MEND} {name}");
    let mut found = vec![];
    for (check, path) in [("kernel_file", &kernel.vmlinux), ("initrd_file", &kernel.initrd)] {
        let there = path.is_file();
        let seen = if there { "is there" } else { "is missing" };
        found.push(Check::new(check, there, format!("{path} {seen}"), &mend));
    }
    if found.iter().all(|check| check.ok) {
        found.extend(look(cx, &kernel, line, (name, &mend))?);
    }
    super::report(cx, format!("image {name}"), found, args)
}

fn look(cx: &Context<'_>, kernel: &Kernel, line: Option<&str>, (name, mend): (&Name, &str)) -> Result<Vec<Check>> {
    // On a host on which nothing runs the image is still worth a look.
    let choice = lib_machine::vmm::choose(cx.config.vmm, &cx.config);
    let (vmm, accel) = choice.map_or((VmmKind::Qemu, Accel::Tcg), |choice| (choice.kind, choice.accel));
    let own = bootcheck::command_line(vmm, accel, &cx.config.kernel_args);
    let builtin = kernel.modules.as_deref().map(modules::builtin).transpose()?.flatten();
    let mut initrd = Initrd::read(&kernel.initrd)?;
    if initrd.wrong.is_none() {
        initrd.length = assembled(&kernel.initrd)?;
    }
    let facts = Facts {
        vmm,
        kernel: bootcheck::Kernel::read(&kernel.vmlinux)?,
        initrd,
        command_line: line.unwrap_or(&own),
        builtin,
        mend,
    };
    let mut found = checks(&facts);
    found.push(recorded(kernel, facts.kernel.release.as_deref(), name));
    found.push(tree(kernel, mend));
    Ok(found)
}

/// How long the initrd of a boot is: the base and an identity.
fn assembled(base: &Path) -> Result<Option<u64>> {
    let identity = Identity {
        machine_id: "0".repeat(32),
        hostname: "host".into(),
        authorized_keys: vec![],
        host_key: "".into(),
        host_key_public: String::new(),
        second_disk: SecondDisk::Work,
        proxy_port: None,
        net: None,
        hosts: vec![],
        configure: false,
    };
    match initrd::assemble(base, &identity, &mut io::sink()) {
        Ok(length) => Ok(Some(length)),
        Err(e) if e.code() == Code::BadInput => Ok(None),
        Err(e) => Err(e),
    }
}

/// Whether the kernel is the one that the record says.
fn recorded(kernel: &Kernel, release: Option<&str>, name: &Name) -> Check {
    let check = "recorded_release";
    match release {
        Some(release) if release != kernel.version => {
            let message = format!("the record says that the kernel is {}, and it is {release}", kernel.version);
            Check::new(check, false, message, &format!("bg-image reconcile {name}"))
        }
        _ => Check::new(check, true, format!("the record says that the kernel is {}", kernel.version), ""),
    }
}

/// Whether the guest finds the modules that it loads later.
fn tree(kernel: &Kernel, mend: &str) -> Check {
    let check = "module_tree";
    let Some(tree) = &kernel.modules else {
        return Check::new(check, true, "the image has no modules, so everything is taken to be built in", "");
    };
    if !tree.is_dir() {
        return Check::new(check, false, format!("{tree} is missing"), mend);
    }
    if tree.file_name().is_none_or(|last| last != kernel.version.as_str()) {
        let message = format!("{tree} is not of {}, and the guest would not find its modules", kernel.version);
        return Check::new(check, false, message, mend);
    }
    Check::new(check, true, format!("the modules of {} are there", kernel.version), "")
}
