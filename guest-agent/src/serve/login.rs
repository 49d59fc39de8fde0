//! What keeps root from logging in by its key though sshd runs: a configuration of sshd that is broken or shuts root out, and
//! files of root's that sshd's StrictModes refuses. Whatever cannot be read is no problem.

use super::health::{line, own_file, read};
use lib_common::sys::guest_program::{self, Program};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Where sshd's configuration and its host keys are.
const CONFIG_DIRS: [&str; 2] = ["/etc/ssh", "/etc/ssh/sshd_config.d"];

/// Where distributions have sshd.
const SSHD: [&str; 2] = ["/usr/sbin/sshd", "/usr/bin/sshd"];

/// With this, sshd says its settings for a login of root by the agent's relay, `Match` blocks included.
const CONNECTION: &str = "user=root,host=localhost,addr=127.0.0.1,laddr=127.0.0.1,lport=22";

/// The most that sshd's settings take, in bytes.
const MAX_SETTINGS: usize = 64 * 1024;

/// No more files of a directory are looked at.
const MAX_FILES: usize = 256;

/// What a configuration includes from elsewhere has no stamp, so even an unchanged one is read again after this time.
const GOOD_FOR: Duration = Duration::from_secs(300);

/// How `bg-health` ends what it says of sshd's settings.
const WAY_BACK: &str = "`man bg-health`, LOCKED OUT, has the way back in";

/// What is remembered of the last look at sshd's configuration.
#[derive(Default)]
pub struct Login {
    last: Mutex<Option<Looked>>,
}

struct Looked {
    at: Instant,
    stamps: Vec<Stamp>,
    problems: Vec<String>,
}

impl Login {
    /// What keeps root out. sshd is run only where its configuration has changed since, and no longer than `within`.
    pub fn problems(&self, within: Duration) -> Vec<String> {
        let mut problems = of_home(Path::new("/root"), &read(&own_file(crate::KEYS_FILE)));
        problems.extend(self.of_settings(within));
        problems
    }

    fn of_settings(&self, within: Duration) -> Vec<String> {
        let stamps = stamps();
        let mut last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(looked) = last.as_ref().filter(|looked| looked.stamps == stamps && looked.at.elapsed() < GOOD_FOR) {
            return looked.problems.clone();
        }
        let Some(problems) = ask_sshd(within) else { return vec![] };
        *last = Some(Looked { at: Instant::now(), stamps, problems: problems.clone() });
        problems
    }
}

/// What changes when a file does.
#[derive(Debug, PartialEq)]
struct Stamp {
    path: PathBuf,
    ino: u64,
    size: u64,
    changed: (i64, i64),
}

fn stamps() -> Vec<Stamp> {
    let entries = CONFIG_DIRS.into_iter().filter_map(|dir| fs_err::read_dir(dir).ok());
    let paths = entries.flat_map(|entries| entries.take(MAX_FILES).filter_map(|entry| Some(entry.ok()?.path())));
    let mut stamps: Vec<Stamp> = paths.filter_map(stamp).collect();
    stamps.sort_by(|a, b| a.path.cmp(&b.path));
    stamps
}

fn stamp(path: PathBuf) -> Option<Stamp> {
    let meta = path.metadata().ok()?;
    Some(Stamp { path, ino: meta.ino(), size: meta.size(), changed: (meta.ctime(), meta.ctime_nsec()) })
}

/// What is wrong with sshd's configuration; `None` where sshd could not say in time.
fn ask_sshd(within: Duration) -> Option<Vec<String>> {
    let sshd = SSHD.into_iter().find(|path| Path::new(path).exists())?;
    let argv = [sshd, "-T", "-C", CONNECTION];
    let env = [("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), ("LANG", "C.UTF-8")];
    let program = Program { root: None, argv: &argv, env: &env, within: Some(within) };
    let ended = guest_program::run(&program, MAX_SETTINGS).ok()?;
    let said = String::from_utf8_lossy(&ended.output);
    // A number is missing where it was killed.
    match ended.status.code()? {
        0 => Some(of_settings(&said)),
        _ => refused(&said).map(|problem| vec![problem]),
    }
}

/// What sshd said where it refuses its configuration. A directory that its service makes is missing where that has not started.
fn refused(said: &str) -> Option<String> {
    let line = said.lines().map(str::trim).find(|line| !line.is_empty())?;
    if line.contains("privilege separation directory") {
        return None;
    }
    let line: String = line.chars().take(160).collect();
    Some(format!("sshd refuses its configuration and will not start again: {line}; {WAY_BACK}"))
}

/// What of sshd's settings, as `sshd -T` prints them, keeps root out.
fn of_settings(settings: &str) -> Vec<String> {
    let values = |key: &str| -> Vec<&str> {
        let lines = settings.lines().filter_map(|line| line.trim().split_once(' '));
        lines.filter(|(name, _)| *name == key).flat_map(|(_, value)| value.split_whitespace()).collect()
    };
    let mut problems = vec![];
    let mut wrong = |is_so: bool, what: String| {
        if is_so {
            problems.push(format!("{what}; {WAY_BACK}"));
        }
    };
    let listens = values("listenaddress");
    let is_reached = listens.is_empty() || listens.iter().any(|at| ["0.0.0.0:22", "127.0.0.1:22"].contains(at));
    wrong(!is_reached, format!("sshd is set to listen on {}, and not on 127.0.0.1 port 22", listens.join(", ")));
    for (key, bad) in [("permitrootlogin", &["no", "forced-commands-only"][..]), ("pubkeyauthentication", &["no"])] {
        let found = values(key).into_iter().find(|value| bad.contains(value));
        wrong(found.is_some(), format!("sshd is set to `{key} {}`, so root cannot log in", found.unwrap_or_default()));
    }
    let keys = values("authorizedkeysfile");
    let ours = [".ssh/authorized_keys", "%h/.ssh/authorized_keys", "/root/.ssh/authorized_keys"];
    let reads_ours = keys.is_empty() || keys.iter().any(|file| ours.contains(file));
    wrong(!reads_ours, format!("sshd is set to `authorizedkeysfile {}`, which is not root's", keys.join(" ")));
    let allowed = values("allowusers");
    let is_allowed = allowed.is_empty() || allowed.iter().any(|user| *user == "root" || user.contains(['*', '?', '@']));
    wrong(!is_allowed, format!("sshd is set to `allowusers {}`, without root", allowed.join(" ")));
    wrong(values("denyusers").contains(&"root"), "sshd is set to `denyusers root`".to_owned());
    problems
}

/// What of root's home sshd's StrictModes refuses, and whether the keys that `/init` put there are there. A restart mends both.
fn of_home(home: &Path, keys: &str) -> Vec<String> {
    let file = home.join(".ssh/authorized_keys");
    let refused = [home.to_path_buf(), home.join(".ssh"), file.clone()].into_iter().find_map(|path| {
        let meta = path.metadata().ok()?;
        match (meta.uid(), meta.mode() & 0o022) {
            (0, 0) => None,
            (0, _) => Some(format!("other users can write to {}", path.display())),
            (uid, _) => Some(format!("{} belongs to the user {uid}", path.display())),
        }
    });
    let has = read(&file.display().to_string());
    let lacks_key = keys.lines().any(|key| !has.lines().any(|line| line.trim() == key.trim()));
    let lacking = || lacks_key.then(|| format!("{} lacks the key that bg-ssh logs in by", file.display()));
    let name = line("/proc/sys/kernel/hostname");
    let mends = |what| format!("{what}, so sshd refuses root's key: `bg-vm restart {name}` mends it");
    refused.or_else(lacking).map(mends).into_iter().collect()
}

#[cfg(test)]
mod tests;
