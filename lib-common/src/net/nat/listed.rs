//! The table as it is in the kernel: whether it is there, whose it is, and which uplinks it guards.

use super::{COMMENT, TABLE};
use crate::error::{Code, Error, Result};
use crate::sys::cmd::Cmd;
use crate::sys::netlink::nftables::has_inet_table;
use serde_json::Value;
use std::collections::BTreeSet;

/// What nft(8) says of a table that is not there.
const NO_TABLE: &str = "No such file or directory";
/// A table of ours has some forty rules.
const MOST_OF_TABLE: u64 = 1 << 20;

/// The rules of the table, as nft(8) lists them.
#[derive(Clone, Debug, Default)]
pub struct Listed(Vec<Value>);

/// Whether the table is there, as far as the caller may know. No program is started.
pub fn is_there() -> bool {
    match has_inet_table(TABLE) {
        Ok(there) => there,
        // What cannot be looked at for another reason may be there.
        Err(e) => Error::from(e).code() != Code::Permission,
    }
}

/// The table; `None` where there is none. Takes root.
pub fn list() -> Result<Option<Listed>> {
    if !has_inet_table(TABLE).map_err(|e| Error::from(e).within("cannot ask for nftables"))? {
        return Ok(None);
    }
    let listed = Cmd::new("nft").args(["-j", "list", "table", "inet", TABLE]).env("LC_ALL", "C").output(MOST_OF_TABLE);
    let text = match listed {
        Err(e) if e.get_child().is_some_and(|nft| nft.stderr.contains(NO_TABLE)) => return Ok(None),
        other => other?,
    };
    Listed::parse(&text).map(Some)
}

impl Listed {
    fn parse(text: &[u8]) -> Result<Self> {
        let listed: Value =
            serde_json::from_slice(text).map_err(|e| Error::new(Code::CommandFailed, "nft prints no JSON").because(&e))?;
        let objects = listed["nftables"].as_array().into_iter().flatten();
        Ok(Listed(objects.filter_map(|object| object.get("rule")).cloned().collect()))
    }

    /// Whose rules they are: the names of bridges, by the rules' comments.
    pub fn owners(&self) -> BTreeSet<String> {
        self.0.iter().filter_map(owner).map(str::to_owned).collect()
    }

    /// The uplinks on which forwarding was off before it was switched on for guests: those that a rule keeps others from.
    pub fn guarded(&self) -> Vec<String> {
        self.0.iter().filter_map(guarded).map(str::to_owned).collect()
    }
}

/// The bridge of a rule of ours.
fn owner(rule: &Value) -> Option<&str> {
    rule["comment"].as_str()?.strip_prefix(COMMENT)
}

/// The interface from which a rule of ours drops everything, unless that is its bridge.
fn guarded(rule: &Value) -> Option<&str> {
    let [test, verdict] = rule["expr"].as_array()?.as_slice() else { return None };
    let test = &test["match"];
    let drops = verdict.get("drop").is_some() && test["left"]["meta"]["key"] == "iifname" && test["op"] == "==";
    let interface = test["right"].as_str().filter(|_| drops)?;
    (rule["chain"] == "forward" && owner(rule)? != interface).then_some(interface)
}

#[cfg(test)]
mod tests;
