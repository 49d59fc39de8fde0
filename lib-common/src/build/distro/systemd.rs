//! systemd: whether the system has started, and what of it has failed.

use super::Units;
use crate::error::{Code, Error, Result};

/// What `/proc/1/comm` says.
pub(super) const INIT: &str = "systemd";

/// Waits for the end of the startup. The state is printed whatever it is; systemctl's status says the same.
pub(super) const PRINT_UNITS: &str = "#!/bin/sh\n\
    systemctl is-system-running --wait\n\
    systemctl list-units --failed --no-legend --plain --full\n\
    exit 0\n";

pub(super) fn units(printed: &str) -> Result<Units> {
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
