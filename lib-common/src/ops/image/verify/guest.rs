//! What is checked inside the guest: programs over one session, and what they have to print. Robust against a guest whose
//! shell prints what nobody asked for, since that is one of the things to be found.

use super::checks::{Checks, IN_SESSION, Outcome, answer, outcome};
use crate::build::distro::{Distro, Units};
use crate::build::manifest;
use crate::cli::Context;
use crate::doc::{PackageDiff, Rootfs};
use crate::error::Result;
use crate::guest::ssh::session::{Session, Stream};
use crate::ops::image::files::packages;

/// Reads the program from its input. The login's own shell may be any: it has to run this one word.
const RUN: &str = "exec /bin/sh";

/// What comes before it on stdout is not the program's.
const BEGIN: &str = "--- banger: the program begins";

/// A list of every package is larger than any answer should be, in bytes.
const MAX_PRINTED: usize = 16 << 20;

/// The most of one thing that a guest says, and of what its shell prints unasked, that is told, in characters.
const MAX_TOLD: usize = 200;

/// No line of any answer is as long, in characters.
const MAX_LINE: usize = 2000;

/// At most so many packages, services and directories are named.
const MAX_NAMED: usize = 5;

/// One `key=value` a line. `timeout`: a login shell that waits for somebody is no shell to log in to.
const PROBE: &str = r#"
exec 2>/dev/null
entry=$(getent passwd root || grep '^root:' /etc/passwd)
shell=${entry##*:}
echo "shell=$shell"
[ -f "$shell" ] && [ -x "$shell" ] && echo executable=yes
said=$(timeout 60 "$shell" -l -c true </dev/null 2>&1)
echo "login_status=$?"
echo "login_said=$(printf '%s' "$said" | head -c 1000 | tr '\n' ' ')"
echo "home=$HOME"
echo "cwd=$(pwd)"
echo "user=$(id -un)"
echo "path=$PATH"
echo "charmap=$(locale charmap 2>/dev/null || echo "${LC_ALL:-${LC_CTYPE:-$LANG}}")"
real=$(echo "$PATH" | tr : '\n' | while read -r dir; do readlink -f "$dir"; done)
for dir in /usr/local/sbin /usr/sbin /sbin; do
    [ ! -d "$dir" ] || echo "$real" | grep -qxF "$(readlink -f "$dir")" || echo "not_in_path=$dir"
done
while read -r device at type options rest; do
    [ "$at" != /root ] || echo "mount=$device $type $options"
done </proc/self/mounts
echo "owner=$(stat -c '%u:%g %a' /root)"
file=$(mktemp /root/.banger.XXXXXXXX) && echo x >"$file" && rm "$file" && echo writable=yes
echo "sectors=$(cat /sys/class/block/vdb/size)"
"#;

/// What the checks need to know.
pub(super) struct Expected<'a> {
    pub distro: &'static dyn Distro,
    pub rootfs: &'a Rootfs,
    /// The size of the work disk.
    pub work_bytes: u64,
}

/// Makes the checks [`IN_SESSION`].
pub(super) fn check(
    cx: &mut Context<'_>,
    session: &Session,
    expected: &Expected<'_>,
    checks: &mut Checks,
) -> Result<()> {
    cx.stages.begin("session");
    let probed = match answer(run(session, PROBE))? {
        Ok(probed) => probed,
        Err(e) => {
            checks.cannot(&IN_SESSION, &e.with_causes());
            return Ok(());
        }
    };
    let facts = Facts(probed.out.as_deref().unwrap_or_default());
    checks.add("shell", shell(&facts, &probed));
    if probed.out.is_none() {
        checks.cannot(&IN_SESSION[1..], "root's shell runs no program");
        return Ok(());
    }
    checks.add("environment", environment(&facts));
    checks.add("work_disk", work_disk(&facts, expected.work_bytes));
    cx.stages.begin("units");
    checks.add("units", outcome(units(session, expected.distro))?);
    cx.stages.begin("manifest");
    checks.add("manifest", outcome(installed(session, expected))?);
    Ok(())
}

/// What a program in the guest has printed.
#[derive(Debug, Default)]
struct Printed {
    /// On stdout before it began, and on stderr.
    noise: String,
    /// On stdout; none where it did not begin.
    out: Option<String>,
    /// How it ended, in words, where that was not well.
    failed: Option<String>,
}

/// Runs a program for `/bin/sh`. A program that fails is no error.
fn run(session: &Session, program: &str) -> Result<Printed> {
    let (mut out, mut noise) = (vec![], vec![]);
    let input = format!("echo; echo '{BEGIN}'\n{program}");
    let ended = session.run(RUN, input.as_bytes(), &mut |stream, bytes| {
        let into = if stream == Stream::Stdout { &mut out } else { &mut noise };
        let fits = MAX_PRINTED.saturating_sub(into.len()).min(bytes.len());
        into.extend_from_slice(&bytes[..fits]);
    })?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let failed = (!ended.is_success()).then(|| ended.in_words());
    let (out, noise) = (text(&out), text(&noise));
    Ok(match out.split_once(&format!("\n{BEGIN}\n")) {
        Some((before, out)) => Printed { noise: format!("{before}{noise}"), out: Some(bounded(out)), failed },
        None => Printed { noise: format!("{out}{noise}"), out: None, failed },
    })
}

/// With lines as long as they may be: one that is not understood is told as a whole.
fn bounded(out: &str) -> String {
    out.lines().flat_map(|line| [cut(line, MAX_LINE), "\n"]).collect()
}

/// The first characters of a text.
fn cut(text: &str, characters: usize) -> &str {
    text.char_indices().nth(characters).map_or(text, |(at, _)| &text[..at])
}

/// Lines `key=value`.
struct Facts<'a>(&'a str);

impl<'a> Facts<'a> {
    /// Every value of a key, as far as it is told.
    fn all(&self, key: &str) -> impl Iterator<Item = &'a str> {
        let values = self.0.lines().filter_map(move |line| line.strip_prefix(key)?.strip_prefix('='));
        values.map(|value| cut(value, MAX_TOLD))
    }

    /// The last value; empty where there is none.
    fn get(&self, key: &str) -> &'a str {
        self.all(key).last().unwrap_or_default()
    }
}

fn shell(facts: &Facts<'_>, probed: &Printed) -> Outcome {
    if probed.out.is_none() {
        let how = probed.failed.as_deref().unwrap_or("it ends at once");
        return Err(format!("root's shell runs no program ({how}){}", told(&probed.noise)));
    }
    let shell = facts.get("shell");
    if facts.get("executable") != "yes" {
        return Err(format!("root's shell `{shell}` is no program"));
    }
    if facts.get("login_status") != "0" {
        let said = told(facts.get("login_said"));
        return Err(format!("`{shell}` as a login shell ends with {}{said}", facts.get("login_status")));
    }
    let noise = format!("{}{}", probed.noise, facts.get("login_said"));
    if !noise.trim().is_empty() {
        return Err(format!("`{shell}` does not start silently{}", told(&noise)));
    }
    Ok(format!("{shell} starts silently"))
}

/// `: it says "…"`, or nothing.
fn told(text: &str) -> String {
    let text = text.trim();
    if text.is_empty() {
        return String::new();
    }
    format!(": it says \"{}\"", cut(text, MAX_TOLD).escape_debug())
}

fn environment(facts: &Facts<'_>) -> Outcome {
    let mut wrong = vec![];
    for (what, key, expected) in
        [("the user", "user", "root"), ("HOME", "home", "/root"), ("the directory", "cwd", "/root")]
    {
        let found = facts.get(key);
        if found != expected {
            wrong.push(format!("{what} is `{found}` and not {expected}"));
        }
    }
    let missing = named(facts.all("not_in_path"));
    if !missing.is_empty() {
        wrong.push(format!("PATH is {} and lacks {missing}", facts.get("path")));
    }
    let charmap = facts.get("charmap");
    let is_utf8 = charmap.to_ascii_lowercase().replace('-', "").ends_with("utf8");
    if !is_utf8 {
        wrong.push(format!("the locale's character set is `{charmap}` and not UTF-8"));
    }
    if wrong.is_empty() { Ok(format!("/root, {charmap}, PATH={}", facts.get("path"))) } else { Err(wrong.join("; ")) }
}

fn work_disk(facts: &Facts<'_>, bytes: u64) -> Outcome {
    let mut wrong = vec![];
    let mount: Vec<&str> = facts.get("mount").split(' ').collect();
    match mount[..] {
        ["/dev/vdb", "ext4", options] if options.split(',').any(|o| o == "rw") => {}
        ["/dev/vdb", "ext4", options] => wrong.push(format!("it is mounted {options}")),
        [device, kind, _] => wrong.push(format!("{kind} of {device} is mounted at /root and not ext4 of /dev/vdb")),
        _ => wrong.push("nothing is mounted at /root".into()),
    }
    if facts.get("owner") != "0:0 700" {
        wrong.push(format!("owner and mode are {} and not 0:0 700", facts.get("owner")));
    }
    if facts.get("writable") != "yes" {
        wrong.push("nothing can be written to it".into());
    }
    let size = facts.get("sectors").parse::<u64>().ok().and_then(|n| n.checked_mul(512)).unwrap_or_default();
    if size != bytes {
        wrong.push(format!("it has {size} bytes and not {bytes} bytes"));
    }
    if wrong.is_empty() { Ok(format!("ext4 of /dev/vdb at /root, {bytes} bytes")) } else { Err(wrong.join("; ")) }
}

fn units(session: &Session, distro: &dyn Distro) -> Result<Outcome> {
    let printed = run(session, distro.init().print_units())?;
    Ok(services(&distro.init().units(&printed.out.unwrap_or_default())?))
}

fn services(units: &Units) -> Outcome {
    let state = cut(&units.state, MAX_TOLD);
    match (units.is_up, &units.failed[..]) {
        (true, []) => Ok(state.to_owned()),
        (_, []) => Err(format!("the system is {state}")),
        (_, failed) => Err(format!("the system is {state}; failed: {}", named(failed.iter().map(String::as_str)))),
    }
}

/// `a, b and 3 more`; empty where there is none.
fn named<'a>(all: impl Iterator<Item = &'a str>) -> String {
    let all: Vec<&str> = all.collect();
    let more = if all.len() > MAX_NAMED { format!(" and {} more", all.len() - MAX_NAMED) } else { String::new() };
    let first: Vec<&str> = all.into_iter().take(MAX_NAMED).map(|name| cut(name, MAX_TOLD)).collect();
    format!("{}{more}", first.join(", "))
}

fn installed(session: &Session, expected: &Expected<'_>) -> Result<Outcome> {
    let recorded = match packages(expected.rootfs) {
        Ok(recorded) => recorded,
        Err(e) => return Ok(Err(e.with_causes())),
    };
    let printed = run(session, expected.distro.print_manifest())?;
    if let Some(how) = printed.failed {
        return Ok(Err(format!("the guest does not list its packages ({how})")));
    }
    let found = expected.distro.manifest(&printed.out.unwrap_or_default())?;
    let diff = manifest::diff(&recorded, &found);
    Ok(if diff.is_empty() { Ok(format!("{} packages, as in the manifest", found.len())) } else { Err(differs(&diff)) })
}

/// `missing: a, b; extra: c; changed: d (1, in the manifest 2)`.
fn differs(diff: &PackageDiff) -> String {
    let named = |what: &str, all: Vec<String>| {
        (!all.is_empty()).then(|| format!("{what}: {}", named(all.iter().map(String::as_str))))
    };
    let parts = [
        named("missing", diff.removed.iter().map(|p| p.name.clone()).collect()),
        named("extra", diff.added.iter().map(|p| p.name.clone()).collect()),
        named(
            "changed",
            diff.changed.iter().map(|p| format!("{} ({}, in the manifest {})", p.name, p.to, p.from)).collect(),
        ),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests;
