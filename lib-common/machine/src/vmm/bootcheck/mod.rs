//! What of a kernel, an initrd and a kernel command line will hang a guest, said before anything is started. [`checks`]
//! is a pure function of facts; `read` gets them. Starts nothing, and reads no more than headers and modules.

mod initrd;
mod line;
mod read;

pub use read::{Initrd, Kernel, Loaded};

use super::cmdline;
use lib_common::doc::{self, Accel, Check, KernelArgs, Launch, VmmKind};
use lib_common::error::{Code, Error, Result};
use lib_image::build::kernel::modules;
use std::collections::BTreeSet;

/// Mends an image's kernel, initrd and modules; the image's name follows.
pub const MEND: &str = "bg-kernel build | bg-image reconcile --kernel -";

/// What begins the message of a check that could not be made.
const NOT_CHECKED: &str = "not checked: ";

/// All that the checks look at.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// The VMM that will start the guest.
    pub vmm: VmmKind,
    /// The kernel.
    pub kernel: Kernel,
    /// The base initrd.
    pub initrd: Initrd,
    /// The kernel's command line.
    pub command_line: &'a str,
    /// What is built into the kernel; `None` where nobody says it.
    pub builtin: Option<BTreeSet<String>>,
    /// A command that puts another kernel into the image.
    pub mend: &'a str,
}

/// Every check, in the order in which a boot would fail. One that has not passed is a hang; one that has passed and has a
/// `fix` costs something.
pub fn checks(facts: &Facts<'_>) -> Vec<Check> {
    let mut checks = kernel(facts);
    checks.extend(initrd::checks(facts));
    checks.extend(line::checks(facts));
    checks
}

/// Refuses to start what will hang. Takes less than a millisecond. Gives what will merely cost something, in words.
///
/// `kernel`: the one that the VM was made with; of its module tree, the list of what is built into it is read. `mend`: see
/// [`Facts::mend`].
///
/// Errors: [`Code::BootCheck`] with all findings, [`Code::MissingFile`].
pub fn before_launch(launch: &Launch, (kernel, mend): (&doc::Kernel, &str), command_line: &str) -> Result<Vec<String>> {
    let facts = Facts {
        vmm: launch.kind,
        kernel: Kernel::at_a_glance(&launch.kernel)?,
        initrd: Initrd::read(&launch.initrd)?,
        command_line,
        builtin: kernel.modules.as_deref().map(modules::builtin).transpose()?.flatten(),
        mend,
    };
    let (passed, failed): (Vec<Check>, Vec<Check>) = checks(&facts).into_iter().partition(|check| check.ok);
    let costs = |check: Check| check.fix.map(|fix| format!("{}; better: {fix}", check.message));
    match failed.split_first() {
        None => Ok(passed.into_iter().filter_map(costs).collect()),
        Some((first, others)) => Err(refused(launch, mend, first, others)),
    }
}

fn refused(launch: &Launch, mend: &str, first: &Check, others: &[Check]) -> Error {
    let error = Error::new(Code::BootCheck, format!("`{}` would not boot: {}", launch.name, first.message))
        .detail("check", first.name.as_str())
        .detail("kernel", launch.kernel.as_str())
        .detail("initrd", launch.initrd.as_str());
    let fix = first.fix.as_deref().unwrap_or_default();
    // A VM has its own links to kernel and initrd, so a better image is for the next one.
    let hint = if fix == mend { format!("{mend}, and make the VM anew") } else { fix.to_owned() };
    let others = others.iter().filter(|check| !check.message.starts_with(NOT_CHECKED));
    others.fold(error, |error, check| error.also(check.message.clone())).hint(hint)
}

/// The kernel command line that a VM gets.
pub fn command_line(vmm: VmmKind, accel: Accel, args: &KernelArgs) -> String {
    cmdline::line(vmm, accel, None, args)
}

/// Whether an initrd of that length can be given to QEMU, whose microvm has the ACPI tables near the end of the last page.
pub(super) fn refuse_unpadded(vmm: VmmKind, length: u64) -> Result<()> {
    match initrd::padding(vmm, length) {
        Ok(_) => Ok(()),
        Err(why) => Err(Error::new(Code::BootCheck, why)),
    }
}

fn kernel(facts: &Facts<'_>) -> Vec<Check> {
    let format = match &facts.kernel.wrong {
        None => Check::new("kernel_format", true, "the kernel is an uncompressed ELF for this machine", ""),
        // "the kernel is not a 64-bit ELF for x86_64 but …"
        Some(wrong) => Check::new("kernel_format", false, wrong, facts.mend),
    };
    let pvh = match (&facts.kernel.wrong, facts.kernel.pvh) {
        (Some(_), _) => not_checked("pvh_note", "the kernel is no ELF", facts.mend),
        (None, true) => Check::new("pvh_note", true, "the kernel has a PVH entry point", ""),
        (None, false) => {
            let message = "the kernel has no PVH entry point (ELF note Xen, type 18), by which a VMM enters it: \
                           it was built without CONFIG_PVH";
            Check::new("pvh_note", false, message, facts.mend)
        }
    };
    vec![format, pvh]
}

/// One that cannot be made because an earlier one failed, which is no better than to have failed.
fn not_checked(name: &str, why: &str, fix: &str) -> Check {
    Check::new(name, false, format!("{NOT_CHECKED}{why}"), fix)
}

#[cfg(test)]
mod tests;
