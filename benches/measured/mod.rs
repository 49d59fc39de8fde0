//! How long programs take and what memory they need.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What a program did.
pub struct Run {
    pub seconds: f64,
    /// The largest resident memory.
    pub peak_bytes: u64,
    pub stdout: Vec<u8>,
}

/// Runs it to its end, which must be a success. Its memory is looked at every millisecond.
pub fn run(command: &mut Command, stdin: &[u8]) -> Run {
    let begun = Instant::now();
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(stdin).unwrap();
    let status = PathBuf::from(format!("/proc/{}/status", child.id()));
    let (ended, watch) = std::sync::mpsc::channel::<()>();
    let watcher = std::thread::spawn(move || {
        let mut peak = 0;
        loop {
            peak = high_water(&status).unwrap_or(0).max(peak);
            if watch.recv_timeout(Duration::from_millis(1)) != Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                return peak;
            }
        }
    });
    let output = child.wait_with_output().unwrap();
    let seconds = begun.elapsed().as_secs_f64();
    drop(ended);
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Run { seconds, peak_bytes: watcher.join().unwrap(), stdout: output.stdout }
}

/// `VmHWM`, in bytes.
fn high_water(status: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(status).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|k| k << 10)
}

/// The middle one, or the mean of the two in the middle.
pub fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0
}
