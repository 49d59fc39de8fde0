//! `bg-bench create`: from `bg-vm create` to `ssh true`, stage by stage, against other ways by turns; or the host's part of it
//! alone.

mod banger;
mod crowd;
mod debvm;
mod fake;
mod place;
mod qemu;
mod ready;

use super::document;
use super::summary::{Samples, against};
use banger::Variant;
use lib_common::doc::{Bench, Name, to_json};
use lib_common::error::{Code, Error, Result};
use lib_common::sys::cmd::typed_by_root;
use lib_common::sys::fs::can_reflink;
use lib_common::sys::{host, program, signal};
use lib_machine::vmm;
use lib_tools::cli::{Answer, Context};
use lib_tools::ops::machine::image_name;
use place::Place;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

/// So many VMs can be in the store at most.
pub const MOST_EXISTING: u32 = 10_000;

/// What an image's name is written behind.
const IMAGE: &str = "image:";

/// What a VM's creation is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Against {
    /// Debian's debvm.
    Debvm,
    /// Another image, VMs of which are created the same way.
    Image(Name),
    /// QEMU with the same arguments, started by nobody but the benchmark.
    Qemu,
}

impl FromStr for Against {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "debvm" => Ok(Against::Debvm),
            "qemu" => Ok(Against::Qemu),
            _ => match text.strip_prefix(IMAGE).map(Name::parse) {
                Some(name) => name.map(Against::Image).map_err(|e| e.with_causes()),
                None => Err(format!("`{text}` is nothing to compare with; known: debvm, qemu, image:NAME")),
            },
        }
    }
}

/// What `bg-bench create` takes.
#[derive(Clone, Debug)]
pub struct CreateArgs {
    /// How many rounds, at least 1.
    pub runs: u32,
    /// The image; the default one where none is named.
    pub image: Option<Name>,
    /// Create VMs from an image without work seeds, too.
    pub no_seed: bool,
    /// Create VMs while no TAP is idle, too.
    pub no_pool: bool,
    /// Other ways, by turns.
    pub against: Vec<Against>,
    /// Where the disks are made, if not in the state directory.
    pub dir: Option<PathBuf>,
    /// The host's part alone, without guests.
    pub fake_vmm: bool,
    /// With `fake_vmm`: how many VMs there are already, at most [`MOST_EXISTING`] each time.
    pub existing: Vec<u32>,
    /// With `fake_vmm`: so many at once, too.
    pub parallel: Option<u32>,
}

/// `bg-bench create`: measures in a store of its own, of which nothing is left.
pub fn create(cx: &mut Context<'_>, args: &CreateArgs) -> Result<Answer> {
    let load_before = host::load_average()?;
    cx.stages.begin("prepare");
    let image = image_name(&cx.store(), &cx.config, args.image.as_ref())?;
    let mut place = Place::make(&cx.config, &image, args.dir.as_deref())?;
    let mut setup = BTreeMap::from([("image".to_owned(), image.to_string())]);
    let (file_system, reflink) = (host::file_system(place.path())?, can_reflink(place.path())?);
    let measured = match args.fake_vmm {
        true => fake::measure(&mut place, &mut cx.stages, args, &mut setup),
        false => rounds(&mut place, cx, args, &mut setup),
    };
    cx.stages.begin("clear");
    let samples = match (measured, place.clear()) {
        (Err(e), Err(left)) => return Err(e.also(left.with_causes())),
        (measured, cleared) => cleared.and(measured)?,
    };
    let subject = if args.fake_vmm { "host_part" } else { "create" };
    let measures = samples.measures(true);
    let compared = compared(args).into_iter().flat_map(|(name, other)| against(&measures, &name, other)).collect();
    let mut bench =
        Bench { runs: args.runs, setup, against: compared, ..document(cx, subject, measures, load_before)? };
    (bench.host.file_system, bench.host.reflink) = (file_system, Some(reflink));
    if !args.fake_vmm {
        bench.host.accel = Some(vmm::choose(cx.config.vmm, &cx.config)?.accel);
    }
    cx.emit_line(&to_json(&bench));
    Ok(Answer::Done)
}

/// Which measures are compared: the other side's, and ours.
fn compared(args: &CreateArgs) -> Vec<(String, &'static str)> {
    let what = if args.fake_vmm { "create" } else { "ready" };
    let mut others: Vec<String> = args.against.iter().map(|side| format!("{}.{what}", side.name())).collect();
    others.extend(variants(args).iter().map(|v| v.prefix()).filter(|p| !p.is_empty()).map(|p| format!("{p}{what}")));
    if args.fake_vmm {
        others.push("cp_sparse".into());
    }
    others.into_iter().map(|other| (other, what)).chain(args.fake_vmm.then(|| ("rm_floor".into(), "rm"))).collect()
}

impl Against {
    fn name(&self) -> String {
        match self {
            Against::Debvm => "debvm".into(),
            Against::Qemu => "qemu".into(),
            Against::Image(name) => format!("{IMAGE}{name}"),
        }
    }
}

/// How VMs are created.
fn variants(args: &CreateArgs) -> Vec<Variant> {
    let mut variants = vec![Variant::Usual];
    variants.extend(args.no_seed.then_some(Variant::NoSeed));
    variants.extend(args.no_pool.then_some(Variant::NoPool));
    variants
}

/// One side of a comparison.
enum Side {
    Banger(Variant, Name),
    /// With what its measures' names begin with.
    Image(Name, String),
    Qemu(Box<qemu::Bare>),
    Debvm(debvm::Debvm),
}

/// Real guests: in each round one of every side, and each round begins with another.
fn rounds(
    place: &mut Place,
    cx: &mut Context<'_>,
    args: &CreateArgs,
    setup: &mut BTreeMap<String, String>,
) -> Result<Samples> {
    if args.no_pool && cx.config.net != Some(true) && lib_tools::ops::tap::refused().is_some() {
        return Err(no_pool());
    }
    for (key, value) in [("memory", format!("{} MiB", cx.config.memory_mib)), ("vcpu", cx.config.vcpu.to_string())] {
        setup.insert(key.into(), value);
    }
    let mut sides = vec![];
    for variant in variants(args) {
        let image = if variant == Variant::NoSeed { place.register_without_seed()? } else { place.image.clone() };
        sides.push(Side::Banger(variant, image));
    }
    for other in &args.against {
        sides.push(match other {
            Against::Image(name) => {
                place.register_another(&cx.store(), name)?;
                Side::Image(name.clone(), format!("{}.", other.name()))
            }
            Against::Qemu => Side::Qemu(Box::new(qemu::Bare::of(place)?)),
            Against::Debvm => Side::Debvm(debvm::Debvm::prepare(place, cx, setup)?),
        });
    }
    cx.stages.begin("measure");
    let mut samples = Samples::default();
    let count = sides.len();
    for run in 0..args.runs as usize {
        for turn in 0..count {
            signal::check()?;
            cx.stages.note(&format!("round {} of {}", run + 1, args.runs));
            match &mut sides[(run + turn) % count] {
                Side::Banger(variant, image) => {
                    if *variant == Variant::NoPool {
                        place.run("bg-tap", &["pool", "drain"])?;
                    }
                    banger::once(place, image, variant.prefix(), &mut samples)?;
                }
                Side::Image(image, prefix) => banger::once(place, image, prefix, &mut samples)?,
                Side::Qemu(bare) => bare.once(place, &mut samples)?,
                Side::Debvm(debvm) => debvm.once(place, &mut samples)?,
            }
        }
    }
    Ok(samples)
}

fn no_pool() -> Error {
    Error::new(Code::Usage, "VMs have no network card here, so there is no pool of TAPs to be without")
        .hint(typed_by_root(&format!("{} bg-bench create --no-pool", program::pipeline("in-netns"))))
}
