//! systemd: whether the system has started, and what of it has failed.

use super::{Init, Units};
use lib_common::error::{Code, Error, Result};

/// systemd.
#[derive(Debug)]
pub(super) struct Systemd;

impl Init for Systemd {
    fn name(&self) -> &'static str {
        "systemd"
    }

    fn print_units(&self) -> &'static str {
        PRINT_UNITS
    }

    fn units(&self, printed: &str) -> Result<Units> {
        units(printed)
    }

    fn clean(&self) -> &'static str {
        CLEAN
    }
}

/// In a build nothing writes a new random seed or journal: the agent has masked them.
const CLEAN: &str = r#"
# What is still being started would leave its traces afterwards.
timeout 120 systemctl is-system-running --wait >/dev/null 2>&1
rm -rf /var/log/journal/*
rm -f /var/lib/systemd/random-seed /var/lib/systemd/credential.secret /var/lib/systemd/timers/stamp-*
rmdir /var/lib/systemd/linger 2>/dev/null || :
"#;

/// Waits for the end of the startup. The state is printed whatever it is; systemctl's status says the same.
const PRINT_UNITS: &str = "#!/bin/sh\n\
    systemctl is-system-running --wait\n\
    systemctl list-units --failed --no-legend --plain --full\n\
    exit 0\n";

fn units(printed: &str) -> Result<Units> {
    let mut lines = printed.lines();
    let state = lines.next().map(str::trim).filter(|word| !word.is_empty() && !word.contains(' '));
    let Some(state) = state else {
        return Err(Error::new(Code::BadInput, "systemctl does not say how the system is"));
    };
    let failed = lines.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect();
    Ok(Units { is_up: state == "running", state: state.to_owned(), failed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_and_the_failed_units_are_read() {
        let fine = units("running\n").unwrap();
        assert!(fine.is_up && fine.failed.is_empty());
        let bad = units("degraded\na.service loaded failed failed A thing\nb.mount loaded failed failed /b\n").unwrap();
        assert!(!bad.is_up);
        assert_eq!((bad.state.as_str(), bad.failed), ("degraded", vec!["a.service".to_owned(), "b.mount".to_owned()]));
        for strange in ["", "\nrunning\n", "Failed to connect to bus: No such file\n"] {
            assert_eq!(units(strange).unwrap_err().code(), Code::BadInput, "{strange:?}");
        }
    }
}
