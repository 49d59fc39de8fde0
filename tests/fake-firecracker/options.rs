//! The command line.

use std::path::PathBuf;

/// What was asked for.
#[derive(Debug, Default)]
pub struct Options {
    pub id: String,
    pub api_sock: PathBuf,
    pub config_file: PathBuf,
    pub log_path: Option<PathBuf>,
    pub level: Option<String>,
    pub show_level: bool,
}

/// Options that are known and change nothing here.
const FLAGS: [&str; 2] = ["--boot-timer", "--show-log-origin"];

impl Options {
    /// Reads the arguments; the error is of those that are not known.
    pub fn parse(args: &[String]) -> Result<Self, String> {
        let mut options = Options { id: "anonymous-instance".into(), ..Options::default() };
        let mut args = args.iter();
        while let Some(name) = args.next() {
            let mut value = || {
                args.next()
                    .cloned()
                    .ok_or_else(|| format!("The argument '{name}' requires a value, but none was supplied."))
            };
            match name.as_str() {
                "--id" => options.id = value()?,
                "--api-sock" => options.api_sock = value()?.into(),
                "--config-file" => options.config_file = value()?.into(),
                "--log-path" => options.log_path = Some(value()?.into()),
                "--level" => options.level = Some(value()?),
                "--show-level" => options.show_level = true,
                flag if FLAGS.contains(&flag) => {}
                other => {
                    return Err(format!(
                        "Found argument '{other}' which wasn't expected, or isn't valid in this context."
                    ));
                }
            }
        }
        Ok(options)
    }

    /// Why the id is none.
    pub fn check_id(&self) -> Result<(), String> {
        let fits = (1..=64).contains(&self.id.len()) && self.id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if fits { Ok(()) } else { Err(format!("Invalid instance ID `{}`", self.id)) }
    }
}
