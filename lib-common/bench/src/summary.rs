//! From samples to figures, and whether they are good enough. Pure.

use super::stats::{interval, median, percentile, sorted};
use lib_common::doc::{Bar, Comparison, Figure, Measure, Timing, Unit};

/// What may take how long: a measure, of it only the row of so many devices (0: every row), the figure, milliseconds.
type Limit = (&'static str, u32, Figure, f64);

/// Samples by what was measured and how many devices or VMs were there.
#[derive(Debug, Default)]
pub(super) struct Samples(Vec<Row>);

#[derive(Debug)]
struct Row {
    name: String,
    existing: u32,
    unit: Unit,
    samples: Vec<f64>,
}

impl Samples {
    /// One more time in milliseconds.
    pub(super) fn add(&mut self, name: impl Into<String>, existing: u32, ms: f64) {
        self.add_in(Unit::Ms, name, existing, ms);
    }

    /// One more sample in that unit, which is always the same for a name.
    pub(super) fn add_in(&mut self, unit: Unit, name: impl Into<String>, existing: u32, value: f64) {
        let name = name.into();
        match self.0.iter_mut().find(|row| row.name == name && row.existing == existing) {
            Some(row) => row.samples.push(value),
            None => self.0.push(Row { name, existing, unit, samples: vec![value] }),
        }
    }

    /// The stages of a document's tools, each a measure `PREFIXtool.stage`; one that a run had twice counts as one.
    pub(super) fn add_stages(&mut self, prefix: &str, existing: u32, timings: &[Timing]) {
        let mut sums: Vec<(String, f64)> = vec![];
        for timing in timings {
            let name = format!("{prefix}{}.{}", timing.tool, timing.stage);
            match sums.iter_mut().find(|(n, _)| *n == name) {
                Some((_, ms)) => *ms += timing.ms,
                None => sums.push((name, timing.ms)),
            }
        }
        sums.into_iter().for_each(|(name, ms)| self.add(name, existing, thousandths(ms)));
    }

    /// In the order in which they came up; `raw`: with every sample.
    pub(super) fn measures(&self, raw: bool) -> Vec<Measure> {
        let measure = |row: &Row| {
            let sorted = sorted(&row.samples);
            Measure {
                name: row.name.clone(),
                existing: row.existing,
                unit: row.unit,
                n: sorted.len() as u32,
                p50: median(&sorted),
                p95: percentile(&sorted, 95),
                p99: percentile(&sorted, 99),
                max: percentile(&sorted, 100),
                samples: if raw { row.samples.clone() } else { vec![] },
            }
        };
        self.0.iter().map(measure).collect()
    }
}

/// Three places: what adding up left behind them is no measurement.
pub(super) fn thousandths(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// Which limits were kept.
pub(super) fn bars(measures: &[Measure], limits: &[Limit]) -> Vec<Bar> {
    let mut bars = vec![];
    for (name, existing, figure, limit_ms) in limits {
        for measure in measures.iter().filter(|m| m.name == *name && (*existing == 0 || m.existing == *existing)) {
            let measured_ms = match figure {
                Figure::P50 => measure.p50,
                Figure::P99 => measure.p99,
            };
            bars.push(Bar {
                measure: measure.name.clone(),
                existing: measure.existing,
                figure: *figure,
                limit_ms: *limit_ms,
                measured_ms,
                ok: measured_ms <= *limit_ms,
            });
        }
    }
    bars
}

/// Each measure of that name against the other one, where as many were there; with its confidence interval where the
/// measures have their samples.
pub(super) fn against(measures: &[Measure], name: &str, other: &str) -> Vec<Comparison> {
    let others = |m: &Measure| measures.iter().find(|o| o.name == other && o.existing == m.existing);
    let pairs = measures.iter().filter(|m| m.name == name).filter_map(|m| Some((m, others(m)?)));
    let comparison = |(m, o): (&Measure, &Measure)| {
        let interval = (!m.samples.is_empty() && !o.samples.is_empty()).then(|| interval(&m.samples, &o.samples));
        Comparison {
            measure: name.into(),
            other: other.into(),
            existing: m.existing,
            ratio: thousandths(o.p50 / m.p50),
            low: interval.map(|(low, _)| thousandths(low)),
            high: interval.map(|(_, high)| thousandths(high)),
        }
    };
    pairs.map(comparison).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Samples {
        let mut samples = Samples::default();
        for n in (1..=200).rev() {
            samples.add("fast", 8, f64::from(n) / 100.0);
        }
        samples.add("slow", 8, 3.0);
        samples.add("fast", 1, 5.0);
        samples
    }

    #[test]
    fn a_percentile_is_a_sample_that_so_many_do_not_exceed() {
        let measures = samples().measures(false);
        let fast = &measures[0];
        assert_eq!((fast.n, fast.p50, fast.p95, fast.p99, fast.max), (200, 1.0, 1.9, 1.98, 2.0));
        let one = &measures[2];
        assert_eq!((one.existing, one.p50, one.p99, one.max), (1, 5.0, 5.0, 5.0));
        assert!(fast.samples.is_empty());
        assert_eq!(samples().measures(true)[0].samples[..2], [2.0, 1.99], "as they came");
    }

    #[test]
    fn a_bar_is_of_its_figure_and_its_rows() {
        let measures = samples().measures(false);
        let limits = [("fast", 0, Figure::P50, 1.0), ("fast", 8, Figure::P99, 1.97), ("none", 0, Figure::P50, 1.0)];
        let found: Vec<_> = bars(&measures, &limits).iter().map(|b| (b.existing, b.measured_ms, b.ok)).collect();
        assert_eq!(found, [(8, 1.0, true), (1, 5.0, false), (8, 1.98, false)]);
    }

    #[test]
    fn a_stage_that_a_run_had_twice_is_one_sample() {
        let timing = |stage: &str, ms| Timing { tool: "bg-vm".into(), stage: stage.into(), ms };
        let mut samples = Samples::default();
        samples.add_stages("qemu.", 3, &[timing("lock", 0.1), timing("save", 1.0), timing("lock", 0.2)]);
        let found: Vec<_> = samples.measures(true).into_iter().map(|m| (m.name, m.existing, m.samples)).collect();
        assert_eq!(found, [("qemu.bg-vm.lock".into(), 3, vec![0.3]), ("qemu.bg-vm.save".into(), 3, vec![1.0])]);
    }

    #[test]
    fn only_what_was_measured_both_ways_is_compared() {
        let found = against(&samples().measures(false), "fast", "slow");
        assert_eq!(found.iter().map(|c| (c.existing, c.ratio)).collect::<Vec<_>>(), [(8, 3.0)]);
    }
}
