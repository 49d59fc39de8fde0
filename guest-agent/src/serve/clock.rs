//! Of what the guest's boot consisted, by its own clock.

use super::health::{own_file, read};
use crate::init::stages::{FILE, Stages};
use lib_common::doc::BootClock;

/// As it is now, where the agent has just begun to listen; `None` where `/init` left no times.
pub fn of_this_boot() -> Option<BootClock> {
    clock(&Stages::parse(&read(&own_file(FILE)))?, Stages::now_us())
}

/// `/init` becomes the guest's init right after its last stage.
fn clock(stages: &[(String, f64)], agent_us: u64) -> Option<BootClock> {
    let us = |(_, at_ms): &(String, f64)| (at_ms * 1e3).round() as u64;
    Some(BootClock { init_us: stages.first().map(us)?, handover_us: stages.last().map(us)?, agent_us })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_are_those_of_init_and_of_now() {
        let stages = [("start", 1500.25), ("root", 1600.0), ("agent", 1700.5)].map(|(s, at)| (s.to_owned(), at));
        let expected = BootClock { init_us: 1_500_250, handover_us: 1_700_500, agent_us: 9_000_000 };
        assert_eq!(clock(&stages, 9_000_000), Some(expected));
        assert_eq!(clock(&[], 1), None);
    }
}
