//! The host's part of a creation alone: everything is done that is done for a real guest, on a Firecracker that runs none.

use super::banger::Variant;
use super::place::{Place, measured, timings};
use super::{CreateArgs, crowd, no_pool, variants};
use crate::scene::{Scene, in_use};
use crate::summary::{Samples, thousandths};
use crate::tap::MOST_DEVICES;
use lib_common::doc::{ImageRef, Name, Unit};
use lib_common::error::{Code, Error, Result};
use lib_common::sys::cmd::Cmd;
use lib_common::sys::fs::{private_dir, remove_dir, sync_all};
use lib_common::sys::{signal, thread};
use lib_common::timing::{Stages, millis};
use lib_tools::ops::tap;
use std::collections::BTreeMap;
use std::time::Instant;

/// So many TAPs are idle, beside those for VMs that are created at once.
const IDLE: u32 = 8;

/// What a round needs.
struct Bench<'a> {
    place: &'a mut Place,
    scene: Option<Scene>,
    images: Vec<(Variant, Name)>,
    parallel: Option<u32>,
    first: Name,
    samples: Samples,
}

/// Rounds, each with every number of VMs that are to be there.
pub(super) fn measure(
    place: &mut Place,
    stages: &mut Stages,
    args: &CreateArgs,
    setup: &mut BTreeMap<String, String>,
) -> Result<Samples> {
    if !args.against.is_empty() {
        return Err(Error::new(Code::Usage, "the others run guests, and --fake-vmm runs none").hint("leave one out"));
    }
    pretend(place)?;
    let scene = if tap::refused().is_none() && in_use()?.is_none() { Some(Scene::set(&place.config)?) } else { None };
    if args.no_pool && scene.is_none() {
        return Err(no_pool());
    }
    let card = if scene.is_some() { "with TAPs, a pool of them idle" } else { "none" };
    setup.insert("network_card".into(), card.into());
    let mut images = vec![];
    for variant in variants(args) {
        let image = if variant == Variant::NoSeed { place.register_without_seed()? } else { place.image.clone() };
        images.push((variant, image));
    }
    let first = Name::parse("first")?;
    let net = if scene.is_some() { "--net" } else { "--no-net" };
    place.run("bg-vm", &["create", first.as_str(), "--image", place.image.as_str(), "--no-start", net])?;
    let mut bench = Bench { place, scene, images, parallel: args.parallel, first, samples: Samples::default() };
    stages.begin("measure");
    let mut done = || -> Result<()> {
        for run in 0..args.runs as usize {
            for existing in &args.existing {
                stages.note(&format!("round {} of {}", run + 1, args.runs));
                bench.round(run, *existing)?;
            }
        }
        Ok(())
    };
    let done = done();
    // VMs go before their network.
    let cleared = bench.place.remove_all().and_then(|()| bench.scene.take().map_or(Ok(()), Scene::clear));
    match (done, cleared) {
        (Err(e), Err(left)) => Err(e.also(left.with_causes())),
        (done, cleared) => cleared.and(done).map(|()| bench.samples),
    }
}

/// Has VMs run on a Firecracker that runs no guest.
fn pretend(place: &mut Place) -> Result<()> {
    let fake = place.config.tool("examples/fake-firecracker").or_else(|_| {
        let named =
            place.config.firecracker_path()?.filter(|path| path.ends_with("fake-firecracker") && path.is_file());
        named.ok_or_else(|| {
            Error::new(Code::MissingProgram, "the Firecracker that runs no guest is not beside the tools")
                .hint("cargo build --release --locked --example fake-firecracker")
        })
    })?;
    let dir = place.path().join("fake");
    private_dir(&dir)?;
    fs_err::copy(fake, dir.join("firecracker"))?;
    fs_err::write(dir.join("mode"), "runs")?;
    place.set("BG_FIRECRACKER", dir.join("firecracker"));
    Ok(())
}

fn arguments<'a>(name: &'a Name, image: &'a Name, net: &'a str) -> [&'a str; 7] {
    ["create", name.as_str(), "--image", image.as_str(), "--vmm", "firecracker", net]
}

impl Bench<'_> {
    fn round(&mut self, run: usize, existing: u32) -> Result<()> {
        let crowd = crowd::make(self.place, &self.first, existing)?;
        let count = self.images.len();
        for turn in 0..count {
            let (variant, image) = self.images[(run + turn) % count].clone();
            self.create(variant, &image, existing)?;
        }
        self.copy(existing)?;
        let ls = self.place.run("bg-vm", &["ls", "--output", "json"])?;
        self.samples.add("ls", existing, ls.exit_ms);
        let show = self.place.run("bg-vm", &["show", self.first.as_str()])?;
        self.samples.add("show", existing, show.exit_ms);
        let verify = self.place.verify()?;
        self.samples.add("verify", existing, verify.exit_ms);
        if let Some(parallel) = self.parallel {
            self.create_many(parallel, existing)?;
        }
        if !crowd.is_empty() {
            self.remove(&crowd, existing)?;
        }
        Ok(())
    }

    fn fill(&self, count: u32) -> Result<()> {
        let Some(scene) = &self.scene else { return Ok(()) };
        scene.network.pool()?.set_target(count)?;
        scene.fill(count)
    }

    fn net(&self) -> &'static str {
        if self.scene.is_some() { "--net" } else { "--no-net" }
    }

    fn create(&mut self, variant: Variant, image: &Name, existing: u32) -> Result<()> {
        self.fill(IDLE)?;
        if variant == Variant::NoPool {
            self.place.run("bg-tap", &["pool", "drain"])?;
        }
        let name = self.place.new_name()?;
        let created = self.place.run("bg-vm", &arguments(&name, image, self.net()))?;
        let prefix = variant.prefix();
        self.samples.add(format!("{prefix}create"), existing, created.ms);
        self.samples.add(format!("{prefix}create_exit"), existing, created.exit_ms);
        self.samples.add_in(Unit::CpuS, format!("{prefix}cpu_tools"), existing, thousandths(created.cpu_s));
        self.samples.add_stages(prefix, existing, &timings(&created.machine()?)?);
        let removed = self.place.run("bg-vm", &["rm", "--force", name.as_str()])?;
        self.samples.add(format!("{prefix}rm_running"), existing, removed.exit_ms);
        Ok(())
    }

    /// What a copy of the same disks takes, by cp(1).
    fn copy(&mut self, existing: u32) -> Result<()> {
        let image: ImageRef = self.place.store().machine(&self.first)?.document()?.require()?;
        let wanted = self.place.config.work_bytes;
        let seeds = image.seed.iter().flat_map(|seed| &seed.sizes).filter(|size| size.size_bytes <= wanted);
        let seed = seeds.max_by_key(|size| size.size_bytes);
        let to = self.place.path().join("copy");
        private_dir(&to)?;
        let cmd = Cmd::new("cp").arg("--sparse=always").arg(&*image.rootfs.path);
        let copied = measured(&cmd.args(seed.map(|seed| &*seed.path)).arg(&to), b"")?;
        self.samples.add("cp_sparse", existing, copied.exit_ms);
        remove_dir(&to)
    }

    /// So many at once, as a process each.
    fn create_many(&mut self, count: u32, existing: u32) -> Result<()> {
        self.fill(count)?;
        let names = (0..count).map(|_| self.place.new_name()).collect::<Result<Vec<_>>>()?;
        let begun = Instant::now();
        let (place, net) = (&*self.place, self.net());
        let create = |name| place.run("bg-vm", &arguments(name, &place.image, net));
        let ran = std::thread::scope(|scope| {
            let create = &create;
            let threads: Vec<_> = names.iter().map(|name| thread::scoped(scope, move || create(name))).collect();
            let panicked = || Err(Error::new(Code::Internal, "a thread panicked"));
            let ended = threads.into_iter().map(|thread| thread?.join().unwrap_or_else(|_| panicked()));
            ended.collect::<Result<Vec<_>>>()
        })?;
        let wall = begun.elapsed().as_secs_f64();
        self.samples.add_in(Unit::PerS, "parallel_creates", existing, thousandths(f64::from(count) / wall));
        ran.iter().for_each(|ran| self.samples.add("parallel_create", existing, ran.exit_ms));
        let names: Vec<&str> = names.iter().map(Name::as_str).collect();
        self.place.run("bg-vm", &[&["rm", "--force"], &names[..]].concat()).map(drop)
    }

    /// All of the crowd in one call; and what the kernel takes for as much: files unlinked, TAPs removed as a group.
    fn remove(&mut self, crowd: &[Name], existing: u32) -> Result<()> {
        signal::check()?;
        let plugged = &crowd[..crowd.len().min(MOST_DEVICES as usize)];
        if let Some(scene) = &self.scene {
            scene.network.pool()?.set_target(0)?;
            scene.network.pool()?.drain()?;
            crowd::plug_in(self.place, plugged)?;
        }
        let names: Vec<&str> = crowd.iter().map(Name::as_str).collect();
        let removed = self.place.run("bg-vm", &[&["rm"], &names[..]].concat())?;
        self.samples.add("rm", existing, removed.exit_ms);
        if let Some(scene) = &self.scene {
            // Those that went back to the pool.
            let begun = Instant::now();
            scene.network.pool()?.drain()?;
            self.samples.add("rm_drain", existing, millis(begun.elapsed()));
        }
        sync_all(self.place.path())?;
        let again = crowd::make(self.place, &self.first, existing)?;
        if let Some(scene) = &self.scene {
            scene.fill(plugged.len() as u32)?;
        }
        let begun = Instant::now();
        for name in &again {
            remove_dir(self.place.store().machine_dir(name).path())?;
        }
        let unlinked_ms = millis(begun.elapsed());
        let drained_ms = match &self.scene {
            Some(scene) => scene.drain(plugged.len() as u32)?,
            None => 0.0,
        };
        self.samples.add("rm_floor", existing, thousandths(unlinked_ms + drained_ms));
        if self.scene.is_some() {
            self.samples.add("rm_floor_taps", existing, drained_ms);
        }
        Ok(())
    }
}
