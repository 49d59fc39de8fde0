//! Measuring: `bg-bench`. `tap` calls what the other tools call, in the same process as the clock; `create` starts the tools
//! as a user does.

mod compare;
mod create;
mod parallel;
mod scene;
mod stats;
mod summary;
mod tap;

pub use compare::{CompareArgs, compare};
pub use create::{Against, CreateArgs, MOST_EXISTING, create};
pub use tap::{MOST_DEVICES, TapArgs, tap};

use lib_common::doc::{API_VERSION, Bench, BenchHost, Measure};
use lib_common::error::Result;
use lib_common::sys::host;
use lib_tools::cli::Context;
use std::collections::BTreeMap;

/// The document of what was measured on this machine, without a bar that was missed.
fn document(cx: &mut Context<'_>, subject: &str, measures: Vec<Measure>, load_before: f64) -> Result<Bench> {
    Ok(Bench {
        api_version: API_VERSION.into(),
        kind: "Bench".into(),
        subject: subject.into(),
        ok: true,
        host: BenchHost {
            kernel: host::kernel_release()?,
            cpu: host::cpu_model()?,
            cpus: host::cpus()?,
            accel: None,
            file_system: None,
            reflink: None,
            load_before,
            load_after: host::load_average()?,
        },
        setup: BTreeMap::new(),
        runs: 0,
        measures,
        against: vec![],
        bars: vec![],
        timings: cx.stages.take(),
    })
}
