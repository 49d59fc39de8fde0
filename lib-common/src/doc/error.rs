//! `Error`: the last line of stderr of a tool that failed.

use super::API_VERSION;
use crate::error::{ChildFailure, Code, Error};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Why a tool failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ErrorDoc {
    /// `banger/v1`.
    pub api_version: String,
    /// `Error`.
    pub kind: String,
    /// The tool that failed.
    pub tool: String,
    /// A stable word; `banger(7)` lists them.
    pub code: String,
    /// The tool's exit status.
    pub exit: u8,
    /// One sentence.
    pub message: String,
    /// What lies beneath, outermost first.
    pub causes: Vec<String>,
    /// What to type or do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// For programs: strings by name, and `child` (argv, status, stderr) where a program failed.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub details: serde_json::Map<String, Value>,
}

/// A program that failed, as `details.child`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChildDoc {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// `exit 1`, `signal 9`.
    pub status: String,
    /// The last 1 KiB of its stderr.
    pub stderr: String,
}

impl ErrorDoc {
    /// The document for `error` in `tool`.
    pub fn new(tool: &str, error: &Error) -> Self {
        let mut details = serde_json::Map::new();
        for (key, value) in error.details() {
            details.insert(key.clone(), Value::from(value.as_str()));
        }
        if let Some(child) = error.get_child() {
            let doc = ChildDoc { argv: child.argv.clone(), status: child.status.clone(), stderr: child.stderr.clone() };
            details.insert("child".into(), serde_json::to_value(doc).expect("strings alone"));
        }
        ErrorDoc {
            api_version: API_VERSION.into(),
            kind: "Error".into(),
            tool: tool.into(),
            code: error.code().as_str().into(),
            exit: error.code().exit(),
            message: error.message().into(),
            causes: error.causes().to_vec(),
            hint: error.get_hint().map(str::to_owned),
            details,
        }
    }
}

/// The error as it was where it happened, for a tool that passes it on. A code of a newer suite is a bug of the pair.
impl From<ErrorDoc> for Error {
    fn from(doc: ErrorDoc) -> Self {
        let code = Code::ALL.iter().copied().find(|c| c.as_str() == doc.code).unwrap_or(Code::Internal);
        let mut error = doc.causes.into_iter().fold(Error::new(code, doc.message), Error::also);
        if let Some(hint) = doc.hint {
            error = error.hint(hint);
        }
        for (key, value) in doc.details {
            error = match (key.as_str(), value) {
                ("child", value) => match serde_json::from_value(value) {
                    Ok(ChildDoc { argv, status, stderr }) => error.child(ChildFailure { argv, status, stderr }),
                    Err(_) => error,
                },
                (_, Value::String(text)) => error.detail(&key, text),
                _ => error,
            };
        }
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_survives_its_way_through_a_pipe() {
        let child = ChildFailure { argv: vec!["a".into()], status: "exit 1".into(), stderr: "no".into() };
        let error = Error::new(Code::VmmFailed, "it died").also("so it was").hint("do this").detail("path", "/x");
        let doc = ErrorDoc::new("bg-test", &error.child(child));
        let back = ErrorDoc::new("bg-test", &Error::from(doc.clone()));
        assert_eq!(back, doc);
    }
}
