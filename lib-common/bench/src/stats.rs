//! Medians, and how sure one can be of the ratio of two. Pure; the same samples give the same figures.

/// So often both sides are drawn anew for a confidence interval.
const RESAMPLES: usize = 10_000;

/// In ascending order.
pub(super) fn sorted(samples: &[f64]) -> Vec<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// The smallest of the sorted samples that so many of a hundred do not exceed; there is at least one.
pub(super) fn percentile(sorted: &[f64], hundredths: usize) -> f64 {
    sorted[rank(sorted.len(), hundredths)]
}

/// [`percentile`] 50.
pub(super) fn median(sorted: &[f64]) -> f64 {
    percentile(sorted, 50)
}

fn rank(count: usize, hundredths: usize) -> usize {
    (count * hundredths).div_ceil(100).max(1) - 1
}

/// The 95 % confidence interval of the median of `b` through that of `a`, by the percentile bootstrap (Efron, 1979): both
/// are drawn anew with replacement, and of the ratios the middle 95 of 100 are kept. Neither is empty.
pub(super) fn interval(a: &[f64], b: &[f64]) -> (f64, f64) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let ratios: Vec<f64> = (0..RESAMPLES).map(|_| random.median_of(b) / random.median_of(a)).collect();
    let ratios = sorted(&ratios);
    let tail = RESAMPLES / 40;
    (ratios[tail], ratios[RESAMPLES - 1 - tail])
}

/// xorshift64* (Vigna, 2016), always from the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Of as many draws from `samples` as it has.
    fn median_of(&mut self, samples: &[f64]) -> f64 {
        let count = samples.len() as u64;
        // The upper half of the product is uniform below `count`.
        let mut draw = || samples[((u128::from(self.next()) * u128::from(count)) >> 64) as usize];
        let mut drawn: Vec<f64> = (0..count).map(|_| draw()).collect();
        let rank = rank(drawn.len(), 50);
        *drawn.select_nth_unstable_by(rank, f64::total_cmp).1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_of_like_samples_holds_one_and_of_slower_ones_what_they_are_slower_by() {
        let a: Vec<f64> = (0..40).map(|n| 100.0 + f64::from(n * 7 % 13)).collect();
        let (low, high) = interval(&a, &a);
        assert!(low < 1.0 && 1.0 < high && high < 1.1, "{low} {high}");
        let slower: Vec<f64> = a.iter().map(|x| x * 1.3).collect();
        let (low, high) = interval(&a, &slower);
        assert!(1.2 < low && low < 1.3 && 1.3 < high && high < 1.4, "{low} {high}");
        assert_eq!(interval(&a, &slower), (low, high), "the same samples give the same figures");
    }

    #[test]
    fn draws_are_uniform_and_one_sample_is_its_own_median() {
        let mut random = Random(1);
        let mean = (0..10_000).map(|_| (random.next() >> 11) as f64 / (1_u64 << 53) as f64).sum::<f64>() / 1e4;
        assert!((0.48..0.52).contains(&mean), "{mean}");
        assert_eq!(interval(&[2.0], &[3.0]), (1.5, 1.5));
    }
}
