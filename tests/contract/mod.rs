//! What every tool promises, whatever its job: of stdin, stdout, stderr, exit status and events. The tables name each
//! verb, so a new one is a new row.

mod events;
pub mod input;
mod output;
mod sections;

use lib_common::doc::Kind;

/// A verb that reads one document from stdin.
pub struct Filter {
    pub tool: &'static str,
    pub args: &'static [&'static str],
    pub kind: Kind,
    /// Whether it takes `--file PATH` instead.
    pub file: bool,
}

const fn filter(tool: &'static str, args: &'static [&'static str], kind: Kind) -> Filter {
    Filter { tool, args, kind, file: true }
}

/// Every one of them.
pub const FILTERS: &[Filter] = &[
    filter("bg-register", &[], Kind::Image),
    filter("bg-seed", &["build"], Kind::Image),
    filter("bg-seed", &["check"], Kind::Image),
    filter("bg-seed", &["clone"], Kind::Machine),
    filter("bg-vm", &["start"], Kind::Machine),
    filter("bg-vm", &["stop"], Kind::Machine),
    filter("bg-vm", &["restart"], Kind::Machine),
    filter("bg-vm", &["kill"], Kind::Machine),
    filter("bg-vm", &["rm"], Kind::Machine),
    filter("bg-vm", &["stats"], Kind::Machine),
    filter("bg-vm", &["ports"], Kind::Machine),
    filter("bg-health", &[], Kind::Machine),
    filter("bg-ssh", &["--", "true"], Kind::Machine),
    filter("bg-tap", &["acquire"], Kind::Machine),
    filter("bg-tap", &["release"], Kind::Machine),
    filter("bg-image-build", &[], Kind::Image),
    // Its option for a file is the one that is given here.
    Filter { tool: "bg-image", args: &["reconcile", "--kernel", "-"], kind: Kind::Image, file: false },
    Filter { tool: "bg-image", args: &["bundle", "--base", "-"], kind: Kind::Image, file: false },
    // Extends the document on stdin; its option for a file is another.
    Filter { tool: "bg-rootfs", args: &["build", "--distro", "debian"], kind: Kind::Image, file: false },
];

impl Filter {
    pub fn label(&self) -> String {
        format!("{} {}", self.tool, self.args.join(" "))
    }

    /// The smallest document of its kind.
    pub fn small(&self) -> String {
        format!(r#"{{"api_version":"banger/v1","kind":"{}","name":"a"}}"#, self.kind.as_str())
    }

    /// The other kind.
    pub fn other_kind(&self) -> &'static str {
        match self.kind {
            Kind::Image => Kind::Machine.as_str(),
            Kind::Machine => Kind::Image.as_str(),
        }
    }
}
