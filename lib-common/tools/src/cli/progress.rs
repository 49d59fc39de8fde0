//! The current stage on a terminal's stderr, once the work has lasted a second.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use lib_common::error::printable;
use lib_common::sys::thread;
use lib_common::timing::Progress;
use std::time::Duration;

/// A spinner with the tool's name and the current stage.
#[derive(Debug)]
pub(super) struct Spinner {
    tool: &'static str,
    bar: Option<ProgressBar>,
}

impl Spinner {
    /// Shows nothing before the first words.
    pub(super) fn new(tool: &'static str) -> Self {
        Spinner { tool, bar: None }
    }

    fn begin(&self) -> ProgressBar {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        if let Ok(style) = ProgressStyle::with_template(&format!("{}: {{spinner}} {{msg}} ({{elapsed}})", self.tool)) {
            bar.set_style(style);
        }
        // Short operations stay silent, and so do those that get no thread.
        let shown_later = bar.clone();
        let _ = thread::spawn(move || {
            std::thread::sleep(Duration::from_secs(1));
            if !shown_later.is_finished() {
                shown_later.set_draw_target(ProgressDrawTarget::stderr());
            }
            while !shown_later.is_finished() {
                shown_later.tick();
                std::thread::sleep(Duration::from_millis(250));
            }
        });
        bar
    }
}

impl Progress for Spinner {
    fn show(&mut self, words: &str) {
        let bar = self.bar.take().unwrap_or_else(|| self.begin());
        bar.set_message(printable(words));
        self.bar = Some(bar);
    }

    fn suspend(&mut self, print: &mut dyn FnMut()) {
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_of_life_has_no_control_characters() {
        let mut spinner = Spinner::new("bg-test");
        spinner.show("configure");
        spinner.show("configure: 1 a\u{1b}]0;x\u{7}\u{9b}2J\nb");
        assert_eq!(spinner.bar.as_ref().unwrap().message(), r"configure: 1 a\u{1b}]0;x\u{7}\u{9b}2J\nb");
    }
}
