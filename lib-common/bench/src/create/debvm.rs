//! Debian's debvm: its own image, made once and kept in the cache, run by `debvm-run` with its own defaults.

use super::banger::tree_cpu_s;
use super::place::Place;
use super::ready::{Guest, Way};
use crate::summary::Samples;
use lib_common::doc::{Accel, Name, Unit};
use lib_common::error::{Code, Error, Result};
use lib_common::sys::cmd::{Cmd, Streams};
use lib_common::sys::fs::{clone_file, private_dir, save};
use lib_common::sys::program;
use lib_common::timing::millis;
use lib_machine::guest::ssh::keys::{checked, new_host_key};
use lib_machine::vmm;
use lib_tools::cli::Context;
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Of the same Debian as the suite's images.
const RELEASE: &str = "bookworm";
/// What the host key is in the image.
const HOST_KEY: &str = "cat /etc/ssh/ssh_host_ed25519_key.pub";
/// How long an image may take to be made, after a signal, to be cleared away.
const GRACE: Duration = Duration::from_secs(30);

/// An image that is run without being changed.
pub(super) struct Debvm {
    name: Name,
    program: PathBuf,
    /// Readable for everybody; gone at the end.
    dir: tempfile::TempDir,
    identity: PathBuf,
    host_key: String,
    /// Runs it as somebody who may not open /dev/kvm.
    unprivileged: bool,
}

impl Debvm {
    /// Finds the programs, and makes the image where the cache has none.
    pub(super) fn prepare(place: &Place, cx: &mut Context<'_>, setup: &mut BTreeMap<String, String>) -> Result<Self> {
        let program = program::find(Path::new("debvm-run"))?;
        cx.stages.begin("debvm_image");
        let cached = place.config.cache()?.join("debvm");
        make_image(&cached)?;
        let image = cached.join("rootfs.ext4");
        let host_key = Cmd::new("debugfs").args(["-R", HOST_KEY]).arg(&image).output(4096)?;
        // debvm opens a /dev/kvm with which no stock guest boots, wherever it may.
        let usable = vmm::choose(place.config.vmm, &place.config)?.accel == Accel::Kvm;
        let opens = std::fs::File::options().read(true).write(true).open("/dev/kvm").is_ok();
        let unprivileged = !usable && opens;
        let dir =
            tempfile::Builder::new().prefix("bg-bench-").permissions(PermissionsExt::from_mode(0o755)).tempdir()?;
        let copy = dir.path().join("rootfs.ext4");
        clone_file(&image, &copy)?;
        fs_err::set_permissions(&copy, PermissionsExt::from_mode(0o644))?;
        let who = if unprivileged { ", as the user nobody, who may not open /dev/kvm" } else { "" };
        let what = format!(
            "debvm-create -r {RELEASE}; debvm-run with its own defaults (1 GiB, all processors) and -snapshot{who}"
        );
        setup.insert("debvm".into(), what);
        let host_key = checked(String::from_utf8_lossy(&host_key).trim())?;
        Ok(Debvm {
            name: Name::parse("debvm")?,
            program,
            dir,
            identity: cached.join("id_ed25519"),
            host_key,
            unprivileged,
        })
    }

    /// One VM, from nothing to its SSH and away again.
    pub(super) fn once(&self, place: &Place, samples: &mut Samples) -> Result<()> {
        // A port that was free a moment ago: QEMU takes none that it finds itself.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let begun = Instant::now();
        let mut child = self.command(address.port()).spawn(Streams::default())?;
        let way = Way::Tcp(address);
        let guest =
            Guest { name: &self.name, way, host_key: &self.host_key, identity: &self.identity, dir: place.path() };
        let deadline = begun + place.config.guest_deadline(Duration::from_secs(240));
        let ready = guest.wait(deadline, || match child.try_wait()? {
            Some(status) => Err(child.failure(status)),
            None => Ok(()),
        })?;
        samples.add("debvm.ready", 0, millis(ready.at - begun));
        samples.add("debvm.ssh_true", 0, ready.ssh_ms);
        samples.add_in(Unit::Count, "debvm.tries", 0, f64::from(ready.tries));
        samples.add_in(Unit::CpuS, "debvm.cpu_vmm", 0, tree_cpu_s(&[child.pid()]));
        Ok(())
    }

    fn command(&self, port: u16) -> Cmd {
        let image = self.dir.path().join("rootfs.ext4");
        let cmd = match self.unprivileged {
            true => Cmd::new("setpriv")
                .args(["--reuid", "nobody", "--regid", "nogroup", "--clear-groups", "--pdeathsig", "TERM"])
                .arg(&self.program),
            false => Cmd::new(&self.program),
        };
        cmd.arg("-i").arg(image).args(["-s", &port.to_string(), "--", "-snapshot"]).dir(Path::new("/"))
    }
}

/// Key and image; whole or not there.
fn make_image(cached: &Path) -> Result<()> {
    if cached.join("rootfs.ext4").is_file() {
        return Ok(());
    }
    let create = program::find(Path::new("debvm-create"))?;
    private_dir(cached)?;
    let key = new_host_key()?;
    let public = cached.join("id_ed25519.pub");
    save(&cached.join("id_ed25519"), key.private_pem().as_bytes(), 0o600)?;
    save(&public, format!("{}\n", key.public_line()).as_bytes(), 0o644)?;
    let dir = tempfile::tempdir_in(cached)?;
    let made = dir.path().join("rootfs.ext4");
    let cmd = Cmd::new(create).arg("-k").arg(&public).arg("-o").arg(&made).args(["-r", RELEASE]).grace(GRACE);
    cmd.run().map_err(|e| e.within("debvm-create made no image"))?;
    if !made.is_file() {
        return Err(Error::new(Code::MissingFile, "debvm-create made no image"));
    }
    Ok(fs_err::rename(made, cached.join("rootfs.ext4"))?)
}
