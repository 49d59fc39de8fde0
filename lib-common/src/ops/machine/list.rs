//! ls, show: what is there, with what is computed.

use crate::cli::table::{render, size};
use crate::cli::{Answer, Context, Output};
use crate::doc::{Document, Kind, Name, Net, Spec, State, Status};
use crate::error::Result;
use crate::store::MachineDir;

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
    let store = cx.store();
    let mut docs = vec![];
    for name in store.machine_names()? {
        match listed(&store.machine_dir(&name)) {
            Ok(doc) => docs.push(doc),
            Err(e) => cx.remark(&format!("{name}: {e}")),
        }
    }
    if !args.table.unwrap_or(cx.stdout_is_terminal) {
        docs.iter().for_each(|doc| cx.emit_line(&doc.to_line()));
        return Ok(Answer::Done);
    }
    let rows = docs.iter().map(row).collect::<Result<Vec<_>>>()?;
    cx.emit_text(&render(&["NAME", "STATE", "IMAGE", "VCPU", "MEMORY", "WORK", "ADDRESS"], &rows));
    Ok(Answer::Done)
}

/// `bg-vm show`.
pub fn show(cx: &mut Context<'_>, name: &Name) -> Result<Answer> {
    let doc = cx.store().machine(name)?.current()?;
    cx.emit_line(&doc.to_line());
    Ok(Answer::Done)
}

fn listed(machine: &MachineDir) -> Result<Document> {
    if machine.record_file().exists() {
        return machine.current();
    }
    let mut doc = Document::new(Kind::Machine, machine.name());
    doc.set(&Status { state: State::Incomplete, exit: None });
    Ok(doc)
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
