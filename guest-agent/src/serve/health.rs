//! Looking at the guest: what `/healthz` says. Whatever cannot be read is empty or 0, never an error.

use super::disks::FileSystem;
use super::sshd::Seen;
use crate::VERSION;
use lib_common::doc::{Health, HealthStatus, SecondDisk};
use std::io::Read;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// No file that is read here is longer than this, whatever somebody put there; in bytes.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// How many lines of a kind are reported, and how long each may be.
const MAX_LINES: usize = 16;
const MAX_LINE_CHARS: usize = 256;

/// Since the guest's kernel started.
pub fn uptime() -> Duration {
    Duration::from_millis(uptime_ms(&read("/proc/uptime")))
}

/// The guest's health now. `wrong`: what degrades it besides disks.
pub fn gather(sshd: Seen, wrong: Vec<String>) -> Health {
    let sshd_answers = sshd == Seen::Banner;
    let mounts = read("/proc/self/mountinfo");
    let (root_mounted, work_mounted) = (is_mounted(&mounts, "/", "vda"), is_mounted(&mounts, "/root", "vdb"));
    let known = told(crate::PROBLEMS_FILE);
    let work_fine = work_mounted || second_disk(&line(&own_file(crate::SECOND_DISK_FILE))) != SecondDisk::Work;
    let root = FileSystem::at("/", "vda").unwrap_or_default();
    let work = if work_mounted { FileSystem::at("/root", "vdb").unwrap_or_default() } else { FileSystem::default() };
    let of_disks = [root.problems("/"), work.problems("/root")].concat();
    let fine = root_mounted && work_fine && known.is_empty() && of_disks.is_empty() && wrong.is_empty();
    let mut problems = [known, of_disks, wrong].concat();
    problems.extend(told(crate::WARNINGS_FILE));
    let mut note = |fine: bool, text: &str| {
        if !fine {
            problems.push(text.to_owned());
        }
    };
    note(root_mounted, "/ is not the root disk /dev/vda");
    note(work_fine, "/root is not the work disk /dev/vdb");
    match sshd {
        Seen::Banner => {}
        Seen::Nothing => note(false, "sshd does not answer on 127.0.0.1 port 22"),
        Seen::Slow(within) => note(false, &slow(within)),
    }
    Health {
        status: status(fine, sshd_answers),
        agent_version: VERSION.to_owned(),
        boot_id: line("/proc/sys/kernel/random/boot_id"),
        uptime_ms: uptime_ms(&read("/proc/uptime")),
        hostname: line("/proc/sys/kernel/hostname"),
        distro: os_id(&read("/etc/os-release")),
        init: line("/proc/1/comm"),
        root_mounted,
        work_mounted,
        sshd_answers,
        clock_unix_ms: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64),
        root_used_bytes: root.used,
        root_total_bytes: Some(root.total),
        work_used_bytes: work.used,
        work_total_bytes: Some(work.total),
        memory_available_bytes: memory_available(&read("/proc/meminfo")),
        problems,
        notes: told(crate::NOTES_FILE),
    }
}

/// What is said of an sshd that took the connection and sent no banner in this time.
fn slow(within: Duration) -> String {
    let seconds = within.as_secs_f32();
    format!("sshd is slow: no banner on 127.0.0.1 port 22 within {seconds:.1} s (bg-health --timeout gives it more)")
}

/// What `/init` has left for health in the file of this name.
fn told(name: &str) -> Vec<String> {
    bounded_lines(&read(&own_file(name)))
}

/// What the second disk is meant to be. A machine of which nothing is known is one with a work disk.
fn second_disk(word: &str) -> SecondDisk {
    SecondDisk::ALL.into_iter().find(|kind| kind.as_str() == word).unwrap_or(SecondDisk::Work)
}

fn status(fine: bool, sshd_answers: bool) -> HealthStatus {
    match (fine, sshd_answers) {
        (true, true) => HealthStatus::Ok,
        (true, false) => HealthStatus::Starting,
        (false, _) => HealthStatus::Degraded,
    }
}

/// Where `/init` left a file for the agent.
pub fn own_file(name: &str) -> String {
    format!("/run/banger/{name}")
}

/// The text of a file, up to a bound; empty where there is none.
pub fn read(path: &str) -> String {
    let mut bytes = vec![];
    if let Ok(file) = fs_err::File::open(path) {
        // What was read before an error is as good as it gets.
        let _ = file.take(MAX_FILE_BYTES).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The text of a file of one line; empty where there is none.
pub fn line(path: &str) -> String {
    read(path).trim_end().to_owned()
}

fn is_mounted(mountinfo: &str, at: &str, disk: &str) -> bool {
    let device = line(&format!("/sys/class/block/{disk}/dev"));
    !device.is_empty() && device_at(mountinfo, at) == Some(device.as_str())
}

/// The `major:minor` of what is mounted at `at`; the last mount there hides the others. Format: proc(5), mountinfo.
fn device_at<'a>(mountinfo: &'a str, at: &str) -> Option<&'a str> {
    let mut found = None;
    for entry in mountinfo.lines() {
        let mut fields = entry.split(' ').skip(2);
        if let (Some(device), Some(_root), Some(point)) = (fields.next(), fields.next(), fields.next())
            && point == at
        {
            found = Some(device);
        }
    }
    found
}

/// `ID` of os-release(5), which may be quoted.
fn os_id(os_release: &str) -> String {
    let id = os_release.lines().find_map(|line| line.strip_prefix("ID="));
    id.unwrap_or_default().trim().trim_matches(['"', '\'']).to_owned()
}

fn uptime_ms(uptime: &str) -> u64 {
    let seconds = uptime.split(' ').next().and_then(|text| text.parse::<f64>().ok());
    (seconds.unwrap_or_default() * 1000.0).round() as u64
}

/// `MemAvailable`, which is in KiB.
fn memory_available(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.unwrap_or_default().saturating_mul(1024)
}

fn bounded_lines(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| !line.trim().is_empty()).take(MAX_LINES);
    lines.map(|line| line.chars().take(MAX_LINE_CHARS).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
21 1 254:0 / / rw,relatime - ext4 /dev/root rw
22 21 0:20 / /run rw,nosuid,nodev shared:5 - tmpfs tmpfs rw
23 21 254:16 / /root rw,relatime - ext4 /dev/vdb rw
24 21 0:30 / /mnt rw - tmpfs tmpfs rw
25 21 0:31 / /mnt rw - tmpfs tmpfs rw
";

    #[test]
    fn a_mount_point_is_what_was_mounted_there_last() {
        for (at, device) in [("/", Some("254:0")), ("/root", Some("254:16")), ("/mnt", Some("0:31")), ("/ro", None)] {
            assert_eq!(device_at(MOUNTS, at), device, "{at}");
        }
        assert_eq!(device_at("garbage\n1 2 3\n", "/"), None);
    }

    #[test]
    fn the_kernels_and_the_distributions_texts_are_read() {
        for (text, id) in [("NAME=x\nID=debian\n", "debian"), ("ID=\"void\"\n", "void"), ("ID_LIKE=a\n", ""), ("", "")]
        {
            assert_eq!(os_id(text), id);
        }
        assert_eq!(memory_available("MemTotal: 9 kB\nMemAvailable:     1024 kB\n"), 1 << 20);
        assert_eq!(memory_available("MemAvailable: many kB\n"), 0);
        assert_eq!((uptime_ms("12.34 5.6\n"), uptime_ms("soon")), (12_340, 0));
    }

    #[test]
    fn what_init_tells_is_bounded() {
        let text = format!("one\n\n{}\n{}", "x".repeat(1000), "more\n".repeat(100));
        let lines = bounded_lines(&text);
        assert_eq!((lines.len(), lines[0].as_str(), lines[1].len()), (MAX_LINES, "one", MAX_LINE_CHARS));
    }

    #[test]
    fn a_work_disk_is_missed_unless_init_said_that_there_is_none() {
        for kind in SecondDisk::ALL {
            assert_eq!(second_disk(kind.as_str()), kind);
        }
        assert_eq!(second_disk(""), SecondDisk::Work);
    }

    #[test]
    fn a_missing_disk_is_worse_than_a_missing_sshd() {
        let cases = [
            (true, true, HealthStatus::Ok),
            (true, false, HealthStatus::Starting),
            (false, true, HealthStatus::Degraded),
        ];
        for (disks, sshd, expected) in cases {
            assert_eq!(status(disks, sshd), expected);
        }
    }

    #[test]
    fn a_machine_that_is_no_guest_is_degraded_and_says_why() {
        let health = gather(Seen::Nothing, vec![]);
        assert_eq!(health.status, HealthStatus::Degraded);
        assert!(health.problems.iter().any(|p| p.contains("sshd does not answer")));
        let slow = gather(Seen::Slow(Duration::from_millis(1700)), vec!["no way in".to_owned()]);
        assert!(slow.problems.contains(&"no way in".to_owned()));
        assert!(!slow.sshd_answers && slow.problems.iter().any(|p| p.contains("sshd is slow") && p.contains("1.7 s")));
        assert!(health.clock_unix_ms > 0 && health.memory_available_bytes > 0 && health.root_used_bytes > 0);
    }
}
