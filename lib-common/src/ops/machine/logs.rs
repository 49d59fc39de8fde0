//! logs: the serial console, as the guest wrote it. It is no document, and it is not to be trusted.

use super::is_running;
use crate::cli::{Answer, Context};
use crate::doc::Name;
use crate::error::{Code, Error, Result};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::time::Duration;

/// What `bg-vm logs` takes.
#[derive(Clone, Debug)]
pub struct LogsArgs {
    /// The VM.
    pub name: Name,
    /// Go on until the VM ends.
    pub follow: bool,
}

/// `bg-vm logs`. On a terminal control characters but line feed and tab are escaped.
pub fn logs(cx: &mut Context<'_>, args: &LogsArgs) -> Result<Answer> {
    cx.stages.hide();
    let machine = cx.store().machine(&args.name)?;
    let path = machine.console();
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Answer::Done),
        Err(e) => return Err(Error::io("read", &path, &e)),
    };
    let mut buffer = vec![0; 64 << 10];
    loop {
        let running = args.follow && is_running(&machine.current()?)?;
        loop {
            // The console is capped by emptying it from its start: then the place where we were is past its end.
            if file.stream_position()? > file.metadata()?.len() {
                file.seek(SeekFrom::Start(0))?;
            }
            let n = file.read(&mut buffer).map_err(|e| Error::io("read", &path, &e))?;
            if n == 0 {
                break;
            }
            let escape = cx.stdout_is_terminal;
            let out = cx.raw_stdout();
            let written =
                if escape { out.write_all(escaped(&buffer[..n]).as_bytes()) } else { out.write_all(&buffer[..n]) };
            written
                .and_then(|()| out.flush())
                .map_err(|e| Error::new(Code::ClosedStdout, "nobody reads the output").because(&e))?;
        }
        if !running {
            return Ok(Answer::Done);
        }
        crate::sys::signal::check()?;
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn escaped(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes).replace("\r\n", "\n");
    let keep = |c: char| !c.is_control() || c == '\n' || c == '\t';
    text.chars().map(|c| if keep(c) { c.to_string() } else { c.escape_default().to_string() }).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_guest_cannot_drive_the_terminal() {
        assert_eq!(super::escaped(b"ok\r\n\tx\x1b]0;evil\x07\xff\r"), "ok\n\tx\\u{1b}]0;evil\\u{7}\u{fffd}\\r");
    }
}
