//! `bg-image verify`: boots a throwaway clone of an image, made as `bg-vm create` makes one, and checks what a user gets.

mod checks;
mod guest;

use super::{files, named};
use crate::cli::{Answer, Context};
use crate::ops::health::describe;
use crate::ops::machine::{PlanArgs, claim, identity, launch_disks, planned};
use crate::ops::temporary::{self, Ended, Temporary};
use checks::{Checks, IN_SESSION, Outcome, answer, outcome};
use guest::Expected;
use lib_common::doc::{Document, Health, HealthStatus, Kernel, Name, Rootfs, Seed, Spec};
use lib_common::error::{Code, Error, Result};
use lib_image::build::distro::{self, Distro};
use lib_image::disk::clone::{ROOT_FILE, WORK_FILE};
use lib_image::disk::ext4::{self, CheckOutcome};
use lib_machine::guest::http::get_health;
use std::time::{Duration, Instant};

/// What `bg-image verify` takes.
#[derive(Clone, Debug)]
pub struct VerifyArgs {
    /// The image; the default one without it.
    pub name: Option<Name>,
    /// How long the guest may take from its boot to its last answer. A shutdown has its own deadline.
    pub timeout: Duration,
    /// The clone's memory; the configuration's where there is none.
    pub memory_mib: Option<u64>,
    /// Its processors.
    pub vcpu: Option<u32>,
}

/// The image that is verified.
struct Subject {
    name: Name,
    distro: &'static dyn Distro,
    rootfs: Rootfs,
    kernel: Kernel,
    seed: Option<Seed>,
}

/// Prints a [`lib_common::doc::Report`]; [`Answer::No`] where a check failed. Nothing of the clone is left.
///
/// # Errors
/// What keeps the checks from being made: no such image, no VMM, no room.
pub fn verify(cx: &mut Context<'_>, args: &VerifyArgs) -> Result<Answer> {
    let store = cx.store();
    let name = named(&store, args.name.as_ref())?;
    let doc = store.image(&name)?;
    let rootfs: Rootfs = doc.require()?;
    let subject = Subject { distro: distro::of(&rootfs)?, rootfs, kernel: doc.require()?, seed: doc.section()?, name };
    let mut checks = Checks::of(&subject.name);
    match answer(start(cx, args, &subject.name))? {
        Ok((vm, work_bytes)) => {
            let expected = Expected { distro: subject.distro, rootfs: &subject.rootfs, work_bytes };
            in_vm(cx, (vm, Instant::now() + args.timeout), &expected, &mut checks)?;
        }
        Err(e) => {
            checks.add("health", Err(e.with_causes()));
            without_a_guest(&mut checks, "the VM did not start");
        }
    }
    cx.stages.begin("untouched");
    checks.add("untouched", untouched(&subject)?);
    cx.report(format!("image {}", subject.name), checks.finish())
}

/// A clone that runs, and the size of its work disk.
fn start(cx: &mut Context<'_>, args: &VerifyArgs, image: &Name) -> Result<(Temporary, u64)> {
    cx.stages.begin("plan");
    let plan = PlanArgs {
        name: Some(temporary::new_name("verify")?),
        image: Some(image.clone()),
        vcpu: args.vcpu,
        memory_mib: args.memory_mib,
        net: Some(false),
        ..PlanArgs::default()
    };
    let mut doc: Document = planned(cx, &plan)?;
    let work_bytes = doc.require::<Spec>()?.work_bytes;
    let claimed = claim(cx, &mut doc, "image_verify")?;
    cx.stages.begin("identity");
    let identity = identity(cx, &mut doc, &claimed.machine)?;
    let disks = launch_disks(&doc, &claimed.machine)?;
    Ok((Temporary::boot(cx, doc, claimed, (&identity, disks))?, work_bytes))
}

/// Every check that needs a guest, and the guest's end.
fn in_vm(
    cx: &mut Context<'_>,
    (vm, deadline): (Temporary, Instant),
    expected: &Expected<'_>,
    checks: &mut Checks,
) -> Result<()> {
    let Some(health) = health(&vm, deadline, checks)? else {
        without_a_guest(checks, "the guest's agent does not answer");
        return Ok(());
    };
    checks.add("init", init(&health, expected.distro));
    match answer(vm.login(cx, deadline))? {
        Ok(session) => {
            checks.add("ssh", Ok("root logs in, and the host key is the one that the guest was given".into()));
            guest::check(cx, &session, expected, checks)?;
        }
        Err(e) => {
            checks.add("ssh", Err(e.with_causes()));
            checks.cannot(&IN_SESSION, "nobody can log in");
        }
    }
    cx.stages.begin("shutdown");
    let begun = Instant::now();
    match answer(vm.power_off())? {
        Ok(()) => {
            checks.add("shutdown", Ok(format!("powered off within {:.1} s", begun.elapsed().as_secs_f32())));
            file_systems(cx, vm.ended(), checks)
        }
        Err(e) => {
            checks.add("shutdown", Err(last_words(&vm, &e)));
            checks.cannot(&["file_systems"], "the guest did not shut down");
            Ok(())
        }
    }
}

/// No check in the guest can be made.
fn without_a_guest(checks: &mut Checks, why: &str) {
    checks.cannot(&["init", "ssh"], why);
    checks.cannot(&IN_SESSION, why);
    checks.cannot(&["shutdown", "file_systems"], why);
}

/// Waits until the guest's sshd answers, by its agent. Gives what the agent said last, if it answers at all.
fn health(vm: &Temporary, deadline: Instant, checks: &mut Checks) -> Result<Option<Health>> {
    let vsock = &vm.vmm().vsock;
    let up = vm.live().retry(deadline, || {
        let health = get_health(vsock, vm.answers_within())?;
        // A guest whose disks are not right stays so; one whose sshd is on its way does not.
        if health.sshd_answers { Ok(health) } else { Err(Error::new(Code::GuestUnreachable, describe(&health))) }
    });
    match answer(up)? {
        Ok(health) => {
            let seen = describe(&health);
            let outcome = if health.status == HealthStatus::Ok { Ok(seen) } else { Err(seen) };
            checks.add("health", outcome);
            Ok(Some(health))
        }
        Err(e) => {
            checks.add("health", Err(last_words(vm, &e)));
            Ok(answer(get_health(vsock, vm.answers_within()))?.ok())
        }
    }
}

fn init(health: &Health, distro: &dyn Distro) -> Outcome {
    let (found, expected) = (&health.init, distro.init().name());
    if found == expected {
        Ok(format!("process 1 is {found}"))
    } else {
        Err(format!("process 1 is {found} and not {expected}"))
    }
}

/// The error with the end of the guest's console, which is about to go.
fn last_words(vm: &Temporary, e: &Error) -> String {
    let console = vm.console_end();
    if console.trim().is_empty() {
        return format!("{}; the guest's console is empty", e.with_causes());
    }
    format!("{}; the guest's console ends with:\n{console}", e.with_causes())
}

/// Checks the disks of a guest that was shut down, and removes it.
fn file_systems(cx: &mut Context<'_>, ended: Ended, checks: &mut Checks) -> Result<()> {
    cx.stages.begin("file_systems");
    let mut wrong = vec![];
    for file in [ROOT_FILE, WORK_FILE] {
        let found = outcome(ext4::check(&ended.file(file)).map(|found| match found {
            CheckOutcome::Clean => Ok(String::new()),
            CheckOutcome::JournalPending => Err("it was not unmounted".into()),
            CheckOutcome::Damaged(problems) => Err(problems),
        }))?;
        wrong.extend(found.err().map(|what| format!("{file}: {what}")));
    }
    checks.add("file_systems", if wrong.is_empty() { Ok("both are clean".into()) } else { Err(wrong.join("; ")) });
    cx.stages.begin("remove");
    ended.remove()
}

fn untouched(subject: &Subject) -> Result<Outcome> {
    let wrong = files::all_wrong(&subject.rootfs, &subject.kernel, subject.seed.as_ref())?;
    Ok(if wrong.is_empty() { Ok("every file is what the record says".into()) } else { Err(wrong.join("; ")) })
}
