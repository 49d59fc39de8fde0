//! The documents' types and their JSON Schemas in schemas/ are the same thing, and a document's foreign sections pass
//! through a filter byte for byte, whatever they hold.

use crate::support::fixture::FOREIGN;
use crate::support::source::{children_of, root};
use crate::support::{Sandbox, Terminals, updating};
use lib_common::doc::{
    Bench, BenchDiff, Bundle, ErrorDoc, Finding, Health, Image, ImageDiff, Kind, Machine, ManifestEntry, Network,
    PlanEntry, PortInfo, Registered, Report, Setting, TapInfo,
};
use lib_tools::cli::{Answer, Source};
use proptest::prelude::*;
use schemars::{JsonSchema, schema_for};

fn schema<T: JsonSchema>() -> String {
    format!("{}\n", serde_json::to_string_pretty(&schema_for!(T)).unwrap())
}

#[test]
fn the_committed_schemas_are_those_of_the_types() {
    let schemas = [
        ("bench-diff.json", schema::<BenchDiff>()),
        ("bench.json", schema::<Bench>()),
        ("bundle.json", schema::<Bundle>()),
        ("error.json", schema::<ErrorDoc>()),
        ("finding.json", schema::<Finding>()),
        ("health.json", schema::<Health>()),
        ("image-diff.json", schema::<ImageDiff>()),
        ("image.json", schema::<Image>()),
        ("machine.json", schema::<Machine>()),
        ("manifest-entry.json", schema::<ManifestEntry>()),
        ("network.json", schema::<Network>()),
        ("plan-entry.json", schema::<PlanEntry>()),
        ("port.json", schema::<PortInfo>()),
        ("report.json", schema::<Report>()),
        ("setting.json", schema::<Setting>()),
        ("tap.json", schema::<TapInfo>()),
    ];
    for (file, generated) in &schemas {
        let path = root("schemas").join(file);
        if updating() {
            std::fs::write(&path, generated).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == *generated,
            "{} is not what the types say; BG_UPDATE=1 cargo test writes it",
            path.display()
        );
    }
    let expected: Vec<&str> = schemas.iter().map(|(file, _)| *file).collect();
    assert_eq!(children_of("schemas"), expected, "schemas/ has the schema of every document and nothing else");
}

/// Any JSON value as text, with blanks where they are allowed.
fn json_text() -> impl Strategy<Value = String> {
    let number = prop_oneof![
        "-?(0|[1-9][0-9]{0,30})",
        "-?(0|[1-9][0-9]{0,20})\\.[0-9]{1,20}",
        "-?[1-9][0-9]{0,3}[eE][+-]?[0-9]{1,3}",
    ];
    let leaf = prop_oneof![
        number,
        string_text(),
        prop_oneof![Just("true".to_owned()), Just("false".to_owned()), Just("null".to_owned())]
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let list = (prop::collection::vec(inner.clone(), 0..4), blank())
            .prop_map(|(items, blank)| format!("[{blank}{}{blank}]", items.join(&format!("{blank},"))));
        let object = (prop::collection::vec((string_text(), inner), 0..4), blank()).prop_map(|(fields, blank)| {
            let fields: Vec<String> = fields.iter().map(|(key, value)| format!("{key}{blank}:{value}")).collect();
            format!("{{{blank}{}}}", fields.join(&format!(",{blank}")))
        });
        prop_oneof![list, object]
    })
}

fn blank() -> impl Strategy<Value = String> {
    "[ \\t]{0,2}"
}

/// A JSON string with characters as they are and as escapes.
fn string_text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        "[a-zA-Z0-9 éß{}\\[\\]:,]{0,6}",
        Just("\\u0041".to_owned()),
        Just("\\/".to_owned()),
        Just("\\\"".to_owned()),
        Just("\\\\".to_owned()),
        Just("\\n".to_owned()),
        Just("\\ud83d\\ude00".to_owned()),
    ];
    prop::collection::vec(part, 0..4).prop_map(|parts| format!("\"{}\"", parts.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn foreign_sections_pass_through_byte_for_byte(values in prop::collection::vec(json_text(), 1..5)) {
        let sections: Vec<String> = values.iter().enumerate().map(|(n, value)| format!("\"s{n}\":{value}")).collect();
        let head = r#""api_version":"banger/v1","kind":"Image","name":"a""#;
        let line = format!("{{{head},{},{FOREIGN}}}", sections.join(","));
        let done = Sandbox::new().inside(
            |_, cx| {
                let mut doc = cx.document(&Source::default(), Kind::Image)?;
                doc.set(&Registered { at: "now".into(), files: Default::default() });
                cx.emit(doc)?;
                Ok(Answer::Done)
            },
            line.as_bytes(),
            Terminals::default(),
        );
        let out = done.ok();
        let body = line.strip_suffix('}').unwrap();
        prop_assert!(out.starts_with(&format!("{body},\"registered\":{{\"at\":\"now\"}},\"timings\":[")), "{}\n{}", line, out);
        prop_assert_eq!(out.matches('\n').count(), 1);
    }
}
