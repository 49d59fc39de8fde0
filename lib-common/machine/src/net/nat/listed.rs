//! The table as it is in the kernel: whether it is there, whose it is, whether it is whole, and which
//! uplinks it guards.

use super::{COMMENT, TABLE, table};
use lib_common::doc::{NetworkRecord, to_json};
use lib_common::error::{Code, Error, Result};
use lib_common::sys::cmd::Cmd;
use lib_common::sys::netlink::nftables::has_inet_table;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// What nft(8) says of a table that is not there.
const NO_TABLE: &str = "No such file or directory";
/// A table of ours has some forty rules.
const MOST_OF_TABLE: u64 = 1 << 20;

/// The rules of the table, as nft(8) lists them.
#[derive(Clone, Debug, Default)]
pub struct Listed(Vec<Value>);

/// Whether the table is there, as far as the caller may know. No program is started.
pub fn is_there() -> bool {
    // What cannot be looked at for another reason may be there.
    has_inet_table(TABLE).unwrap_or_else(|e| Error::from(e).code() != Code::Permission)
}

/// Whether it is known that the table is not there.
pub fn is_gone() -> bool {
    has_inet_table(TABLE).is_ok_and(|there| !there)
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
        let listed: Value = serde_json::from_slice(text)
            .map_err(|e| Error::new(Code::CommandFailed, "nft prints no JSON").because(&e))?;
        let objects = listed["nftables"].as_array().into_iter().flatten();
        Ok(Listed(objects.filter_map(|object| object.get("rule")).cloned().collect()))
    }

    /// Whose rules they are: the names of bridges, by the rules' comments.
    pub fn owners(&self) -> BTreeSet<String> {
        self.0.iter().filter_map(owner).map(str::to_owned).collect()
    }

    /// Whether they are what `up` makes for that network. To which networks the host was connected then is not known: there
    /// may be more rules that keep guests with NAT from one than there would be now.
    pub fn is_whole(&self, network: &NetworkRecord) -> bool {
        let Ok(Listed(wanted)) = Listed::given(network) else { return false };
        let (wanted, found) = (count(&wanted), count(&self.0));
        let may_have_more = |sort: &Sort<'_>| !network.uplinks.is_empty() && sort.verdict == BLOCK;
        wanted.keys().eq(found.keys())
            && wanted
                .iter()
                .zip(&found)
                .all(|((sort, wanted), (_, found))| found == wanted || (found > wanted && may_have_more(sort)))
    }

    /// The rules that `up` gives to nft, but for those that depend on where the host is connected.
    fn given(network: &NetworkRecord) -> Result<Self> {
        let batch: Value = serde_json::from_str(&to_json(&table(network, &[], &[])))
            .map_err(|e| Error::new(Code::Internal, "a table is no JSON").because(&e))?;
        let added = batch["nftables"].as_array().into_iter().flatten().filter_map(|object| object["add"].get("rule"));
        Ok(Listed(added.cloned().collect()))
    }

    /// The uplinks on which forwarding was off before it was switched on for guests: those that a rule keeps others from.
    pub fn guarded(&self) -> Vec<String> {
        self.0.iter().filter_map(guarded).map(str::to_owned).collect()
    }
}

/// What rules are counted by.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Sort<'a> {
    chain: &'a str,
    /// Whose rule it is.
    comment: &'a str,
    verdict: &'a str,
}

/// The verdict of a rule that drops what goes to one network.
const BLOCK: &str = "block";

fn count(rules: &[Value]) -> BTreeMap<Sort<'_>, usize> {
    let mut counts = BTreeMap::new();
    for rule in rules {
        *counts.entry(sort(rule)).or_default() += 1;
    }
    counts
}

fn sort(rule: &Value) -> Sort<'_> {
    let text = |field: &str| rule[field].as_str().unwrap_or_default();
    let parts = rule["expr"].as_array().map_or(&[][..], Vec::as_slice);
    let last = parts.last().and_then(|verdict| verdict.as_object()?.keys().next());
    let verdict = last.map_or("", String::as_str);
    let to_network = |part: &Value| part["match"]["left"]["payload"]["field"] == "daddr" && part["match"]["op"] == "==";
    let blocks = verdict == "drop" && parts.iter().any(to_network);
    Sort { chain: text("chain"), comment: text("comment"), verdict: if blocks { BLOCK } else { verdict } }
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
