//! Every scenario of the corpus through `bg-rootfs` itself: which packages, in which order, from where; for installations
//! the tree, its owners and modes, and the package database; for failures that it fails, too, and why.

use super::data::{differences, dir, scenarios};
use super::tree::{self, Tree};
use crate::support::served::Served;
use crate::support::{Done, Sandbox};
use lib_common::timing::Stages;
use lib_image::build::void::{Recipe, plan};
use lib_xbps::location::Location;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Enough for a kernel that is not needed.
const NO_KERNEL: &str = r#"{"api_version":"banger/v1","kind":"Image"}"#;

fn command(repositories: &[String], wanted: &str, more: &[String]) -> Vec<String> {
    let fixed = ["build", "--distro", "void", "--arch", "x86_64", "--no-base", "--size", "64M", "--packages", wanted];
    let mut all: Vec<String> = fixed.iter().map(|word| (*word).to_owned()).collect();
    all.extend(repositories.iter().flat_map(|one| ["--repository".to_owned(), one.clone()]));
    all.extend(more.iter().cloned());
    all
}

/// A root file system of these packages and what they need.
pub fn build(sandbox: &Sandbox, repositories: &[String], wanted: &str, more: &[String]) -> Done {
    let args = command(repositories, wanted, more);
    sandbox.run("bg-rootfs", &args.iter().map(String::as_str).collect::<Vec<_>>(), NO_KERNEL)
}

/// The plan, without standard input.
fn planned(sandbox: &Sandbox, repositories: &[String], wanted: &str, more: &[String]) -> Done {
    let mut args = command(repositories, wanted, more);
    args.push("--dry-run=plan".into());
    sandbox.run("bg-rootfs", &args.iter().map(String::as_str).collect::<Vec<_>>(), "")
}

/// What one transaction is given.
struct Given {
    repositories: Vec<String>,
    wanted: String,
    more: Vec<String>,
}

fn strings(value: &Value) -> Vec<String> {
    let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().map(|one| one.as_str().unwrap().to_owned()).collect()
}

/// The options for a scenario or a step; `Err` names what banger has no option for.
fn given(scenario: &Value) -> Result<Given, String> {
    static SERVED: OnceLock<Served> = OnceLock::new();
    let remote = scenario["transport"] == "http";
    let place = |repository: String| {
        if remote {
            let served = SERVED.get_or_init(|| Served::directory(dir()));
            format!("http://127.0.0.1:{}/{repository}", served.port)
        } else {
            dir().join(repository).display().to_string()
        }
    };
    let mut more = vec![];
    for key in strings(&scenario["trusted_keys"]) {
        more.extend(["--key".into(), dir().join(format!("keys/{key}.plist")).display().to_string()]);
    }
    for line in strings(&scenario["config"]) {
        let provider = line.strip_prefix("virtualpkg=").ok_or(line.clone())?;
        more.extend(["--provider".into(), provider.to_owned()]);
    }
    more.extend(strings(&scenario["flags"]));
    let repositories = strings(&scenario["repositories"]).into_iter().map(place).collect();
    Ok(Given { repositories, wanted: strings(&scenario["request"]).join(","), more })
}

/// A plan as the corpus has it: packages, actions and the last part of their repositories.
fn plan_of(done: &Done) -> Vec<(String, String, String)> {
    let text = String::from_utf8(done.stdout.clone()).unwrap();
    let line = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        let word = |key: &str| line[key].as_str().unwrap().to_owned();
        let from = word("repository").rsplit('/').next().unwrap().to_owned();
        (word("pkgver"), word("action"), from)
    };
    text.lines().map(line).collect()
}

fn expected_plan(expect: &Value, repositories: &Value) -> Vec<(String, String, String)> {
    let packages = strings(&expect["packages_in_order"]);
    let (actions, from) = (strings(&expect["actions"]), strings(&expect["from"]));
    let only = strings(repositories).first().map_or(String::new(), |one| one.rsplit('/').next().unwrap().to_owned());
    let step = |(n, pkgver): (usize, String)| {
        let action = actions.get(n).cloned().unwrap_or_else(|| "install".into());
        (pkgver, action, from.get(n).cloned().unwrap_or_else(|| only.clone()))
    };
    packages.into_iter().enumerate().map(step).collect()
}

/// Compares one transaction's plan; whether it could be made.
fn compare_plan(id: &str, sandbox: &Sandbox, given: &Given, step: &Value) -> Result<bool, String> {
    let expect = &step["expect"];
    let real = expect.get("dry_run_exit").unwrap_or(&expect["exit"]).as_i64().unwrap();
    let done = planned(sandbox, &given.repositories, &given.wanted, &given.more);
    if real == 0 {
        if done.exit != 0 && expect["exit"] != 0 {
            // xbps says so later, when it installs.
            return Ok(false);
        }
        if done.exit != 0 {
            return Err(format!("refused: {}", done.stderr));
        }
        let (here, there) = (plan_of(&done), expected_plan(expect, &step["repositories"]));
        if here != there {
            return Err(format!("other packages: {here:?}, xbps {there:?}"));
        }
        return Ok(true);
    }
    if done.exit == 0 {
        return Err(format!("accepted: {:?}", plan_of(&done)));
    }
    let code = done.failed().code;
    let fits: &[&str] = match expect["error_kind"].as_str() {
        Some("not-found") => &["not_found", "bad_value"],
        Some("untrusted-key") => &["permission"],
        _ => &["bad_input", "not_found"],
    };
    assert!(fits.contains(&code.as_str()), "{id}: {done:?}");
    Ok(false)
}

/// Compares the root file system of an installation.
fn compare_root(id: &str, sandbox: &Sandbox, given: &Given, scenario: &Value) -> Result<(), String> {
    let expect = &scenario["expect"];
    let done = build(sandbox, &given.repositories, &given.wanted, &given.more);
    if done.exit != 0 && done.stderr.contains("needs a kernel") {
        return compare_unconfigured(id, sandbox, given, scenario);
    }
    match (expect["exit"].as_i64().unwrap(), done.exit) {
        (0, 0) => {}
        (0, _) => return Err(format!("refused: {}", done.stderr)),
        (_, 0) => return Err("accepted".into()),
        _ => return Ok(()),
    }
    let document: Value = serde_json::from_slice(&done.stdout).unwrap();
    let image = PathBuf::from(document["rootfs"]["path"].as_str().unwrap());
    compare_image(id, &image, scenario, "tree", &|_| false)
}

/// What the configure boot adds below, and what it needs.
const CONFIGURE: &str = "var/lib/banger";

/// A root whose packages have scripts, as it is before a guest runs them; and which scripts it will run.
fn compare_unconfigured(id: &str, sandbox: &Sandbox, given: &Given, scenario: &Value) -> Result<(), String> {
    let repositories = given.repositories.iter().map(|one| Location::parse(one).unwrap()).collect();
    let recipe = Recipe {
        arch: Some("x86_64".into()),
        size: 64 << 20,
        base: false,
        packages: vec![given.wanted.clone()],
        providers: vec![],
        staging: false,
        repositories,
        key: None,
        lock: None,
        update: false,
    };
    let mut stages = Stages::new("test", None);
    let made = plan(&recipe, &sandbox.path("cache"), &mut stages).unwrap().make(&mut stages).unwrap();
    let (there, _) = tree::of_corpus(&expected(scenario, "tree_without_scripts"));
    let system = ["root", "tmp", "proc", "sys", "dev", "run", "etc", "var/lib"];
    let is_ours = |path: &str| {
        let below = |dir: &str| path == dir || path.starts_with(&format!("{dir}/"));
        below(CONFIGURE)
            || path == "var/db/xbps/keys"
            || system.iter().any(|dir| below(dir) && !there.contains_key(path))
    };
    compare_image(id, &made.image(), scenario, "tree_without_scripts", &is_ours)?;
    let list = ext4_view::Ext4::load_from_path(made.image()).unwrap();
    let list = list.read_to_string(&*format!("/{CONFIGURE}/configure/list")).unwrap();
    let mut runs = vec![];
    for action in ["pre", "post"] {
        for line in list.lines() {
            let [_, name, version, arch] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
            runs.push(format!("{name} INSTALL {action} {name} {version} no no {arch}"));
        }
    }
    // Some scripts log something else.
    let logged: Vec<String> = strings(&scenario["expect"]["scripts"])
        .iter()
        .filter(|line| line.contains(" INSTALL "))
        .map(|line| line.split(' ').take(8).collect::<Vec<_>>().join(" "))
        .collect();
    let runs: Vec<&String> = runs.iter().filter(|line| !line.starts_with("scr-nl ")).collect();
    assert!(!logged.is_empty() && runs.len() >= logged.len(), "{id}: {runs:?}");
    assert_eq!(runs[..logged.len()], logged.iter().collect::<Vec<_>>()[..], "{id}");
    if scenario["expect"]["exit"] == 0 {
        assert_eq!(runs.len(), logged.len(), "{id}: {runs:?}");
    }
    Ok(())
}

fn expected(scenario: &Value, key: &str) -> PathBuf {
    let name = scenario["expect"][key].as_str().unwrap_or_else(|| panic!("{scenario} has no {key}"));
    dir().join("expected").join(name.rsplit('/').next().unwrap())
}

fn compare_image(
    id: &str,
    image: &Path,
    scenario: &Value,
    key: &str,
    is_ours: &dyn Fn(&str) -> bool,
) -> Result<(), String> {
    let is_written = |path: &str| {
        let name = path.strip_prefix("var/db/xbps/").unwrap_or_default();
        name == "pkgdb-0.38.plist" || name.starts_with('.') && name.ends_with("-files.plist")
    };
    let here: Tree =
        tree::of_image(image).into_iter().filter(|(path, _)| !is_written(path) && !is_ours(path)).collect();
    let (mut there, same) = tree::of_corpus(&expected(scenario, key));
    let mut here = here;
    for key in strings(&scenario["trusted_keys"]) {
        // The same key in another writer's text, unless a package has brought it.
        let path = format!("var/db/xbps/keys/{key}.plist");
        let is_same = here.get(&path).map(|columns| columns[..4].to_vec()) == there.get(&path).map(|c| c[..4].to_vec());
        if is_same && !id.contains("xbps-key") {
            here.remove(&path);
            there.remove(&path);
        }
    }
    let differs = |path: &&String| here.get(*path) != there.get(*path);
    let differing: std::collections::BTreeSet<&String> = here.keys().chain(there.keys()).filter(differs).collect();
    if !differing.is_empty() {
        let pairs: Vec<_> = differing.iter().map(|path| (path, here.get(*path), there.get(*path))).collect();
        return Err(format!("another tree: {pairs:?}"));
    }
    for (first, other) in same {
        assert_eq!(tree::inode(image, &first), tree::inode(image, &other), "{id}: {first} and {other} are one file");
    }
    if key == "tree" && scenario["expect"].get("pkgdb").is_some() {
        compare_database(id, image, scenario)?;
    }
    Ok(())
}

fn compare_database(id: &str, image: &Path, scenario: &Value) -> Result<(), String> {
    let fs = ext4_view::Ext4::load_from_path(image).unwrap();
    let text = fs.read("/var/db/xbps/pkgdb-0.38.plist").unwrap();
    let mut here = to_json(&plist::Value::from_reader_xml(&text[..]).unwrap());
    let there = std::fs::read_to_string(expected(scenario, "pkgdb")).unwrap();
    let mut there: Value = serde_json::from_str(&there).unwrap();
    for (name, entry) in here.as_object_mut().unwrap() {
        let digest = entry.as_object_mut().unwrap().remove("metafile-sha256");
        let real = there[name].as_object_mut().and_then(|entry| entry.remove("metafile-sha256"));
        assert_eq!(digest.is_some(), real.is_some(), "{id}: {name}");
        if let Some(digest) = digest {
            let file = fs.read(&*format!("/var/db/xbps/.{name}-files.plist")).unwrap();
            assert_eq!(digest, json!(lib_common::digest::of_bytes(&file).hex()), "{id}: {name}");
        }
    }
    if here != there {
        return Err(format!("another database: {here} and not {there}"));
    }
    let metafiles: Vec<String> = strings(&scenario["expect"]["metafiles"]);
    for name in &metafiles {
        assert!(fs.exists(&*format!("/var/db/xbps/.{name}-files.plist")).unwrap(), "{id}: {name}");
    }
    Ok(())
}

/// Property lists as the corpus writes them.
fn to_json(value: &plist::Value) -> Value {
    use base64::Engine as _;
    match value {
        plist::Value::Dictionary(all) => {
            let sorted: BTreeMap<&String, Value> = all.iter().map(|(key, value)| (key, to_json(value))).collect();
            Value::Object(sorted.into_iter().map(|(key, value)| (key.clone(), value)).collect())
        }
        plist::Value::Array(all) => all.iter().map(to_json).collect(),
        plist::Value::String(text) => json!(text),
        plist::Value::Boolean(value) => json!(value),
        plist::Value::Integer(number) => json!(number.as_unsigned().unwrap()),
        plist::Value::Data(bytes) => json!({"$data": base64::engine::general_purpose::STANDARD.encode(bytes)}),
        other => panic!("{other:?}"),
    }
}

/// One scenario: `Ok` where it is as with xbps.
fn compare(sandbox: &Sandbox, scenario: &Value) -> Result<(), String> {
    let id = scenario["id"].as_str().unwrap();
    if let Some(steps) = scenario["steps"].as_array() {
        // Updates and removals are the guest's own xbps' work.
        compare_plan(id, sandbox, &given(&steps[0])?, &steps[0])?;
        return Err("first step".into());
    }
    let given = given(scenario).map_err(|line| format!("no option: {line}"))?;
    let is_possible = compare_plan(id, sandbox, &given, scenario)?;
    if scenario["kind"] == "install" && is_possible {
        return compare_root(id, sandbox, &given, scenario);
    }
    Ok(())
}

#[test]
fn every_scenario_ends_as_with_the_real_tools_or_as_the_manual_says() {
    let differences = differences();
    let all = scenarios();
    assert_eq!(all.len(), 180);
    let (mut wrong, mut differ) = (vec![], vec![]);
    for scenario in &all {
        let id = scenario["id"].as_str().unwrap();
        // Each with a cache of its own: what is there by its digest already is not fetched and judged anew.
        let here = compare(&Sandbox::new(), scenario);
        match (differences.get(id), &here) {
            (None, Ok(())) => {}
            (None, Err(how)) => wrong.push(format!("{id}: {how}")),
            (Some(expected), Err(how)) if how.starts_with(expected.as_str()) => differ.push(id),
            (Some(expected), how) => wrong.push(format!("{id}: docs/void.md says {expected}; {how:?}")),
        }
    }
    assert!(wrong.is_empty(), "{} scenarios:\n{}", wrong.len(), wrong.join("\n"));
    let listed = differences.keys().filter(|id| !id.starts_with("h-")).count();
    assert_eq!(listed, differ.len(), "the table in docs/void.md has rows for no scenario");
}
