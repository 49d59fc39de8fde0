//! From samples to figures, and whether they are good enough. Pure.

use crate::doc::{Bar, Comparison, Figure, Measure};

/// What may take how long: a measure, of it only the row of so many devices (0: every row), the figure, milliseconds.
type Limit = (&'static str, u32, Figure, f64);

/// Samples in milliseconds, by what was measured and how many devices were there.
#[derive(Debug, Default)]
pub(super) struct Samples(Vec<(&'static str, u32, Vec<f64>)>);

impl Samples {
    pub(super) fn add(&mut self, name: &'static str, devices: u32, ms: f64) {
        match self.0.iter_mut().find(|(n, d, _)| (*n, *d) == (name, devices)) {
            Some((.., samples)) => samples.push(ms),
            None => self.0.push((name, devices, vec![ms])),
        }
    }

    /// In the order in which they came up; `raw`: with every sample.
    pub(super) fn measures(&self, raw: bool) -> Vec<Measure> {
        let measure = |(name, devices, samples): &(&'static str, u32, Vec<f64>)| {
            let mut sorted = samples.clone();
            sorted.sort_by(f64::total_cmp);
            Measure {
                name: (*name).into(),
                devices: *devices,
                unit: "ms".into(),
                n: samples.len() as u32,
                p50: percentile(&sorted, 50),
                p95: percentile(&sorted, 95),
                p99: percentile(&sorted, 99),
                max: percentile(&sorted, 100),
                samples: if raw { samples.clone() } else { vec![] },
            }
        };
        self.0.iter().map(measure).collect()
    }
}

/// The smallest of the sorted samples that so many of a hundred do not exceed; there is at least one.
fn percentile(sorted: &[f64], hundredths: usize) -> f64 {
    sorted[(sorted.len() * hundredths).div_ceil(100).max(1) - 1]
}

/// Which limits were kept.
pub(super) fn bars(measures: &[Measure], limits: &[Limit]) -> Vec<Bar> {
    let mut bars = vec![];
    for (name, devices, figure, limit_ms) in limits {
        for measure in measures.iter().filter(|m| m.name == *name && (*devices == 0 || m.devices == *devices)) {
            let measured_ms = match figure {
                Figure::P50 => measure.p50,
                Figure::P99 => measure.p99,
            };
            bars.push(Bar {
                measure: measure.name.clone(),
                devices: measure.devices,
                figure: *figure,
                limit_ms: *limit_ms,
                measured_ms,
                ok: measured_ms <= *limit_ms,
            });
        }
    }
    bars
}

/// Each measure of that name against the other one, where as many devices were there.
pub(super) fn against(measures: &[Measure], name: &str, other: &str) -> Vec<Comparison> {
    let others = |m: &Measure| measures.iter().find(|o| o.name == other && o.devices == m.devices);
    let pairs = measures.iter().filter(|m| m.name == name).filter_map(|m| Some((m, others(m)?)));
    let comparison = |(m, o): (&Measure, &Measure)| Comparison {
        measure: name.into(),
        other: other.into(),
        devices: m.devices,
        ratio: (o.p50 / m.p50 * 100.0).round() / 100.0,
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
        assert_eq!((one.devices, one.p50, one.p99, one.max), (1, 5.0, 5.0, 5.0));
        assert!(fast.samples.is_empty());
        assert_eq!(samples().measures(true)[0].samples[..2], [2.0, 1.99], "as they came");
    }

    #[test]
    fn a_bar_is_of_its_figure_and_its_rows() {
        let measures = samples().measures(false);
        let limits = [("fast", 0, Figure::P50, 1.0), ("fast", 8, Figure::P99, 1.97), ("none", 0, Figure::P50, 1.0)];
        let found: Vec<_> = bars(&measures, &limits).iter().map(|b| (b.devices, b.measured_ms, b.ok)).collect();
        assert_eq!(found, [(8, 1.0, true), (1, 5.0, false), (8, 1.98, false)]);
    }

    #[test]
    fn only_what_was_measured_both_ways_is_compared() {
        let found = against(&samples().measures(false), "fast", "slow");
        assert_eq!(found.iter().map(|c| (c.devices, c.ratio)).collect::<Vec<_>>(), [(8, 3.0)]);
    }
}
