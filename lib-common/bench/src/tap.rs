//! bg-bench tap: how long it takes a VM to get a TAP and an address, and to give them back.

use super::document;
use super::scene::{Scene, Way};
use super::summary::{Samples, against, bars};
use super::{parallel, parallel::MANY};
use lib_common::doc::{Bench, Figure, to_json};
use lib_common::error::Result;
use lib_common::sys::host;
use lib_common::timing::Stages;
use lib_tools::cli::{Answer, Context};

/// So many devices can be there at most: a bridge has 1,023 ports, and some are for what is measured.
pub const MOST_DEVICES: u32 = 1000;

/// In a round, with each number of devices: so many TAPs are taken and given back for each that `ip` makes,
const PAIRS: u32 = 20;
/// so many `ip` makes,
const OTHERS: u32 = 5;
/// and so many are made for a VM.
const COLD: u32 = 10;

/// What may take how long, in milliseconds.
const LIMITS: [(&str, u32, Figure, f64); 7] = [
    ("acquire_warm", 0, Figure::P50, 0.2),
    ("acquire_warm", 0, Figure::P99, 1.0),
    ("acquire_cold", 0, Figure::P50, 1.5),
    ("release", 0, Figure::P50, 0.3),
    ("drain", MOST_DEVICES, Figure::P50, 1200.0),
    ("acquire_by_threads", 0, Figure::P99, 5.0),
    ("acquire_by_processes", 0, Figure::P99, 5.0),
];

/// What `bg-bench tap` takes.
#[derive(Clone, Debug)]
pub struct TapArgs {
    /// How many rounds, at least 1.
    pub runs: u32,
    /// How many devices are there while it is measured, at most [`MOST_DEVICES`] each time.
    pub devices: Vec<u32>,
    /// Print every sample.
    pub samples: bool,
    /// Answer no where something was too slow.
    pub check: bool,
}

/// `bg-bench tap`: measures in this namespace, which has to be empty, and leaves it so.
pub fn tap(cx: &mut Context<'_>, args: &TapArgs) -> Result<Answer> {
    let load_before = host::load_average()?;
    cx.stages.begin("up");
    let mut scene = Scene::set(&cx.config)?;
    cx.stages.begin("measure");
    let measured = measure(&mut scene, &mut cx.stages, args);
    cx.stages.begin("down");
    let samples = match (measured, scene.clear()) {
        (Err(e), Err(left)) => return Err(e.also(left.to_string())),
        (measured, cleared) => cleared.and(measured)?,
    };
    let bench = report(cx, args, &samples, load_before)?;
    cx.emit_line(&to_json(&bench));
    Ok(if args.check && !bench.ok { Answer::No } else { Answer::Done })
}

fn measure(scene: &mut Scene, stages: &mut Stages, args: &TapArgs) -> Result<Samples> {
    let mut samples = Samples::default();
    for run in 1..=args.runs {
        stages.note(&format!("round {run} of {}", args.runs));
        for devices in &args.devices {
            with_devices(scene, &mut samples, *devices)?;
        }
        parallel::threads(scene)?.into_iter().for_each(|ms| samples.add("acquire_by_threads", MANY, ms));
        parallel::processes(scene)?.into_iter().for_each(|ms| samples.add("acquire_by_processes", MANY, ms));
    }
    Ok(samples)
}

/// While so many devices are there, half of them VMs'; then while all of them are.
fn with_devices(scene: &mut Scene, samples: &mut Samples, devices: u32) -> Result<()> {
    scene.fill(devices)?;
    let mut busy = vec![];
    for _ in 0..devices / 2 {
        busy.push(scene.acquire(Way::Warm)?.0);
    }
    for _ in 0..OTHERS {
        for _ in 0..PAIRS {
            let (loan, ms) = scene.acquire(Way::Warm)?;
            samples.add("acquire_warm", devices, ms);
            samples.add("release", devices, scene.release(&loan)?);
        }
        samples.add("three_ip_calls", devices, scene.three_ip_calls()?);
    }
    while (busy.len() as u32) < devices {
        busy.push(scene.acquire(Way::Warm)?.0);
    }
    let mut made = vec![];
    for _ in 0..COLD {
        let (loan, ms) = scene.acquire(Way::Cold)?;
        samples.add("acquire_cold", devices, ms);
        made.push(loan);
    }
    busy.iter().try_for_each(|loan| scene.release(loan).map(drop))?;
    samples.add("drain", devices, scene.drain(devices)?);
    made.iter().try_for_each(|loan| scene.release(loan).map(drop))?;
    scene.drain(COLD).map(drop)
}

fn report(cx: &mut Context<'_>, args: &TapArgs, samples: &Samples, load_before: f64) -> Result<Bench> {
    let measures = samples.measures(args.samples);
    let bars = bars(&measures, &LIMITS);
    let compared = ["acquire_warm", "acquire_cold"].iter().flat_map(|name| against(&measures, name, "three_ip_calls"));
    Ok(Bench {
        ok: bars.iter().all(|bar| bar.ok),
        runs: args.runs,
        against: compared.collect(),
        bars,
        ..document(cx, "tap", measures, load_before)?
    })
}
