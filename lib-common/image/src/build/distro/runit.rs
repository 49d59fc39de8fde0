//! runit: whether its services have started, and which of them do not stay.

use super::{Init, Units};
use lib_common::error::{Code, Error, Result};

/// runit.
#[derive(Debug)]
pub(super) struct Runit;

impl Init for Runit {
    fn name(&self) -> &'static str {
        "runit"
    }

    fn print_units(&self) -> &'static str {
        PRINT_UNITS
    }

    fn units(&self, printed: &str) -> Result<Units> {
        units(printed)
    }

    fn clean(&self) -> &'static str {
        CLEAN
    }
}

/// runsv starts again what ends, a second later at the soonest: what has run for so many seconds stays.
const STAYS: u64 = 3;

/// runit has no end of a startup. So it is waited until every service has run for three seconds, or is meant to be down, and
/// at most a minute; then the last state of each is printed, as sv(8) writes it.
const PRINT_UNITS: &str = r#"#!/bin/sh
left=60
while :; do
    said=$(sv status /var/service/* 2>&1)
    echo "$said" | grep -Eqv '^run: [^;]*\) ([3-9]|[0-9][0-9]+)s(;|$)|^down: [^;,]*s(;|$)' || break
    left=$((left - 1))
    [ "$left" -gt 0 ] || break
    sleep 1
done
echo "$said"
exit 0
"#;

/// The seed of the boot before this one. In a build nothing writes a new one: the agent has seen to that.
const CLEAN: &str = r#"
rm -f /var/lib/random-seed
find /var/lib/seedrng -xdev -mindepth 1 -delete 2>/dev/null
rm -f /etc/.pwd.lock
"#;

fn units(printed: &str) -> Result<Units> {
    let strange = |line: &str| Error::new(Code::BadInput, format!("sv says `{}`", line.escape_debug()));
    let mut failed = vec![];
    let mut any = false;
    for line in printed.lines() {
        let (name, is_up) = service(line).ok_or_else(|| strange(line))?;
        any = true;
        if !is_up {
            failed.push(name.to_owned());
        }
    }
    if !any {
        return Err(Error::new(Code::BadInput, "sv does not say how the services are"));
    }
    let is_up = failed.is_empty();
    Ok(Units { is_up, state: if is_up { "running" } else { "degraded" }.into(), failed })
}

/// A line of `sv status`: `run: DIR: (pid 1) 5s[, normally down…][; run: log: …]`, `down: DIR: 5s[, normally up…]`,
/// `finish: …`, or `fail: DIR: …` and `warning: DIR: …` for one that has no supervisor. The service's name, and whether it
/// is as it should be: what is down although nothing says that it should be has failed.
fn service(line: &str) -> Option<(&str, bool)> {
    let line = line.split(';').next()?;
    let (state, rest) = line.split_once(": ")?;
    let (dir, rest) = rest.split_once(": ")?;
    let name = dir.rsplit('/').next()?;
    let seconds = || rest.split(')').nth(1)?.split('s').next()?.trim().parse::<u64>().ok();
    let is_up = match state {
        "run" => seconds()? >= STAYS,
        "down" => !rest.contains("normally up"),
        "finish" | "fail" | "warning" => false,
        _ => return None,
    };
    Some((name, is_up))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lib_common::sys::cmd::Cmd;

    #[test]
    fn a_service_that_runs_or_is_meant_to_be_down_is_fine_and_any_other_has_failed() {
        let fine = "run: /var/service/sshd: (pid 312) 45s; run: log: (pid 311) 1s\n\
            run: /var/service/banger-agent: (pid 9) 3s\n\
            run: /var/service/x: (pid 10) 9s, normally down\n\
            down: /var/service/udevd: 12s\n";
        let found = units(fine).unwrap();
        assert!(found.is_up && found.failed.is_empty() && found.state == "running");
        let bad = "run: /var/service/a: (pid 312) 1s\n\
            down: /var/service/b: 0s, normally up, want up\n\
            finish: /var/service/c: (pid 7) 0s\n\
            fail: /var/service/d: unable to change to service directory: file does not exist\n\
            warning: /var/service/e: unable to open supervise/ok: file does not exist\n\
            run: /var/service/f: (pid 1) 8s\n";
        let found = units(bad).unwrap();
        assert_eq!((found.is_up, found.state.as_str(), found.failed.join("")), (false, "degraded", "abcde".into()));
        for strange in ["", "sh: 5: sv: not found\n", "run: x\n", "run: /var/service/x: (pid many) soon\n"] {
            assert_eq!(units(strange).unwrap_err().code(), Code::BadInput, "{strange:?}");
        }
    }

    /// Runs the script with an `sv` that prints these answers one after the other, the last one again and again, and a
    /// `sleep` that does not; gives the last line that was printed, and how often was looked.
    fn waited(answers: &[&str]) -> (String, usize) {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        for (n, answer) in answers.iter().enumerate() {
            write(&format!("answer.{n}"), answer);
        }
        let next = "#!/bin/sh\ncd \"$AT\"\nn=$(cat n)\ncat \"answer.$n\" && echo >>looks\n\
            [ -e \"answer.$((n + 1))\" ] && echo $((n + 1)) >n\nexit 0\n";
        write("n", "0");
        for (name, text) in [("sv", next), ("sleep", "#!/bin/sh\n"), ("script", PRINT_UNITS)] {
            write(name, text);
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(dir.path().join(name), mode).unwrap();
        }
        let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
        let cmd = Cmd::new("sh").arg(dir.path().join("script")).env("PATH", path).env("AT", dir.path());
        let printed = String::from_utf8(cmd.output(1 << 20).unwrap()).unwrap();
        let looks = std::fs::read_to_string(dir.path().join("looks")).unwrap().lines().count();
        (printed, looks)
    }

    #[test]
    fn a_startup_is_waited_for_and_one_without_end_is_not() {
        let young = "run: /var/service/a: (pid 1) 2s; run: log: (pid 2) 9s\ndown: /var/service/b: 1s\n";
        let settled = "run: /var/service/a: (pid 1) 13s; run: log: (pid 2) 19s\ndown: /var/service/b: 12s\n";
        assert_eq!(waited(&[young, young, settled]), (settled.into(), 3));
        assert_eq!(waited(&[settled]), (settled.into(), 1));
        let restarts = "run: /var/service/a: (pid 1) 0s\n";
        assert_eq!(waited(&[restarts]), (restarts.into(), 60));
        let down = "down: /var/service/a: 5s, normally up, want up\nrun: /var/service/b: (pid 1) 70s\n";
        assert_eq!(waited(&[down]), (down.into(), 60));
    }
}
