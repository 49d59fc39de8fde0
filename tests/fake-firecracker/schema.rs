//! What Firecracker's API takes, as tables: written from its documentation (firecracker.yaml of 1.17), definition by
//! definition, under the names that it has there, and from what a real one took and refused (`tests/firecracker-real`): unknown fields
//! are refused but for those of the whole and of `metrics`, which are ignored, and `null` is nothing given where that is so.

use serde_json::{Map, Value};

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
    /// A text with this many bytes at most, which may be empty.
    Short(usize),
    /// `aa:bb:cc:dd:ee:ff`.
    Mac,
    Bool,
    /// From and to.
    Number(u64, u64),
    OneOf(&'static [&'static str]),
    Object(&'static [Field]),
    /// The same, where `null` is as if it were not there.
    OrNull(&'static [Field]),
    /// The same, where fields that are not known are ignored.
    Open(&'static [Field]),
    Array(&'static [Field]),
    Texts,
    TextMap,
    /// Any object: its parts are nothing that the suite sends.
    Anything,
}

use Kind::{Anything, Array, Bool, Mac, Number, Object, OneOf, Open, OrNull, Short, Text, TextMap, Texts};

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
    must("drive_id", Short(ANY as usize)),
    may("partuuid", Text),
    must("is_root_device", Bool),
    may("cache_type", OneOf(&["Unsafe", "Writeback"])),
    may("is_read_only", Bool),
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
    may("huge_pages", OneOf(&["None", "2M", "Transparent"])),
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
    &[must("guest_cid", Number(0, 0xffff_ffff)), must("uds_path", Short(107)), may("vsock_id", Text)];

const LOGGER: &[Field] = &[
    // A word in whatever case: `Log::set_level` knows them.
    may("level", Text),
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

const BALLOON: &[Field] = &[
    must("amount_mib", Number(0, 0xffff_ffff)),
    must("deflate_on_oom", Bool),
    may("stats_polling_interval_s", Number(0, 0xffff)),
    may("free_page_hinting", Bool),
    may("free_page_reporting", Bool),
];

/// The file that `--config-file` names.
const FULL_VM_CONFIGURATION: &[Field] = &[
    may("balloon", OrNull(BALLOON)),
    // Without these two there is nothing to boot.
    must("drives", Array(DRIVE)),
    must("boot-source", Object(BOOT_SOURCE)),
    may("cpu-config", Anything),
    may("logger", OrNull(LOGGER)),
    may("machine-config", OrNull(MACHINE_CONFIGURATION)),
    may("metrics", Open(METRICS)),
    may("mmds-config", OrNull(MMDS_CONFIG)),
    may("network-interfaces", Array(NETWORK_INTERFACE)),
    may("vsock", OrNull(VSOCK)),
    may("entropy", OrNull(&[may("rate_limiter", Object(RATE_LIMITER))])),
];

/// Checks the configuration file.
pub fn check_configuration(value: &Value, version: &str) -> Result<(), String> {
    open(value, FULL_VM_CONFIGURATION, minor(version)?, "")
}

fn minor(version: &str) -> Result<u32, String> {
    version.split('.').nth(1).and_then(|n| n.parse().ok()).ok_or_else(|| "the version is none".into())
}

/// The body of `PUT /actions`.
pub const INSTANCE_ACTION_INFO: &[Field] =
    &[must("action_type", OneOf(&["FlushMetrics", "InstanceStart", "SendCtrlAltDel"]))];

/// Checks an object, for that version of Firecracker. The error names the place.
pub fn check(value: &Value, fields: &[Field], version: &str) -> Result<(), String> {
    let minor = minor(version)?;
    object(value, fields, minor, "")
}

/// Checks an object in which fields that are not known are ignored.
fn open(value: &Value, fields: &[Field], minor: u32, at: &str) -> Result<(), String> {
    let object = value.as_object().ok_or_else(|| format!("`{at}` is no object"))?;
    known(object, fields, minor, at)
}

fn object(value: &Value, fields: &[Field], minor: u32, at: &str) -> Result<(), String> {
    let object = value.as_object().ok_or_else(|| format!("`{at}` is no object"))?;
    for key in object.keys() {
        let known = fields.iter().any(|f| f.name == key && f.since <= minor);
        if !known {
            return Err(format!("unknown field `{at}/{key}`"));
        }
    }
    known(object, fields, minor, at)
}

fn known(object: &Map<String, Value>, fields: &[Field], minor: u32, at: &str) -> Result<(), String> {
    for field in fields.iter().filter(|field| field.since <= minor) {
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
        OrNull(_) | Open(_) if value.is_null() => true,
        Object(fields) | OrNull(fields) => return object(value, fields, minor, at),
        Open(fields) => return open(value, fields, minor, at),
        Array(fields) => {
            let items = value.as_array().ok_or_else(|| format!("`{at}` is no array"))?;
            return items.iter().enumerate().try_for_each(|(i, v)| object(v, fields, minor, &format!("{at}/{i}")));
        }
        Text => value.as_str().is_some_and(|s| !s.is_empty()),
        Short(most) => value.as_str().is_some_and(|s| s.len() <= most),
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
