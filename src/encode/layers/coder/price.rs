//! What a block costs in a mode, and which mode to try next.

use super::{ModeCoder, Trials, UNIT, Values};

/// What modes cost: squared errors, and bits at `lambda` each.
pub(super) struct Price<'a> {
    pub modes: &'a [ModeCoder],
    pub lambda: f64,
}

impl Price<'_> {
    fn cost(&self, mode: usize, error: u64) -> f64 {
        error as f64 / UNIT + self.lambda * self.modes[mode].bits
    }

    /// Whether a mode with this error costs less than another; of equal costs that of fewer bits counts as less, then the
    /// first.
    pub fn is_less(&self, mode: usize, error: u64, (cost, other): (f64, usize)) -> bool {
        let bits = |mode: usize| self.modes[mode].bits;
        let order = self.cost(mode, error).total_cmp(&cost);
        order.then(bits(mode).total_cmp(&bits(other))).then(mode.cmp(&other)).is_lt()
    }

    /// The mode that costs least of those that are known, and its cost.
    pub fn best(&self, trials: &Trials) -> Option<(f64, usize)> {
        let mut best = None;
        for (mode, trial) in trials.iter().enumerate().filter(|(_, trial)| trial.is_known) {
            if best.is_none_or(|best| self.is_less(mode, trial.error, best)) {
                best = Some((self.cost(mode, trial.error), mode));
            }
        }
        best
    }

    /// The mode next to `near` that is not known and may cost less than any that is.
    pub fn next(&self, trials: &Trials, near: usize) -> Option<usize> {
        let best = self.best(trials);
        let near = best.map_or(near, |(_, best)| best);
        let may_pay = |&mode: &usize| {
            !trials[mode].is_known && best.is_none_or(|best| self.is_less(mode, trials[mode].error, best))
        };
        (0..self.modes.len()).filter(may_pay).min_by_key(|&mode| 2 * mode.abs_diff(near) + usize::from(mode < near))
    }
}

/// How much goes on within a block's quarters beside what a bit is worth, in steps of factors of two.
pub(super) fn busyness<const Q: usize>(values: &Values<Q>, lambda: f64) -> usize {
    let energy = |quarter: &[i16; Q]| {
        let (mut sum, mut squares) = (0i64, 0i64);
        for &value in quarter {
            (sum, squares) = (sum + i64::from(value), squares + i64::from(value).pow(2));
        }
        squares - sum * sum / Q as i64
    };
    let energy: i64 = values.iter().map(energy).sum();
    (energy as f64 / lambda + 1.0).log2().clamp(0.0, 31.0) as usize * 2
}
