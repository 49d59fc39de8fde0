//! The step that the user does: a shell in the guest, and then the question.

use super::Base;
use super::vm::BuildVm;
use crate::cli::Context;
use crate::ops::ssh::terminal;
use lib_common::error::Result;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::time::Duration;

/// What the step takes.
pub(super) struct ByHand<'a> {
    base: &'a Base,
    tty: File,
    timeout: Duration,
}

impl<'a> ByHand<'a> {
    /// With the terminal, whatever the standard streams are. What follows the shell may take `timeout`.
    ///
    /// # Errors
    /// [`lib_common::Code::Usage`] where there is no terminal.
    pub(super) fn new(base: &'a Base, timeout: Duration) -> Result<Self> {
        let tty = terminal().map_err(|e| e.hint("what needs no terminal goes into a script: --run FILE"))?;
        Ok(ByHand { base, tty, timeout })
    }

    /// Whether the user wants what the shell has left.
    ///
    /// # Errors
    /// A session that broke, and the signal that came.
    pub(super) fn run(&self, cx: &mut Context<'_>, vm: &mut BuildVm) -> Result<bool> {
        cx.stages.hide();
        let base = &self.base.image;
        self.say(&format!(
            "This is a throwaway clone of `{base}`. Nothing in it reaches a network. Leave it with `exit`.\n"
        ))?;
        vm.shell(cx, (self.base, &self.tty), self.timeout)?;
        self.say("Make an image of it? [y/N] ")?;
        let mut answer = String::new();
        BufReader::new(&self.tty).read_line(&mut answer)?;
        lib_common::sys::signal::check()?;
        let wanted = matches!(answer.trim(), "y" | "Y" | "yes");
        if !wanted {
            cx.remark("nothing was kept");
        }
        Ok(wanted)
    }

    fn say(&self, text: &str) -> Result<()> {
        Ok((&self.tty).write_all(text.as_bytes())?)
    }
}
