//! What Firecracker's API takes, as tables: written from its documentation (firecracker.yaml of 1.17), definition by
//! definition, under the names that it has there. Stricter than that in one thing: a field that is not there is refused.

use serde_json::Value;

/// A property of an object.
pub struct Field {
    name: &'static str,
    kind: Kind,
    required: bool,
    /// The minor version of Firecracker 1 that has it first.
    since: u32,
}

/// What a value may be.
#[derive(Clone, Copy)]
pub enum Kind {
    Text,
    /// A text with this many characters at most.
    Short(usize),
    /// `aa:bb:cc:dd:ee:ff`.
    Mac,
    Bool,
    /// From and to.
    Number(u64, u64),
    OneOf(&'static [&'static str]),
    Object(&'static [Field]),
    Array(&'static [Field]),
    Texts,
    TextMap,
    /// Any object: its parts are nothing that the suite sends.
    Anything,
}

use Kind::{Anything, Array, Bool, Mac, Number, Object, OneOf, Short, Text, TextMap, Texts};

const ANY: u64 = u64::MAX;

const fn must(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, required: true, since: 0 }
}

const fn may(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, required: false, since: 0 }
}

const fn since(since: u32, name: &'static str, kind: Kind) -> Field {
    Field { name, kind, required: false, since }
}

const TOKEN_BUCKET: &[Field] =
    &[may("one_time_burst", Number(0, ANY)), must("refill_time", Number(0, ANY)), must("size", Number(0, ANY))];

const RATE_LIMITER: &[Field] = &[may("bandwidth", Object(TOKEN_BUCKET)), may("ops", Object(TOKEN_BUCKET))];

const BOOT_SOURCE: &[Field] =
    &[may("boot_args", Short(2047)), may("initrd_path", Text), must("kernel_image_path", Text)];

const DRIVE: &[Field] = &[
    must("drive_id", Text),
    may("partuuid", Text),
    must("is_root_device", Bool),
    may("cache_type", OneOf(&["Unsafe", "Writeback"])),
    // Required for virtio-block, which is the only kind that the suite has.
    must("is_read_only", Bool),
    must("path_on_host", Text),
    may("rate_limiter", Object(RATE_LIMITER)),
    may("io_engine", OneOf(&["Sync", "Async"])),
];

const MACHINE_CONFIGURATION: &[Field] = &[
    may("cpu_template", OneOf(&["C3", "T2", "T2S", "T2CL", "T2A", "V1N1", "None"])),
    may("smt", Bool),
    must("mem_size_mib", Number(1, ANY)),
    may("track_dirty_pages", Bool),
    must("vcpu_count", Number(1, 32)),
    may("huge_pages", OneOf(&["None", "2M"])),
];

const NETWORK_INTERFACE: &[Field] = &[
    may("guest_mac", Mac),
    must("host_dev_name", Short(15)),
    must("iface_id", Text),
    since(17, "mtu", Number(68, 65_535)),
    may("rx_rate_limiter", Object(RATE_LIMITER)),
    may("tx_rate_limiter", Object(RATE_LIMITER)),
];

const VSOCK: &[Field] =
    &[must("guest_cid", Number(3, 0xffff_ffff)), must("uds_path", Short(107)), may("vsock_id", Text)];

const LOGGER: &[Field] = &[
    may("level", OneOf(&["Error", "Warning", "Info", "Debug", "Trace", "Off"])),
    may("log_path", Text),
    may("show_level", Bool),
    may("show_log_origin", Bool),
    may("module", Text),
];

const METRICS: &[Field] = &[must("metrics_path", Text), since(17, "emit_id", Bool), since(17, "properties", TextMap)];

const MMDS_CONFIG: &[Field] = &[
    may("version", OneOf(&["V1", "V2"])),
    must("network_interfaces", Texts),
    may("ipv4_address", Text),
    since(17, "imds_compat", Bool),
];

/// The file that `--config-file` names.
pub const FULL_VM_CONFIGURATION: &[Field] = &[
    may("balloon", Anything),
    // Without these two there is nothing to boot.
    must("drives", Array(DRIVE)),
    must("boot-source", Object(BOOT_SOURCE)),
    may("cpu-config", Anything),
    may("logger", Object(LOGGER)),
    may("machine-config", Object(MACHINE_CONFIGURATION)),
    may("metrics", Object(METRICS)),
    may("mmds-config", Object(MMDS_CONFIG)),
    may("network-interfaces", Array(NETWORK_INTERFACE)),
    may("vsock", Object(VSOCK)),
    may("entropy", Object(&[may("rate_limiter", Object(RATE_LIMITER))])),
];

/// The body of `PUT /actions`.
pub const INSTANCE_ACTION_INFO: &[Field] =
    &[must("action_type", OneOf(&["FlushMetrics", "InstanceStart", "SendCtrlAltDel"]))];

/// Checks an object, for that version of Firecracker. The error names the place.
pub fn check(value: &Value, fields: &[Field], version: &str) -> Result<(), String> {
    let minor = version.split('.').nth(1).and_then(|n| n.parse().ok()).ok_or("the version is none")?;
    object(value, fields, minor, "")
}

fn object(value: &Value, fields: &[Field], minor: u32, at: &str) -> Result<(), String> {
    let object = value.as_object().ok_or_else(|| format!("`{at}` is no object"))?;
    for key in object.keys() {
        let known = fields.iter().any(|f| f.name == key && f.since <= minor);
        if !known {
            return Err(format!("unknown field `{at}/{key}`"));
        }
    }
    for field in fields {
        let place = format!("{at}/{}", field.name);
        match object.get(field.name) {
            Some(value) => one(value, field.kind, minor, &place)?,
            None if field.required => return Err(format!("missing field `{place}`")),
            None => {}
        }
    }
    Ok(())
}

fn one(value: &Value, kind: Kind, minor: u32, at: &str) -> Result<(), String> {
    let fits = match kind {
        Object(fields) => return object(value, fields, minor, at),
        Array(fields) => {
            let items = value.as_array().ok_or_else(|| format!("`{at}` is no array"))?;
            return items.iter().enumerate().try_for_each(|(i, v)| object(v, fields, minor, &format!("{at}/{i}")));
        }
        Text => value.as_str().is_some_and(|s| !s.is_empty()),
        Short(most) => value.as_str().is_some_and(|s| (1..=most).contains(&s.len())),
        Mac => value.as_str().is_some_and(|s| {
            let pairs: Vec<&str> = s.split(':').collect();
            pairs.len() == 6 && pairs.iter().all(|p| p.len() == 2 && u8::from_str_radix(p, 16).is_ok())
        }),
        Bool => value.is_boolean(),
        Number(from, to) => value.as_u64().is_some_and(|n| (from..=to).contains(&n)),
        OneOf(words) => value.as_str().is_some_and(|s| words.contains(&s)),
        Texts => value.as_array().is_some_and(|a| a.iter().all(Value::is_string)),
        TextMap => value.as_object().is_some_and(|o| o.values().all(Value::is_string)),
        Anything => value.is_object(),
    };
    if fits { Ok(()) } else { Err(format!("`{at}` may not be {value}")) }
}
