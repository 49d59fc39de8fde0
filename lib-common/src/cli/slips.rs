//! Words of other tools that people type here, and what to type instead.

use crate::sys::cmd::quote;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use std::ffi::OsString;

/// A tool with the verbs above it, words that it does not know, and what is meant. `{}` stands for the words that follow, or for
/// NAME.
pub const VERBS: &[(&str, &[&str], &str)] = &[
    ("bg-vm", &["ssh", "sh", "shell", "bash", "login", "enter", "attach", "connect", "exec", "execute"], "bg-ssh {}"),
    ("bg-vm", &["list", "ps", "vms", "machines"], "bg-vm ls"),
    ("bg-vm", &["status", "inspect", "info", "get", "describe", "cat"], "bg-vm show {}"),
    ("bg-vm", &["ip", "address", "addresses", "network"], "bg-vm hosts"),
    ("bg-vm", &["delete", "remove", "destroy", "del", "purge", "undefine"], "bg-vm rm {}"),
    ("bg-vm", &["run", "new", "make", "add", "define", "init", "launch", "clone", "build"], "bg-vm create {}"),
    ("bg-vm", &["up", "boot", "resume", "unpause"], "bg-vm start {}"),
    ("bg-vm", &["down", "halt", "shutdown", "poweroff", "pause", "suspend"], "bg-vm stop {}"),
    ("bg-vm", &["reboot", "reset"], "bg-vm restart {}"),
    ("bg-vm", &["terminate", "force-stop"], "bg-vm kill {}"),
    ("bg-vm", &["log", "console", "journal", "tail"], "bg-vm logs {}"),
    ("bg-vm", &["port", "listeners"], "bg-vm ports {}"),
    ("bg-vm", &["stat", "top", "usage", "df"], "bg-vm stats {}"),
    ("bg-vm", &["health", "healthy", "ping", "wait", "check"], "bg-health {}"),
    ("bg-vm", &["image", "images", "pull"], "bg-image ls"),
    ("bg-vm", &["export", "save", "backup", "snapshot", "commit"], "bg-image bundle"),
    ("bg-vm", &["cp", "scp", "copy", "rsync", "ssh-config", "config"], "bg-ssh --config"),
    ("bg-vm", &["tap", "taps", "net"], "bg-tap ls"),
    ("bg-vm", &["doctor", "setup"], "bg-doctor"),
    ("bg-vm", &["verify", "audit"], "bg-verify"),
    ("bg-vm", &["gc", "prune", "clean", "cleanup"], "bg-verify | bg-gc"),
    ("bg-vm", &["version"], "bg-vm --version"),
    ("bg-image", &["create", "build", "make", "new", "commit"], "bg-image-build --help"),
    ("bg-image", &["pull", "download", "fetch", "init"], "bg-rootfs build --help"),
    ("bg-image", &["add", "register", "import", "load", "tag"], "bg-register --help"),
    ("bg-image", &["list", "ps", "images"], "bg-image ls"),
    ("bg-image", &["inspect", "info", "get", "describe", "status"], "bg-image show {}"),
    ("bg-image", &["delete", "remove", "destroy", "del", "rmi", "purge", "unregister"], "bg-image rm {}"),
    ("bg-image", &["use", "set-default", "select"], "bg-image default {}"),
    ("bg-image", &["test", "check"], "bg-image verify {}"),
    ("bg-image", &["compare", "cmp"], "bg-image diff {}"),
    ("bg-image", &["export", "save", "pack", "push"], "bg-image bundle {}"),
    ("bg-image", &["update", "repair", "fix", "refresh"], "bg-image reconcile {}"),
    ("bg-image", &["gc", "clean", "cleanup"], "bg-verify | bg-gc"),
    ("bg-image", &["version"], "bg-image --version"),
    ("bg-tap", &["list", "ps", "show", "status", "leases"], "bg-tap ls"),
    ("bg-tap", &["create", "new", "start", "init", "setup", "bridge"], "bg-tap up"),
    ("bg-tap", &["stop", "destroy", "teardown"], "bg-tap down"),
    ("bg-tap", &["get", "add", "lend", "attach"], "bg-tap acquire --help"),
    ("bg-tap", &["delete", "remove", "rm", "del", "free", "detach"], "bg-tap release {}"),
    ("bg-tap", &["fill"], "bg-tap pool fill {}"),
    ("bg-tap", &["drain"], "bg-tap pool drain"),
    ("bg-tap", &["version"], "bg-tap --version"),
    ("bg-tap pool", &["list", "ps", "show", "status"], "bg-tap pool ls"),
    ("bg-tap pool", &["add", "create", "new", "up"], "bg-tap pool fill {}"),
    ("bg-tap pool", &["rm", "remove", "delete", "clear", "empty", "down"], "bg-tap pool drain"),
    ("bg-seed", &["create", "make", "new"], "bg-seed build --help"),
    ("bg-seed", &["copy", "cp"], "bg-seed clone --help"),
    ("bg-seed", &["verify", "test", "fsck"], "bg-seed check --help"),
    ("bg-seed", &["ls", "list"], "bg-image show"),
    ("bg-kernel", &["create", "make", "new", "fetch", "download", "pull"], "bg-kernel build --help"),
    ("bg-kernel", &["ls", "list", "show"], "bg-image show"),
    ("bg-rootfs", &["create", "make", "new", "fetch", "download", "pull"], "bg-rootfs build --help"),
    ("bg-rootfs", &["ls", "list", "show"], "bg-image ls"),
    ("bg-bench", &["run", "boot", "start"], "bg-bench create --help"),
    ("bg-bench", &["diff"], "bg-bench compare {}"),
];

/// Options of other tools, and what to do about them; those with a tool in front are that tool's alone.
const OPTIONS: &[(&str, &[&str], &str)] = &[
    (
        "",
        &["--json", "-j", "--ndjson", "--jsonl"],
        "leave it out: the output is JSON already, and on a terminal by --output json",
    ),
    ("", &["--format"], "type --output json, or --output table"),
    ("", &["-o"], "type --output json, or --output table"),
    ("", &["-a", "--all"], "leave it out: all are listed"),
    ("", &["-y", "--yes", "--assume-yes"], "leave it out: nothing is asked"),
    ("", &["-q", "--quiet", "--silent"], "leave it out; `2>/dev/null` hides progress and remarks"),
    ("", &["-v", "--verbose", "--debug"], "leave it out; BG_EVENTS=FILE gets each stage of the work"),
    ("", &["-f"], "type --force, where the tool has it: --help"),
    ("bg-vm", &["--cpu", "--cpus", "--vcpus"], "type --vcpu N"),
    ("bg-vm", &["--mem", "--ram", "-m"], "type --memory SIZE"),
    ("bg-vm", &["--disk", "--size", "--disk-size"], "type --work-size SIZE, or --root-size SIZE"),
    ("bg-vm", &["-d", "--detach", "--background"], "leave it out: a VM runs in the background"),
    ("bg-vm", &["-p", "--publish", "--port"], "type bg-ssh -L PORT:localhost:PORT NAME, once the VM runs"),
    ("bg-ssh", &["-it", "-ti", "-i", "--interactive"], "type -t"),
    ("bg-ssh", &["-l", "--user", "-u"], "leave it out; `bg-ssh --config` lets ssh log in as another user"),
    ("bg-ssh", &["-p", "--port"], "leave it out: bg-ssh finds the guest by its name"),
];

/// What to type instead, where `e` is of a word that people know from other tools.
pub(super) fn hint(tool: &str, args: &[OsString], e: &clap::Error) -> Option<String> {
    let text = |kind| match e.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    match e.kind() {
        ErrorKind::InvalidSubcommand => {
            let word = text(ContextKind::InvalidSubcommand)?;
            let at = args.iter().position(|arg| arg == word)?;
            let above: Vec<_> =
                std::iter::once(tool.into()).chain(args[1..at].iter().map(|a| a.to_string_lossy())).collect();
            let rest = args[at + 1..].iter().map(|arg| quote(&arg.to_string_lossy())).collect::<Vec<_>>();
            instead_of(&above.join(" "), word, &rest).map(|line| format!("type: {line}"))
        }
        ErrorKind::UnknownArgument => {
            let option = text(ContextKind::InvalidArg)?.split(['=', ' ']).next()?;
            let is_meant = |(whose, options, _): &&(&str, &[&str], &str)| {
                (whose.is_empty() || *whose == tool) && options.contains(&option)
            };
            // A tool's own go first.
            let found = OPTIONS.iter().rev().find(is_meant)?;
            Some(found.2.to_owned())
        }
        _ => None,
    }
}

fn instead_of(tool: &str, word: &str, rest: &[String]) -> Option<String> {
    let (.., line) = VERBS.iter().find(|(whose, words, _)| *whose == tool && words.contains(&word))?;
    let rest = if rest.is_empty() { "NAME".to_owned() } else { rest.join(" ") };
    Some(line.replace("{}", &rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_has_one_meaning_and_what_follows_is_kept() {
        for (n, (tool, words, _)) in VERBS.iter().enumerate() {
            for word in *words {
                let others = VERBS[n + 1..].iter().filter(|(whose, words, _)| whose == tool && words.contains(word));
                assert_eq!(others.count(), 0, "{tool} {word}");
            }
        }
        let rest = ["dev".to_owned(), "ls".to_owned()];
        assert_eq!(instead_of("bg-vm", "exec", &rest).as_deref(), Some("bg-ssh dev ls"));
        assert_eq!(instead_of("bg-vm", "delete", &[]).as_deref(), Some("bg-vm rm NAME"));
        assert_eq!(instead_of("bg-vm", "dev", &[]), None);
    }
}
