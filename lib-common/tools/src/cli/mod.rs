//! argv, stdin, stdout, stderr and the exit status: the only code that touches them. Knows no domain but how a
//! document is found.
//!
//! A tool is a clap type and a function; [`main`] runs it. What it prints is held back until it has succeeded, so
//! stdout has documents or nothing; a failure's last line on stderr is the `Error` document.

mod boot_timeout;
mod input;
mod order;
mod output;
mod progress;
pub mod slips;
pub mod table;
mod words;

pub use boot_timeout::BootTimeout;
pub use input::Source;
pub use order::in_order;
pub use table::{Format, Output};

use clap::Parser;
use clap::error::ErrorKind;
use lib_common::error::{Code, Error, Result};
use lib_common::sys::{host, limits, signal};
use lib_common::timing::Progress;
use lib_common::timing::Stages;
use lib_machine::config::unknown_variables;
use lib_machine::config::{Config, Env, process_env};
use lib_machine::net::give_back_all;
use lib_machine::store::Store;
use std::cell::RefCell;
use std::ffi::OsString;
use std::io::{IsTerminal, Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Once;

/// The options of `bg-ssh` that ssh calls it with.
const FOR_SSH: [&str; 4] = ["--fdpass", "--stdio", "--known-hosts", "--logged-in"];

/// How a tool that did not fail ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Exit 0.
    Done,
    /// Exit 1: the answer is no (unhealthy, a leak, a failed check), and stdout says what.
    No,
    /// The status of a remote command: `bg-ssh` alone.
    Status(u8),
}

/// What a tool is given: its arguments, environment and standard streams as values, so that a test can run a whole tool.
pub struct Io<'a> {
    /// With the program's name first.
    pub args: Vec<OsString>,
    /// The environment.
    pub env: Env,
    /// Whether the caller is root.
    pub root: bool,
    /// Standard input, and whether it is a terminal.
    pub stdin: (Box<dyn Read + 'a>, bool),
    /// Standard output, and whether it is a terminal.
    pub stdout: (Box<dyn Write + 'a>, bool),
    /// Standard error, and whether it is a terminal.
    pub stderr: (Box<dyn Write + 'a>, bool),
}

/// What a verb works with.
pub struct Context<'a> {
    /// The tool's name.
    pub tool: &'static str,
    /// The settings.
    pub config: Config,
    /// The stages of this run.
    pub stages: Stages,
    /// Whether stdout is a terminal: lists are tables there by default.
    pub stdout_is_terminal: bool,
    /// Whether stdin is a terminal.
    pub stdin_is_terminal: bool,
    stdin: Box<dyn Read + 'a>,
    stdout: Box<dyn Write + 'a>,
    stderr: Box<dyn Write + 'a>,
    held: Vec<u8>,
}

/// Runs a tool on this process: `fn main() -> ExitCode { cli::main("bg-seed", run) }`.
pub fn main<A: Parser>(tool: &'static str, run: fn(A, &mut Context<'_>) -> Result<Answer>) -> ExitCode {
    main_with(tool, std::env::args_os().collect(), run)
}

/// Runs a tool whose second word begins a command for something else, with that command's own options: `bg-ssh dev ls -l`.
pub fn main_with_command<A: Parser>(tool: &'static str, run: fn(A, &mut Context<'_>) -> Result<Answer>) -> ExitCode {
    main_with(tool, words::command_after_name(&A::command(), std::env::args_os().collect()), run)
}

fn main_with<A: Parser>(
    tool: &'static str,
    args: Vec<OsString>,
    run: fn(A, &mut Context<'_>) -> Result<Answer>,
) -> ExitCode {
    let stderr_is_terminal = std::io::stderr().is_terminal();
    if let Err(e) = limits::no_core_dumps().and_then(|()| signal::install()) {
        return ExitCode::from(output::report(tool, &e, &mut std::io::stderr(), stderr_is_terminal));
    }
    let io = Io {
        args,
        env: process_env(),
        root: host::caller_is_root(),
        stdin: (Box::new(std::io::stdin()), std::io::stdin().is_terminal()),
        stdout: (Box::new(output::ProcessStdout), std::io::stdout().is_terminal()),
        stderr: (Box::new(std::io::stderr()), stderr_is_terminal),
    };
    ExitCode::from(run_with(tool, run, io))
}

/// Runs an internal tool: it reads no configuration and no stdin, prints nothing but its error, and takes what it has
/// to know as `OPTION VALUE`, which `run` gets. Without clap, whose code is a seventh of such a tool's memory.
pub fn internal(tool: &'static str, help: &str, option: &str, run: fn(&Path) -> Result<()>) -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let print = |text: &str| writeln!(std::io::stdout(), "{text}").map_err(|e| closed(&e));
    let result = match &args[..] {
        [given, value] if given == option => {
            limits::no_core_dumps().and_then(|()| signal::install()).and_then(|()| run(Path::new(value)))
        }
        [only] if only == "--help" || only == "-h" => print(help),
        [only] if only == "--version" || only == "-V" => print(&format!("{tool} {}", env!("CARGO_PKG_VERSION"))),
        _ => Err(Error::new(Code::Usage, format!("{tool} takes {option} and its value, and nothing else"))
            .hint("it is started by `bg-vm start`, not by hand")),
    };
    let report = |e: &Error| output::report(tool, e, &mut std::io::stderr(), std::io::stderr().is_terminal());
    ExitCode::from(result.map_or_else(|e| report(&e), |()| 0))
}

/// Runs a tool on given streams and gives its exit status.
pub fn run_with<A: Parser>(tool: &'static str, run: fn(A, &mut Context<'_>) -> Result<Answer>, io: Io<'_>) -> u8 {
    let Io { args, env, root, stdin, mut stdout, mut stderr } = io;
    let progress = stderr.1.then(|| Box::new(progress::Spinner::new(tool)) as Box<dyn Progress>);
    let stages = Stages::new(tool, progress);
    let parsed = match A::try_parse_from(&args) {
        Ok(args) => args,
        Err(e) if e.use_stderr() => return output::report(tool, &usage(tool, &args, &e), &mut stderr.0, stderr.1),
        Err(help) => {
            let printed = write!(stdout.0, "{}", help.render()).and_then(|()| stdout.0.flush());
            return printed.map_or_else(|e| output::report(tool, &closed(&e), &mut stderr.0, stderr.1), |()| 0);
        }
    };
    let config = match Config::load(&env, root) {
        Ok(config) => config,
        Err(e) => return output::report(tool, &e, &mut stderr.0, stderr.1),
    };
    let mut cx = Context {
        tool,
        config,
        stages,
        stdout_is_terminal: stdout.1,
        stdin_is_terminal: stdin.1,
        stdin: stdin.0,
        stdout: stdout.0,
        stderr: stderr.0,
        held: vec![],
    };
    // What ssh calls stands in the middle of somebody's session, and the tool that has started ssh has said it already.
    let for_ssh = args.iter().any(|arg| FOR_SSH.iter().any(|option| arg == option));
    for remark in cx.config.legacy().into_iter().chain(unknown_variables(&env)).filter(|_| !for_ssh) {
        cx.remark(&remark);
    }
    if let Some(path) = env.get("BG_EVENTS") {
        cx.stages.send_events(Path::new(path));
    }
    let result = guarded(parsed, run, &mut cx).and_then(|answer| cx.flush().map(|()| answer));
    let exit = match result {
        Ok(Answer::Done) => 0,
        Ok(Answer::No) => 1,
        Ok(Answer::Status(status)) => status,
        Err(e) => {
            cx.stages.hide();
            output::report(tool, &interrupted_or(e), &mut cx.stderr, stderr.1)
        }
    };
    cx.stages.finish(exit);
    exit
}

thread_local! {
    /// Where this thread panicked, while [`guarded`] runs in it.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// What fails once a signal has come (a system call that was cut short, a program that got the signal too) fails
/// because of it.
fn interrupted_or(e: Error) -> Error {
    match signal::check() {
        Err(interrupted) if interrupted.code() != e.code() => {
            e.causes().iter().fold(interrupted.also(e.message()), |error, cause| error.also(cause.clone()))
        }
        // It knows by now whether anything was undone.
        Err(interrupted) if e.causes().is_empty() => interrupted,
        _ => e,
    }
}

/// A panic is a bug, and still ends as an `Error` document.
fn guarded<A>(args: A, run: fn(A, &mut Context<'_>) -> Result<Answer>, cx: &mut Context<'_>) -> Result<Answer> {
    static HOOK: Once = Once::new();
    // Only this thread's panics become a document; a test's own, beside it, are still told.
    HOOK.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let ours = PANIC.with_borrow_mut(|place| {
                place.as_mut().map(|place| *place = info.to_string().replace('\n', " ")).is_some()
            });
            if !ours {
                others(info);
            }
        }));
    });
    PANIC.set(Some(String::new()));
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(args, cx)));
    let place = PANIC.take().unwrap_or_default();
    caught.unwrap_or_else(|_| {
        Err(Error::new(Code::Internal, "this is a bug in banger").also(place).hint("please report it with the command"))
    })
}

fn usage(tool: &str, args: &[OsString], e: &clap::Error) -> Error {
    if e.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return Error::new(Code::Usage, "a verb is needed").hint("--help lists them");
    }
    let text = e.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let mut lines = text.lines().map(str::trim).filter(|l| !l.is_empty());
    let mut error = Error::new(Code::Usage, lines.next().unwrap_or("the command line is wrong"));
    // Without clap's own guess, which only compares letters.
    if let Some(hint) = slips::hint(tool, args, e) {
        return error.hint(hint);
    }
    let mut usage = None;
    for line in lines {
        if let Some(tip) = line.strip_prefix("tip: ") {
            error = error.also(tip.to_owned());
        } else if let Some(u) = line.strip_prefix("Usage: ") {
            usage = Some(u.to_owned());
        } else if !line.starts_with("For more information") {
            error = error.also(line.to_owned());
        }
    }
    // A value that one of our own types refused says itself what it should be.
    let refused = std::error::Error::source(e).and_then(|source| source.downcast_ref::<Error>());
    if let Some(hint) = refused.and_then(Error::get_hint) {
        return error.hint(hint);
    }
    match usage {
        Some(usage) => error.hint(format!("usage: {usage}")),
        None => error.hint("--help lists the options"),
    }
}

fn closed(e: &std::io::Error) -> Error {
    match e.kind() {
        std::io::ErrorKind::BrokenPipe => Error::new(Code::ClosedStdout, "nobody reads the output").because(e),
        _ => Error::new(Code::Io, "cannot write to stdout").because(e),
    }
}

impl Context<'_> {
    /// The store of images and VMs.
    pub fn store(&self) -> Store {
        Store::new(&self.config, give_back_all)
    }
}
