//! bg-bench compare: whether one `Bench` document is slower than another, and how sure that is.

use super::stats::{interval, median, sorted};
use super::summary::thousandths;
use lib_common::doc::{API_VERSION, Bench, BenchDiff, Measure, MeasureDiff, Unit, strict, to_json};
use lib_common::error::{Code, Context as _, Error, Result};
use lib_common::sys::plain;
use lib_tools::cli::{Answer, Context};
use std::path::{Path, PathBuf};

/// With fewer samples on either side nothing is judged.
const FEWEST: usize = 5;
/// So much of a file is read; a document with all samples of a long measurement is larger than one for a pipe.
const MOST_BYTES: u64 = 64 << 20;

/// What `bg-bench compare` takes.
#[derive(Clone, Debug)]
pub struct CompareArgs {
    /// The file of the document that is the measure.
    pub a: PathBuf,
    /// The file of the one that is judged.
    pub b: PathBuf,
    /// These measures alone.
    pub measures: Vec<String>,
    /// So much slower is too slow.
    pub fail_above: Option<f64>,
}

/// `bg-bench compare`: answers no where B is slower than the limit, with the whole confidence interval.
pub fn compare(cx: &mut Context<'_>, args: &CompareArgs) -> Result<Answer> {
    cx.stages.begin("read");
    let (a, b) = (read(&args.a)?, read(&args.b)?);
    if a.subject != b.subject {
        let message = format!("one document is of `{}` and the other one of `{}`", a.subject, b.subject);
        return Err(Error::new(Code::BadDocument, message));
    }
    cx.stages.begin("compare");
    let measures = differences(&a, &b, args)?;
    let diff = BenchDiff {
        api_version: API_VERSION.into(),
        kind: "BenchDiff".into(),
        subject: a.subject,
        ok: measures.iter().all(|m| m.ok),
        fail_above: args.fail_above,
        measures,
        timings: cx.stages.take(),
    };
    cx.emit_line(&to_json(&diff));
    Ok(if diff.ok { Answer::Done } else { Answer::No })
}

fn read(path: &Path) -> Result<Bench> {
    let bytes = plain::read_named(path, MOST_BYTES).map_err(|e| match e.code() {
        Code::BadInput => e.with_code(Code::BadDocument),
        _ => e,
    })?;
    let bench: Bench = strict(&String::from_utf8_lossy(&bytes)).context(format!("{} is no `Bench`", path.display()))?;
    if (bench.api_version.as_str(), bench.kind.as_str()) != (API_VERSION, "Bench") {
        return Err(Error::new(Code::BadDocument, format!("{} is a document of another kind", path.display())));
    }
    if bench.measures.iter().any(|m| m.samples.len() != m.n as usize || m.n == 0) {
        return Err(Error::new(Code::BadDocument, format!("{} has no samples", path.display()))
            .hint("measure again: bg-bench tap --samples; bg-bench create always has them"));
    }
    Ok(bench)
}

fn differences(a: &Bench, b: &Bench, args: &CompareArgs) -> Result<Vec<MeasureDiff>> {
    let named = |m: &&Measure| args.measures.is_empty() || args.measures.contains(&m.name);
    let twin = |m: &Measure| b.measures.iter().find(|o| (&o.name, o.existing, o.unit) == (&m.name, m.existing, m.unit));
    let pairs: Vec<_> = a.measures.iter().filter(named).filter_map(|m| Some((m, twin(m)?))).collect();
    let has = |name: &String| pairs.iter().any(|(m, _)| m.name == *name);
    if let Some(missing) = args.measures.iter().find(|name| !has(name)) {
        let known: Vec<&str> = a.measures.iter().map(|m| m.name.as_str()).collect();
        let error = Error::new(Code::NotFound, format!("not both have the measure `{missing}`"));
        return Err(error.hint(format!("the first one has {}", known.join(", "))));
    }
    if pairs.is_empty() {
        return Err(Error::new(Code::BadDocument, "they have no measure in common"));
    }
    if args.fail_above.is_some()
        && let Some((few, other)) = pairs.iter().find(|(m, o)| !args.measures.is_empty() && !enough(m, o))
    {
        let message = format!("`{}` has {} and {} samples, too few to judge by", few.name, few.n, other.n);
        return Err(Error::new(Code::BadDocument, message).hint(format!("measure with --runs {FEWEST} or more")));
    }
    Ok(pairs.into_iter().map(|(a, b)| difference(a, b, args.fail_above)).collect())
}

fn enough(a: &Measure, b: &Measure) -> bool {
    a.samples.len().min(b.samples.len()) >= FEWEST
}

fn difference(a: &Measure, b: &Measure, fail_above: Option<f64>) -> MeasureDiff {
    let (a_p50, b_p50) = (median(&sorted(&a.samples)), median(&sorted(&b.samples)));
    // Where more is better, the slower one has less.
    let (ratio, (low, high)) = match a.unit {
        Unit::PerS => (a_p50 / b_p50, interval(&b.samples, &a.samples)),
        _ => (b_p50 / a_p50, interval(&a.samples, &b.samples)),
    };
    let limit = fail_above.filter(|_| enough(a, b) && low.is_finite());
    let figure = |value: f64| if value.is_finite() { thousandths(value) } else { 1.0 };
    MeasureDiff {
        name: a.name.clone(),
        existing: a.existing,
        unit: a.unit,
        a_n: a.n,
        b_n: b.n,
        a_p50,
        b_p50,
        ratio: figure(ratio),
        low: figure(low),
        high: figure(high),
        judged: limit.is_some(),
        ok: limit.is_none_or(|limit| low <= limit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measure(unit: Unit, by: f64, n: u32) -> Measure {
        let samples: Vec<f64> = (0..n).map(|i| by * (100.0 + f64::from(i % 7))).collect();
        Measure { name: "m".into(), existing: 0, unit, n, p50: 0.0, p95: 0.0, p99: 0.0, max: 0.0, samples }
    }

    #[test]
    fn slower_is_judged_by_the_whole_interval_and_by_enough_samples() {
        for (unit, by, n, limit, judged, ok) in [
            (Unit::Ms, 1.2, 20, Some(1.05), true, false),
            (Unit::Ms, 1.2, 20, Some(1.3), true, true),
            (Unit::Ms, 1.02, 20, Some(1.01), true, true),
            (Unit::Ms, 0.8, 20, Some(1.05), true, true),
            (Unit::PerS, 0.8, 20, Some(1.05), true, false),
            (Unit::PerS, 1.2, 20, Some(1.05), true, true),
            (Unit::Ms, 2.0, 4, Some(1.05), false, true),
            (Unit::Ms, 2.0, 20, None, false, true),
        ] {
            let found = difference(&measure(unit, 1.0, n), &measure(unit, by, n), limit);
            assert_eq!((found.judged, found.ok), (judged, ok), "{unit:?} {by}: {found:?}");
            assert!(found.low <= found.ratio && found.ratio <= found.high, "{found:?}");
        }
    }
}
