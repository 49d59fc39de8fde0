//! Other firewalls that drop what guests send to other networks: a chain at the forward hook whose policy is to drop, as Docker
//! gives its host's. What one chain accepts another still drops, so the network's own rules do not mend this.

use super::Caller;
use lib_common::doc::Check;
use lib_common::sys::cmd::Cmd;
use serde_json::Value;
use std::path::Path;

/// The most bytes of a ruleset that are looked at.
const MOST: u64 = 16 << 20;

/// The chains that drop what guests send, or `None` where the ruleset cannot be listed, which takes root.
pub(super) fn look(nft: &Path, bridge: &str) -> Option<Vec<Chain>> {
    let listed = Cmd::new(nft).args(["-j", "list", "ruleset"]).env("LC_ALL", "C").output(MOST).ok()?;
    Some(dropping(&serde_json::from_slice(&listed).ok()?, bridge))
}

/// A chain of nftables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    family: String,
    table: String,
    name: String,
}

impl Chain {
    fn of(object: &Value, name: &str) -> Option<Self> {
        let text = |key: &str| object[key].as_str().map(str::to_owned);
        Some(Chain { family: text("family")?, table: text("table")?, name: text(name)? })
    }

    /// The rules that let the bridge's packets pass, as one command.
    fn mend(&self, bridge: &str) -> String {
        let Chain { family, table, name } = self;
        let rule = |interface: &str| format!(r#"insert rule {family} {table} {name} {interface} "{bridge}" accept"#);
        format!("nft '{}; {}'", rule("iifname"), rule("oifname"))
    }
}

/// The chains of a ruleset that drop by their policy what comes from or goes to the bridge, as no rule of their table accepts it.
fn dropping(ruleset: &Value, bridge: &str) -> Vec<Chain> {
    let objects = ruleset["nftables"].as_array().map_or(&[][..], Vec::as_slice);
    let drops = |chain: &&Value| {
        let is_routed = matches!(chain["family"].as_str(), Some("ip" | "inet"));
        chain["hook"] == "forward" && chain["policy"] == "drop" && is_routed
    };
    let passes = |chain: &Chain, key: &str| {
        objects.iter().map(|object| &object["rule"]).any(|rule| {
            let is_of_table = rule["family"] == chain.family && rule["table"] == chain.table;
            is_of_table && accepts(rule, key, bridge)
        })
    };
    let chains = objects.iter().map(|object| &object["chain"]).filter(drops);
    let chains = chains.filter_map(|chain| Chain::of(chain, "name"));
    chains.filter(|chain| !["iifname", "oifname"].iter().all(|key| passes(chain, key))).collect()
}

/// True if a rule accepts what comes from (`iifname`) or goes to (`oifname`) the bridge, whatever else it asks for.
fn accepts(rule: &Value, key: &str, bridge: &str) -> bool {
    let parts = rule["expr"].as_array().map_or(&[][..], Vec::as_slice);
    let names = |part: &Value| {
        let is_key = part["match"]["op"] == "==" && part["match"]["left"]["meta"]["key"] == key;
        is_key && part["match"]["right"].as_str().is_some_and(|name| fits(name, bridge))
    };
    parts.iter().any(names) && parts.iter().any(|part| part.get("accept").is_some())
}

/// Whether an interface's name in a rule is that of the bridge; `*` at the end stands for anything.
fn fits(name: &str, bridge: &str) -> bool {
    name.strip_suffix('*').map_or(name == bridge, |start| bridge.starts_with(start))
}

pub(super) fn check(chains: Option<&[Chain]>, bridge: &str, caller: &Caller) -> Check {
    let Some(chains) = chains else {
        return Check::new("forward", true, "whether another firewall drops what guests send takes root to see", "");
    };
    let Some(first) = chains.first() else {
        return Check::new("forward", true, "no other firewall drops what guests send to other networks", "");
    };
    let Chain { family, table, name } = first;
    let message = format!(
        "the chain {name} of the table {family} {table} has the policy drop, as Docker sets it: guests with --nat reach no other networks"
    );
    let mend: Vec<String> = chains.iter().map(|chain| caller.sudo(&chain.mend(bridge))).collect();
    Check::could_be_better("forward", message, mend.join(" && "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ruleset(policy: &str, rules: &[Value]) -> Value {
        let chain = json!({"chain": {"family": "ip", "table": "filter", "name": "FORWARD", "handle": 1, "type": "filter",
            "hook": "forward", "prio": 0, "policy": policy}});
        let rule =
            |expr: &Value| json!({"rule": {"family": "ip", "table": "filter", "chain": "FORWARD", "expr": expr}});
        let all: Vec<Value> = [json!({"metainfo": {}}), chain].into_iter().chain(rules.iter().map(rule)).collect();
        json!({ "nftables": all })
    }

    fn rule(key: &str, name: &str, verdict: &str) -> Value {
        let left = json!({"meta": {"key": key}});
        json!([{"match": {"op": "==", "left": left, "right": name}}, {"counter": {}}, {verdict: null}])
    }

    #[test]
    fn a_policy_of_drop_is_named_unless_rules_let_the_bridge_pass() {
        let both = |name: &str, verdict: &str| [rule("iifname", name, verdict), rule("oifname", name, verdict)];
        for (policy, rules, drops) in [
            ("drop", vec![], true),
            ("accept", vec![], false),
            ("drop", both("bg-0", "accept").to_vec(), false),
            ("drop", both("bg-*", "accept").to_vec(), false),
            ("drop", both("docker0", "accept").to_vec(), true),
            ("drop", both("bg-0", "drop").to_vec(), true),
            ("drop", vec![rule("iifname", "bg-0", "accept")], true),
        ] {
            let found = dropping(&ruleset(policy, &rules), "bg-0");
            assert_eq!(!found.is_empty(), drops, "{policy} {rules:?}");
        }
        assert_eq!(dropping(&json!({}), "bg-0"), []);
        let user = Caller { name: "jo".into(), root: false };
        let found = dropping(&ruleset("drop", &[]), "bg-0");
        let fix = check(Some(&found), "bg-0", &user).fix.unwrap();
        let expected = r#"sudo nft 'insert rule ip filter FORWARD iifname "bg-0" accept; insert rule ip filter FORWARD oifname "bg-0" accept'"#;
        assert_eq!(fix, expected);
        assert!(check(Some(&[]), "bg-0", &user).fix.is_none() && check(None, "bg-0", &user).fix.is_none());
    }
}
