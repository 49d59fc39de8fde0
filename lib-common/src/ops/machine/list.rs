//! ls, show: what is there, with what is computed.

use crate::cli::table::{render, size};
use crate::cli::{Answer, Context, Output};
use crate::doc::{Document, Name, Net, Spec, State, Status};
use crate::error::{Code, Error, Result};
use crate::sys::thread::in_threads;

/// A VM's document is about as long, in bytes.
const LINE_BYTES: usize = 6 << 10;

/// What a table has in place of the state of a VM or an image whose record cannot be read.
pub(in crate::ops) const DAMAGED: &str = "damaged";

/// How lists are printed.
#[derive(Clone, Copy, Debug, Default)]
pub struct ListArgs {
    /// `Some(true)`: a table; `Some(false)`: JSON lines; `None`: a table on a terminal.
    pub table: Option<bool>,
}

impl From<Output> for ListArgs {
    fn from(output: Output) -> Self {
        ListArgs { table: output.table() }
    }
}

/// `bg-vm ls`. A damaged record is a remark, and its VM is in the table all the same.
pub fn ls(cx: &mut Context<'_>, args: ListArgs) -> Result<Answer> {
    cx.stages.begin("list");
    let store = cx.store();
    let names = store.machine_names()?;
    let listed = |name: &Name| store.machine_dir(name).listed();
    if args.table.unwrap_or(cx.stdout_is_terminal) {
        let parts = in_threads(&names, |names| {
            Part::of(names, vec![], |rows, name| {
                match listed(name).and_then(|doc| doc.map(|doc| row(&doc)).transpose()) {
                    Ok(row) => rows.extend(row),
                    Err(e) => {
                        rows.extend((e.code() == Code::BadDocument).then(|| vec![name.to_string(), DAMAGED.into()]));
                        return Err(e);
                    }
                }
                Ok(())
            })
        });
        let rows: Vec<_> = parts.into_iter().flat_map(|part| part.told(cx)).collect();
        cx.emit_text(&render(&["NAME", "STATE", "IMAGE", "VCPU", "MEMORY", "WORK", "ADDRESS"], &rows));
    } else {
        let parts = in_threads(&names, |names| {
            // In one piece from the beginning: an allocator grows a thread's memory by single pages.
            let lines = String::with_capacity(names.len() * LINE_BYTES);
            Part::of(names, lines, |lines, name| {
                if let Some(doc) = listed(name)? {
                    lines.push_str(&doc.to_line());
                    lines.push('\n');
                }
                Ok(())
            })
        });
        for part in parts {
            let lines = part.told(cx);
            cx.emit_text(&lines);
        }
    }
    Ok(Answer::Done)
}

/// `bg-vm show`.
pub fn show(cx: &mut Context<'_>, name: &Name) -> Result<Answer> {
    let doc = cx.store().machine(name)?.current()?;
    cx.emit_line(&doc.to_line());
    Ok(Answer::Done)
}

/// What is shown of some VMs, and of which it could not be.
struct Part<T> {
    shown: T,
    failed: Vec<(Name, Error)>,
}

impl<T> Part<T> {
    /// Adds each of them to what is shown.
    fn of(names: &[Name], mut shown: T, add: impl Fn(&mut T, &Name) -> Result<()>) -> Self {
        let mut failed = |name: &Name| add(&mut shown, name).err().map(|e| (name.clone(), e));
        let failed = names.iter().filter_map(&mut failed).collect();
        Part { shown, failed }
    }

    /// It, once the rest is told.
    fn told(self, cx: &mut Context<'_>) -> T {
        self.failed.iter().for_each(|(name, e)| cx.remark(&format!("{name}: {}", e.with_hint())));
        self.shown
    }
}

fn row(doc: &Document) -> Result<Vec<String>> {
    let status: Option<Status> = doc.section()?;
    let state = status.as_ref().map_or(State::Incomplete, |s| s.state).as_str();
    let paused = status.and_then(|s| s.paused).map(|paused| format!(": {paused}"));
    let mut row = vec![doc.name()?.to_string(), format!("{state}{}", paused.unwrap_or_default())];
    if let Some(spec) = doc.section::<Spec>()? {
        row.extend([spec.image.to_string(), spec.vcpu.to_string(), size(spec.memory_mib << 20), size(spec.work_bytes)]);
        let address = doc.section::<Net>()?.map(|net| net.address.address().to_string());
        row.push(address.unwrap_or_else(|| "-".into()));
    }
    Ok(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_keep_the_order_of_the_names() {
        for count in [0, 1, 32, 33, 101] {
            let names: Vec<_> = (0..count).map(|n| Name::parse(&format!("vm{n}")).unwrap()).collect();
            assert_eq!(in_threads(&names, <[Name]>::to_vec).concat(), names, "{count}");
        }
    }
}
