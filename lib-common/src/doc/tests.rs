use super::*;

fn parse(text: &str) -> Result<Document> {
    Document::parse(text.as_bytes(), Kind::Image)
}

const HEAD: &str = r#""api_version":"banger/v1","kind":"Image","name":"debian""#;

#[test]
fn foreign_sections_keep_their_bytes_and_order() {
    let line = format!(r#"{{{HEAD},"z":{{"n":12345678901234567890123.4500,"a" : [1e400, -0]}},"b":"\u0041\/"}}"#);
    let mut doc = parse(&line).unwrap();
    assert_eq!(doc.to_line(), line);
    doc.append_timings(&[Timing { tool: "t".into(), stage: "s".into(), ms: 1.5 }]).unwrap();
    let with = format!(r#"{},"timings":[{{"tool":"t","stage":"s","ms":1.5}}]}}"#, line.strip_suffix('}').unwrap());
    assert_eq!(doc.to_line(), with);
}

#[test]
fn a_pretty_printed_document_becomes_one_line_and_strings_keep_their_blanks() {
    let doc = parse(&format!("{{{HEAD},\n \"x\": {{\n  \"a b\\\"\": \"c \\\" d\"\n }}}}")).unwrap();
    assert!(doc.to_line().ends_with(r#""x":{"a b\"":"c \" d"}}"#), "{}", doc.to_line());
}

#[test]
fn what_is_not_one_document_of_the_right_kind_is_refused() {
    for (text, why) in [
        (String::new(), "ends too early"),
        (format!("{{{HEAD}}} x"), "not a document"),
        (format!("{{{HEAD},\"name\":\"b\"}}"), "not a document"),
        (r#"{"api_version":"banger/v9","kind":"Image"}"#.into(), "known: `banger/v1`"),
        (r#"{"kind":"Image"}"#.into(), "no `api_version`"),
        (r#"{"api_version":"banger/v1","kind":"Machine"}"#.into(), "`Image` is needed"),
        (r#"{"api_version":7,"kind":"Image"}"#.into(), "not a string"),
        ("[]".into(), "not a document"),
    ] {
        let e = parse(&text).unwrap_err();
        assert!(e.message().contains(why), "{text}: {e}");
        assert_eq!(e.code(), Code::BadDocument);
    }
}

#[test]
fn an_unknown_field_is_named_with_its_nearest() {
    let doc = parse(&format!(r#"{{{HEAD},"rootfs":{{"distro":"debian","relase":"bookworm"}}}}"#)).unwrap();
    let e = doc.section::<Rootfs>().unwrap_err();
    assert!(e.causes()[0].contains("relase"), "{e:?}");
    assert_eq!(e.get_hint(), Some("did you mean `release`?"));
}

#[test]
fn a_missing_section_names_its_tool() {
    let e = parse(&format!("{{{HEAD}}}")).unwrap().require::<Kernel>().unwrap_err();
    assert_eq!(e.get_hint(), Some("`bg-kernel` writes it"));
}

#[test]
fn no_prefix_of_a_document_is_one() {
    let line = format!(r#"{{{HEAD},"rootfs":{{"distro":"debian"}}}}"#);
    for end in 0..line.len() {
        assert!(parse(&line[..end]).is_err(), "{}", &line[..end]);
    }
}

#[test]
fn one_tools_timings_are_replaced_and_the_others_keep_their_bytes() {
    let timings = |list: &str| parse(&format!(r#"{{{HEAD},"timings":[{list}]}}"#)).unwrap();
    let (other, odd) = (r#"{"tool":"x", "stage":"guest","ms":1.50}"#, r#"{"tool":"guest","more":1}"#);
    let mut doc = timings(&format!(r#"{other},{{"tool":"guest","stage":"old","ms":1}},{odd}"#));
    doc.replace_timings("guest", &[Timing { tool: "guest".into(), stage: "new".into(), ms: 2.0 }]).unwrap();
    let new = r#"{"tool":"guest","stage":"new","ms":2.0}"#;
    assert_eq!(doc.to_line(), timings(&format!("{other},{odd},{new}")).to_line());
    let mut given = timings(other);
    given.adopt_timings(&doc, "guest").unwrap();
    assert_eq!(given.to_line(), timings(&format!("{other},{new}")).to_line());
    given.replace_timings("guest", &[]).unwrap();
    assert_eq!(given.to_line(), timings(other).to_line());
    let mut without = parse(&format!("{{{HEAD}}}")).unwrap();
    without.replace_timings("guest", &[]).unwrap();
    assert!(!without.has("timings"));
}

#[test]
fn timings_are_taken_out_however_their_tool_is_spelled_and_what_is_no_list_is_told() {
    let timings = |value: &str| parse(&format!(r#"{{{HEAD},"timings":{value}}}"#)).unwrap();
    for tool in ["guest", r"\u0067uest"] {
        let mut doc = timings(&format!(r#"[{{"tool":"{tool}","stage":"old","ms":1}}]"#));
        doc.replace_timings("guest", &[]).unwrap();
        assert_eq!(doc.to_line(), timings("[]").to_line(), "{tool}");
    }
    assert_eq!(timings("7").replace_timings("guest", &[]).unwrap_err().code(), Code::BadDocument);
}
