//! Variables of the environment that look like settings and are none: a slip that would go unnoticed.

use super::{Env, KEYS, legacy};

/// What is no setting and is read all the same; the last two by the tests and benchmarks of this suite.
const OTHERS: [&str; 3] = ["BG_EVENTS", "BG_UPDATE", "BG_BENCH_RUNS"];

/// What every variable begins with.
const PREFIX: &str = "BG_";

/// What the variables of tests begin with.
const OF_TESTS: &str = "BG_TEST_";

/// One remark on all variables `BG_…` that nothing reads, each with the one that may be meant.
pub fn unknown_variables(env: &Env) -> Option<String> {
    let known: Vec<&str> = KEYS.iter().map(|(_, variable, ..)| *variable).chain(OTHERS).collect();
    let is_known = |name: &str| known.contains(&name) || legacy::is_variable(name) || name.starts_with(OF_TESTS);
    let unknown = env.keys().filter(|name| name.starts_with(PREFIX) && !is_known(name));
    let said: Vec<String> = unknown
        .map(|name| {
            match crate::doc::nearest(&name[PREFIX.len()..], known.iter().map(|known| &known[PREFIX.len()..])) {
                Some(near) => format!("{name} is no setting of banger; did you mean {PREFIX}{near}?"),
                None => format!("{name} is no setting of banger; `bg-doctor --print-config` lists them"),
            }
        })
        .collect();
    (!said.is_empty()).then(|| said.join("; "))
}
