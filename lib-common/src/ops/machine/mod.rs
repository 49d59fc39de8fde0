//! VMs: from a plan to their removal.

mod create;
mod list;
mod logs;
mod remove;
mod start;
mod stats;
mod stop;

pub use create::{CreateArgs, PlanArgs, clone, create, plan};
pub(in crate::ops) use create::{image_name, link_kernel};
pub use list::{ListArgs, ls, show};
pub use logs::{LogsArgs, logs};
pub use remove::{RemoveArgs, rm};
pub(in crate::ops) use start::{identity, launch_plan};
pub use start::{restart, start};
pub use stats::stats;
pub use stop::{StopArgs, kill, stop};

use crate::cli::{Context, Source};
use crate::doc::{Document, Kind, Name, State, Status};
use crate::error::Result;

/// The VMs that a verb works on: the names given, or the one of the document at `file` or on stdin.
fn targets(cx: &mut Context<'_>, names: &[Name], file: Option<std::path::PathBuf>) -> Result<Vec<Name>> {
    if !names.is_empty() {
        return Ok(names.to_vec());
    }
    Ok(vec![cx.document(&Source { name: None, file }, Kind::Machine)?.name()?])
}

/// Whether the document that [`MachineDir::current`] gave is of a running VM.
pub(super) fn is_running(doc: &Document) -> Result<bool> {
    Ok(doc.section::<Status>()?.is_some_and(|s| s.state == State::Running))
}
