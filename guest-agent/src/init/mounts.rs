//! Kernel modules, and the file systems that `/init` mounts.

use super::NEW_ROOT;
use lib_common::doc::{MODULES_AT, MODULES_DIR, MODULES_LIST, SecondDisk};
use lib_common::error::{Code, Context, Error, Result};
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

const ROOT_DISK: &str = "/dev/vda";
const SECOND_DISK: &str = "/dev/vdb";

/// A disk is there as soon as its driver is loaded; this is for a driver that probes in the background.
const ROOT_DISK_WITHIN: Duration = Duration::from_secs(30);

/// Once the root disk is there, all of the VMM's disks are. A machine whose second disk is missing boots on after this.
const SECOND_DISK_WITHIN: Duration = Duration::from_secs(1);

/// Nothing on a disk of modules is a program or a device.
const READ_ONLY: MsFlags = MsFlags::MS_RDONLY.union(MsFlags::MS_NOSUID).union(MsFlags::MS_NODEV);

/// `/dev`, `/proc` and `/sys`, with systemd's flags, in a root: empty is our own.
pub fn kernel_file_systems(root: &str) -> Result<()> {
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount_at("devtmpfs", &format!("{root}/dev"), MsFlags::MS_NOSUID, "mode=755")?;
    mount_at("proc", &format!("{root}/proc"), plain, "")?;
    mount_at("sysfs", &format!("{root}/sys"), plain, "")
}

/// Loads the modules that the initrd lists, in the list's order. No list: the kernel has everything built in.
pub fn load_modules() -> Result<()> {
    if !Path::new(MODULES_LIST).exists() {
        return Ok(());
    }
    let list = fs_err::read_to_string(MODULES_LIST).context("cannot load the kernel modules")?;
    for name in module_names(&list) {
        let path = Path::new(MODULES_DIR).join(name);
        let load = || -> Result<()> {
            let file = fs_err::File::open(&path)?;
            match finit_module(file, c"", ModuleInitFlags::empty()) {
                // It is built in, or something loaded it already.
                Ok(()) | Err(Errno::EEXIST) => Ok(()),
                Err(errno) => Err(errno.into()),
            }
        };
        load().context(format!("cannot load the kernel module {name}"))?;
    }
    Ok(())
}

fn module_names(list: &str) -> impl Iterator<Item = &str> {
    list.lines().map(str::trim).filter(|name| !name.is_empty())
}

/// A directory of which nothing stays on the disk that it is on.
pub fn in_memory(at: &str) -> Result<()> {
    mount_at("tmpfs", at, MsFlags::MS_NOSUID | MsFlags::MS_NODEV, "mode=700")
}

/// The root disk at `/newroot`, and a tmpfs on its `/run`.
pub fn root() -> Result<()> {
    wait_for(Path::new(ROOT_DISK), ROOT_DISK_WITHIN).context("cannot find the root disk")?;
    mount_disk(ROOT_DISK, NEW_ROOT, MsFlags::empty()).context("cannot mount the root disk")?;
    // systemd keeps a /run that is mounted already; these are its own limits for it.
    let run = format!("{NEW_ROOT}/run");
    mount_at("tmpfs", &run, MsFlags::MS_NOSUID | MsFlags::MS_NODEV, "mode=755,size=20%,nr_inodes=800k")
}

/// The second disk: the work disk at the guest's `/root`, or modules at [`MODULES_AT`], read-only.
///
/// # Errors
/// It is not there, or not to be mounted. The guest is of use without it.
pub fn second(kind: SecondDisk) -> Result<()> {
    let (what, at, flags) = match kind {
        SecondDisk::None => return Ok(()),
        SecondDisk::Work => ("work disk", format!("{NEW_ROOT}/root"), MsFlags::empty()),
        SecondDisk::Modules => ("modules disk", format!("{NEW_ROOT}{MODULES_AT}"), READ_ONLY),
    };
    wait_for(Path::new(SECOND_DISK), SECOND_DISK_WITHIN).context(format!("cannot find the {what}"))?;
    mount_disk(SECOND_DISK, &at, flags).context(format!("cannot mount the {what}"))
}

fn mount_disk(device: &str, at: &str, flags: MsFlags) -> Result<()> {
    fs_err::create_dir_all(at)?;
    mount(Some(device), at, Some("ext4"), flags, None::<&str>).context(format!("{device} at {at}"))
}

fn mount_at(fs_type: &str, at: &str, flags: MsFlags, data: &str) -> Result<()> {
    let go = || -> Result<()> {
        fs_err::create_dir_all(at)?;
        Ok(mount(Some(fs_type), at, Some(fs_type), flags, Some(data))?)
    };
    go().context(format!("cannot mount {fs_type} at {at}"))
}

/// Waits until `device` exists. The directory is watched before the first look, so nothing is missed in between.
fn wait_for(device: &Path, within: Duration) -> Result<()> {
    let deadline = Instant::now() + within;
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    inotify.add_watch(device.parent().unwrap_or(Path::new("/")), AddWatchFlags::IN_CREATE)?;
    while !device.exists() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let message = format!("{} did not appear within {} s", device.display(), within.as_secs());
            return Err(Error::new(Code::TimedOut, message));
        }
        let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        poll(&mut [PollFd::new(inotify.as_fd(), PollFlags::POLLIN)], timeout)?;
        match inotify.read_events() {
            Ok(_) | Err(Errno::EAGAIN) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_modules_is_lines() {
        let names: Vec<_> = module_names("virtio.ko\n\n virtio_blk.ko \r\nvsock.ko").collect();
        assert_eq!(names, ["virtio.ko", "virtio_blk.ko", "vsock.ko"]);
    }

    #[test]
    fn a_device_is_waited_for_until_it_appears_and_no_longer_than_told() {
        let dir = tempfile::tempdir().unwrap();
        let late = dir.path().join("vda");
        let maker = {
            let late = late.clone();
            std::thread::spawn(move || fs_err::write(late, "").unwrap())
        };
        wait_for(&late, Duration::from_secs(10)).unwrap();
        maker.join().unwrap();
        let e = wait_for(&dir.path().join("vdb"), Duration::from_millis(20)).unwrap_err();
        assert_eq!(e.code(), Code::TimedOut);
    }
}
