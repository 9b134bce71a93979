//! The quality ledger: the PSNR of each sample, and what it says of the whole archive.

use serde::Serialize;

use crate::archive::Archive;
use crate::data::Data;

/// Samples that a summary names.
const WORST: usize = 5;
/// About as many bars has a histogram, at least half of them and at most one more.
const BARS: f64 = 12.0;
/// Widths of a histogram's bars in dB.
const STEPS: [f64; 9] = [0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0];

/// The PSNR of each sample of an archive, in dB.
#[derive(Debug, Clone, PartialEq)]
pub struct Ledger {
    psnr_db: Vec<f32>,
}

/// A sample and its PSNR.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct SamplePsnr {
    /// The sample's number.
    pub sample: usize,
    /// Its PSNR in dB.
    pub psnr_db: f64,
}

/// A bar of a histogram.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Bar {
    /// Its samples have this PSNR in dB or more,
    pub from_db: f64,
    /// and less than this.
    pub to_db: f64,
    /// How many they are.
    pub samples: usize,
}

/// What a ledger comes to.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LedgerSummary {
    /// The mean of all samples in dB.
    pub mean_db: f64,
    /// One sample of a hundred has this PSNR in dB or less.
    pub first_percentile_db: f64,
    /// The worst samples, the worst first.
    pub worst: Vec<SamplePsnr>,
    /// How the samples spread.
    pub histogram: Vec<Bar>,
}

impl<D: Data> Archive<D> {
    /// The PSNR of each sample, copied; `None` if it is not recorded or there are no samples.
    ///
    /// # Errors
    /// As [`psnr`](Self::psnr).
    pub fn ledger(&self) -> crate::Result<Option<Ledger>> {
        Ok(self.psnr()?.and_then(Ledger::new))
    }
}

impl Ledger {
    /// A ledger of the PSNR of the samples 0, 1, ... in dB; `None` if there are none.
    pub fn new(psnr_db: Vec<f32>) -> Option<Self> {
        (!psnr_db.is_empty()).then_some(Self { psnr_db })
    }

    /// The mean of all samples in dB.
    pub fn mean(&self) -> f64 {
        self.psnr_db.iter().copied().map(f64::from).sum::<f64>() / self.psnr_db.len() as f64
    }

    /// The smallest PSNR in dB that at least `percent` of a hundred samples do not exceed (the nearest-rank percentile).
    pub fn percentile(&self, percent: f64) -> f64 {
        let samples = self.psnr_db.len();
        let rank = (percent / 100.0 * samples as f64).ceil().clamp(1.0, samples as f64) as usize;
        (*self.psnr_db.clone().select_nth_unstable_by(rank - 1, f32::total_cmp).1).into()
    }

    /// The `count` worst samples, or all if there are fewer: the worst first, of equals the lower number.
    pub fn worst(&self, count: usize) -> Vec<SamplePsnr> {
        let order = |a: &SamplePsnr, b: &SamplePsnr| a.psnr_db.total_cmp(&b.psnr_db).then(a.sample.cmp(&b.sample));
        let samples = self.psnr_db.iter().copied().map(f64::from).enumerate();
        let mut samples: Vec<_> = samples.map(|(sample, psnr_db)| SamplePsnr { sample, psnr_db }).collect();
        if count < samples.len() {
            samples.select_nth_unstable_by(count, order);
            samples.truncate(count);
        }
        samples.sort_unstable_by(order);
        samples
    }

    /// How the samples spread, over some ten bars between round numbers. Values that are no finite number, as only
    /// a damaged archive has, are left out.
    pub fn histogram(&self) -> Vec<Bar> {
        let finite = || self.psnr_db.iter().copied().filter(|psnr| psnr.is_finite()).map(f64::from);
        let (least, most) =
            finite().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), psnr| (a.min(psnr), b.max(psnr)));
        let fits = |step: &f64| least <= most && most - least <= BARS * step;
        let Some(step) = STEPS.into_iter().find(fits) else { return Vec::new() };
        let bar = |psnr: f64| (psnr / step).floor();
        let first = bar(least);
        let mut counts = vec![0; (bar(most) - first) as usize + 1];
        finite().for_each(|psnr| counts[(bar(psnr) - first) as usize] += 1);
        // Hundredths, so that 0.6000000000000001 is 0.6.
        let bound = |i: usize| ((first + i as f64) * step * 100.0).round() / 100.0;
        let bars = counts.into_iter().enumerate();
        bars.map(|(i, samples)| Bar { from_db: bound(i), to_db: bound(i + 1), samples }).collect()
    }

    /// All of that in one value.
    pub fn summary(&self) -> LedgerSummary {
        LedgerSummary {
            mean_db: self.mean(),
            first_percentile_db: self.percentile(1.0),
            worst: self.worst(WORST),
            histogram: self.histogram(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(psnr_db: impl IntoIterator<Item = f32>) -> Ledger {
        Ledger::new(psnr_db.into_iter().collect()).expect("not empty")
    }

    #[test]
    fn percentiles_are_those_of_the_sorted_list() {
        // 30 and 0 to 499 steps of 1/128, in an order that is none.
        let scattered = ledger((0..500).map(|i| 30.0 + (i * 211 % 500) as f32 / 128.0));
        for (percent, steps) in [(0.0, 0), (0.2, 0), (1.0, 4), (50.0, 249), (100.0, 499)] {
            assert_eq!(scattered.percentile(percent), 30.0 + f64::from(steps) / 128.0, "{percent}");
        }
        assert_eq!(scattered.mean(), 30.0 + 249.5 / 128.0);
        assert_eq!(ledger([41.5]).percentile(1.0), 41.5);
        assert!(Ledger::new(Vec::new()).is_none());
    }

    #[test]
    fn the_worst_come_first_and_equals_in_order() {
        let numbers = |ledger: &Ledger, count| ledger.worst(count).iter().map(|w| w.sample).collect::<Vec<_>>();
        let few = ledger([35.0, 31.0, 33.0, 31.0, 100.0]);
        assert_eq!(numbers(&few, 3), [1, 3, 2]);
        assert_eq!(numbers(&few, 0), [0; 0]);
        assert_eq!(numbers(&few, 9), [1, 3, 2, 0, 4]);
        assert_eq!(few.worst(1), [SamplePsnr { sample: 1, psnr_db: 31.0 }]);
    }

    #[test]
    fn bars_hold_all_samples_between_round_numbers() {
        let some = ledger([27.3, 31.0, 31.9, 32.0, 34.99, 36.2]);
        let bars = some.histogram();
        let bounds: Vec<_> = bars.iter().map(|bar| (bar.from_db, bar.to_db)).collect();
        assert_eq!(bounds.first(), Some(&(27.0, 28.0)));
        assert_eq!(bounds.last(), Some(&(36.0, 37.0)));
        assert!(bounds.windows(2).all(|pair| pair[0].1 == pair[1].0));
        assert_eq!(bars.iter().map(|bar| bar.samples).collect::<Vec<_>>(), [1, 0, 0, 0, 2, 1, 0, 1, 0, 1]);
        // Ranges of any size, equal values, both ends of what can be.
        for (values, step) in [(vec![40.0, 40.6], 0.05), (vec![100.0, 100.0], 0.05), (vec![0.0, 100.0], 10.0)] {
            let bars = ledger(values.clone()).histogram();
            assert!((bars[0].to_db - bars[0].from_db - step).abs() < 1e-9, "{values:?}");
            assert!(bars.len() <= 13 && bars.iter().map(|bar| bar.samples).sum::<usize>() == values.len());
            let outside =
                |psnr: &f32| f64::from(*psnr) < bars[0].from_db || f64::from(*psnr) >= bars[bars.len() - 1].to_db;
            assert!(!values.iter().any(outside), "{values:?}");
        }
    }

    #[test]
    fn damaged_values_do_no_harm() {
        let damaged = ledger([f32::NAN, 30.0, f32::INFINITY, -1e30, 40.0]);
        assert!(damaged.histogram().is_empty(), "no step is that wide");
        assert_eq!(damaged.worst(1)[0].sample, 3);
        let bars = ledger([f32::NAN, 30.0, f32::INFINITY, 40.0]).histogram();
        assert_eq!(bars.iter().map(|bar| bar.samples).sum::<usize>(), 2);
        assert!(ledger([f32::NAN]).histogram().is_empty());
    }
}
