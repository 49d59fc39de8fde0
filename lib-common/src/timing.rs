//! Named stages of every operation. A stage lasts until the next one begins, so together they are the whole wall time.
//!
//! Stages go into a document's `timings` and, as JSON lines, to the file or pipe that `BG_EVENTS` names; the first
//! line there carries the version. A pipe without a reader never fails the work. A [`Progress`]
//! shows the current stage to a person.

use crate::doc::Timing;
use nix::time::{ClockId, clock_gettime};
use serde_json::json;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

/// The stages of one run of one tool.
#[derive(Debug)]
pub struct Stages {
    tool: &'static str,
    begun: Instant,
    current: Option<(String, Instant)>,
    done: Vec<Timing>,
    events: Option<File>,
    progress: Option<Box<dyn Progress>>,
}

/// Shows what goes on, on a terminal; dropped, it disappears.
pub trait Progress: std::fmt::Debug {
    /// Shows these words in place of those before. They may name what comes from elsewhere, such as a guest.
    fn show(&mut self, words: &str);

    /// Calls `print`, which writes to the terminal, while nothing is shown.
    fn suspend(&mut self, print: &mut dyn FnMut());
}

impl Stages {
    /// Begins with the stage `setup`. `progress` shows the stages, where there is a terminal for that.
    pub fn new(tool: &'static str, progress: Option<Box<dyn Progress>>) -> Self {
        let now = Instant::now();
        Stages { tool, begun: now, current: Some(("setup".into(), now)), done: vec![], events: None, progress }
    }

    /// Sends events to `path` from now on: appended to a file, or written to a pipe that has a reader.
    pub fn send_events(&mut self, path: &Path) {
        let mut options = std::fs::OpenOptions::new();
        options.append(true).create(true).mode(0o600).custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_CLOEXEC);
        self.events = options.open(path).ok();
        let start = json!({"api_version": crate::doc::API_VERSION, "event": "start", "tool": self.tool,
            "pid": std::process::id()});
        self.send(&start);
    }

    /// Ends the current stage and begins the next.
    pub fn begin(&mut self, stage: impl Into<String>) {
        let now = Instant::now();
        self.end(now);
        let stage = stage.into();
        self.show(&stage);
        self.current = Some((stage, now));
    }

    /// Ends the current stage at the instant at which the next one begins, so that no time lies between them.
    fn end(&mut self, now: Instant) {
        let Some((stage, since)) = self.current.take() else { return };
        let ms = millis(now - since);
        self.send(&json!({"event": "stage", "tool": self.tool, "stage": stage, "ms": ms}));
        self.done.push(Timing { tool: self.tool.into(), stage, ms });
    }

    /// When this run began: [`monotonic_ms`].
    pub fn begun_ms(&self) -> f64 {
        monotonic_ms() - millis(self.begun.elapsed())
    }

    /// Ends the current stage. The document gets it by another name, which says of which stages it is a part; events, which
    /// are of one tool alone, do not.
    pub fn end_as_part(&mut self, name: &str) {
        let before = self.done.len();
        self.end(Instant::now());
        if let Some(timing) = self.done.get_mut(before) {
            timing.stage = name.into();
        }
    }

    /// Adds a stage that ran somewhere else, such as in the shim; its time counts twice, here and in the stage that
    /// waited for it, so its name begins with that stage's and a dot.
    pub fn add_part(&mut self, stage: &str, time: Duration) {
        self.done.push(Timing { tool: self.tool.into(), stage: stage.into(), ms: millis(time) });
    }

    /// Ends the current stage and gives all that were not taken yet; what comes after is the stage `output`.
    pub fn take(&mut self) -> Vec<Timing> {
        self.take_before("output")
    }

    /// The same, where the work goes on with another stage: one that a record cannot have, because it saves it.
    pub fn take_before(&mut self, next: &str) -> Vec<Timing> {
        self.begin(next);
        std::mem::take(&mut self.done)
    }

    /// A sign of life during a long stage, shown on a terminal. It may name what comes from elsewhere, such as a guest.
    pub fn note(&mut self, text: &str) {
        if let Some(progress) = &mut self.progress {
            progress.show(text);
        }
    }

    /// Calls `print`, which writes to stderr, while progress is off the terminal.
    pub fn aside(&mut self, mut print: impl FnMut()) {
        match &mut self.progress {
            Some(progress) => progress.suspend(&mut print),
            None => print(),
        }
    }

    /// The last event, with the exit status; progress disappears.
    pub fn finish(&mut self, exit: u8) {
        let now = Instant::now();
        self.end(now);
        self.progress = None;
        self.send(&json!({"event": "end", "tool": self.tool, "exit": exit, "ms": millis(now - self.begun)}));
    }

    /// Takes progress off the terminal, for a program that is about to use it.
    pub fn hide(&mut self) {
        self.progress = None;
    }

    fn show(&mut self, stage: &str) {
        if let Some(progress) = &mut self.progress {
            progress.show(&stage.replace('_', " "));
        }
    }

    fn send(&mut self, event: &serde_json::Value) {
        if let Some(file) = &mut self.events {
            // One write a line, so that lines of several tools in one pipe do not mix.
            if file.write_all(format!("{event}\n").as_bytes()).is_err() {
                self.events = None;
            }
        }
    }
}

/// Milliseconds with three places: microseconds are noise in a JSON that people read.
pub fn millis(d: Duration) -> f64 {
    rounded(d.as_secs_f64() * 1e3)
}

/// Milliseconds in the same way.
pub fn rounded(ms: f64) -> f64 {
    (ms * 1e3).round() / 1e3
}

/// The host's CLOCK_MONOTONIC in milliseconds: the one clock that all tools of a pipe, and the shims, have in common.
pub fn monotonic_ms() -> f64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
    millis(now)
}

/// Now, RFC 3339 UTC with milliseconds. A clock beyond the years that RFC 3339 can say is taken for the last of them, or for 1970.
pub fn now() -> String {
    time_text(SystemTime::now())
}

fn time_text(time: SystemTime) -> String {
    let beyond = if time > SystemTime::UNIX_EPOCH { jiff::Timestamp::MAX } else { jiff::Timestamp::UNIX_EPOCH };
    format!("{:.3}", jiff::Timestamp::try_from(time).unwrap_or(beyond))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_cover_the_wall_time_and_events_say_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events");
        let begun = Instant::now();
        let mut stages = Stages::new("bg-test", None);
        stages.send_events(&path);
        stages.begin("spin");
        while begun.elapsed() < Duration::from_millis(20) {}
        let taken = stages.take();
        let wall = millis(begun.elapsed());
        stages.finish(0);
        let sum: f64 = taken.iter().map(|t| t.ms).sum();
        assert!(sum >= 0.95 * wall && sum <= wall, "{sum} of {wall}");
        assert_eq!(taken.iter().map(|t| t.stage.as_str()).collect::<Vec<_>>(), ["setup", "spin"]);
        let events = std::fs::read_to_string(path).unwrap();
        let first: serde_json::Value = serde_json::from_str(events.lines().next().unwrap()).unwrap();
        assert_eq!(first["api_version"], "banger/v1");
        assert!(events.lines().last().unwrap().contains(r#""event":"end""#));
    }

    #[test]
    fn a_pipe_without_a_reader_never_fails_the_work() {
        let mut stages = Stages::new("bg-test", None);
        stages.send_events(Path::new("/does/not/exist/events"));
        stages.begin("work");
        stages.finish(0);
    }

    #[test]
    fn a_clock_beyond_the_years_that_can_be_written_is_no_panic() {
        let at = |seconds| time_text(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(1), "1970-01-01T00:00:01.000Z");
        assert!(at(300_000_000_000).starts_with("9999-12-"), "{}", at(300_000_000_000));
        assert_eq!(
            time_text(SystemTime::UNIX_EPOCH - Duration::from_secs(400_000_000_000)),
            "1970-01-01T00:00:00.000Z"
        );
    }
}
