//! ls, show: what is there, with what is computed.

use crate::cli::table::{render, size};
use crate::cli::{Answer, Context, Output};
use crate::doc::{Document, Name, Net, Spec, State, Status};
use crate::error::Result;

/// No more VMs than this are read by one thread.
const A_FEW: usize = 32;

/// More threads than this wait for each other.
const MOST_THREADS: usize = 4;

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

/// `bg-vm ls`. A damaged record is a remark and does not hide the others.
pub fn ls(cx: &mut Context<'_>, args: ListArgs) -> Result<Answer> {
    cx.stages.begin("list");
    if args.table.unwrap_or(cx.stdout_is_terminal) {
        let rows = each(cx, row)?;
        cx.emit_text(&render(&["NAME", "STATE", "IMAGE", "VCPU", "MEMORY", "WORK", "ADDRESS"], &rows));
    } else {
        each(cx, |doc| Ok(doc.to_line()))?.iter().for_each(|line| cx.emit_line(line));
    }
    Ok(Answer::Done)
}

/// `bg-vm show`.
pub fn show(cx: &mut Context<'_>, name: &Name) -> Result<Answer> {
    let doc = cx.store().machine(name)?.current()?;
    cx.emit_line(&doc.to_line());
    Ok(Answer::Done)
}

/// What `show` makes of each VM's document, in the order of their names.
fn each<T: Send>(cx: &mut Context<'_>, show: impl Fn(&Document) -> Result<T> + Sync) -> Result<Vec<T>> {
    let store = cx.store();
    let names = store.machine_names()?;
    let shown = in_threads(&names, |name| show(&store.machine_dir(name).listed()?));
    let without_failures = names
        .iter()
        .zip(shown)
        .filter_map(|(name, shown)| shown.inspect_err(|e| cx.remark(&format!("{name}: {e}"))).ok());
    Ok(without_failures.collect())
}

/// Does it for each name, in as many threads as there are processors: no record needs another.
fn in_threads<T: Send>(names: &[Name], work: impl Fn(&Name) -> T + Sync) -> Vec<T> {
    let threads = match names.len() {
        // A thread costs as much as some records.
        0..=A_FEW => 1,
        _ => std::thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS),
    };
    let of_part = |names: &[Name]| names.iter().map(&work).collect::<Vec<_>>();
    let mut parts = names.chunks(names.len().div_ceil(threads).max(1));
    std::thread::scope(|scope| {
        let first = parts.next().unwrap_or_default();
        let others: Vec<_> = parts.map(|part| scope.spawn(|| of_part(part))).collect();
        let mut all = of_part(first);
        // A panic is told as one of this thread would be.
        all.extend(others.into_iter().flat_map(|other| other.join().unwrap_or_else(|e| std::panic::resume_unwind(e))));
        all
    })
}

fn row(doc: &Document) -> Result<Vec<String>> {
    let state = doc.section::<Status>()?.map_or(State::Incomplete, |s| s.state);
    let mut row = vec![doc.name()?.to_string(), state.as_str().to_owned()];
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
        for count in [0, 1, A_FEW, A_FEW + 1, 101] {
            let names: Vec<_> = (0..count).map(|n| Name::parse(&format!("vm{n}")).unwrap()).collect();
            assert_eq!(in_threads(&names, Name::clone), names, "{count}");
        }
    }
}
