//! Whether what a process takes has stayed level.

use std::fmt;

use larder_bench_load::Usage;

/// Memory may grow by this share from the second third to the last, and by [`SLACK`]: an allocator is no scale.
const GROWTH: f64 = 1.05;
const SLACK: u64 = 8 << 20;

/// What was seen at one time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) usage: Usage,
}

/// The most of the second third, and of the last. The first third is for warming up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Verdict {
    middle: Usage,
    end: Usage,
}

impl Verdict {
    pub(crate) fn of(samples: &[Sample]) -> Self {
        let third = samples.len() / 3;
        let (middle, end) = (
            samples.get(third..third * 2).unwrap_or_default(),
            samples.get(third * 2..).unwrap_or_default(),
        );
        Self {
            middle: most(middle),
            end: most(end),
        }
    }

    pub(crate) fn is_level(&self) -> bool {
        let is_level = |middle: u64, end: u64| end as f64 <= middle as f64 * GROWTH + SLACK as f64;
        is_level(self.middle.resident_bytes, self.end.resident_bytes)
            && is_level(self.middle.anonymous_bytes, self.end.anonymous_bytes)
            && self.end.threads <= self.middle.threads
            && self.end.descriptors <= self.middle.descriptors
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (middle, end) = (self.middle, self.end);
        let verdict = if self.is_level() {
            "level"
        } else {
            "NOT LEVEL"
        };
        write!(
            f,
            "resident {} MiB, then {}; threads {}, then {}; descriptors {}, then {}: {verdict}",
            middle.resident_bytes >> 20,
            end.resident_bytes >> 20,
            middle.threads,
            end.threads,
            middle.descriptors,
            end.descriptors,
        )
    }
}

fn most(samples: &[Sample]) -> Usage {
    let most = |of: fn(&Usage) -> u64| {
        let values = samples.iter().map(|sample| of(&sample.usage));
        values.max().unwrap_or(0)
    };
    Usage {
        resident_bytes: most(|usage| usage.resident_bytes),
        anonymous_bytes: most(|usage| usage.anonymous_bytes),
        threads: most(|usage| usage.threads),
        descriptors: most(|usage| usage.descriptors),
        wake_ups: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(of: impl Fn(u64) -> Usage) -> Vec<Sample> {
        (0..30).map(|at| Sample { usage: of(at) }).collect()
    }

    fn usage(resident_bytes: u64, threads: u64, descriptors: u64) -> Usage {
        Usage {
            resident_bytes,
            anonymous_bytes: resident_bytes,
            threads,
            descriptors,
            wake_ups: 0,
        }
    }

    #[test]
    fn warming_up_is_no_growth() {
        let warming = samples(|at| usage(at.min(9) * (40 << 20), 4, 20));
        assert!(Verdict::of(&warming).is_level());
    }

    #[test]
    fn a_leak_is_seen() {
        let leaks = [
            samples(|at| usage((400 << 20) + at * (5 << 20), 4, 20)),
            samples(|at| usage(400 << 20, 4 + at / 9, 20)),
            samples(|at| usage(400 << 20, 4, 20 + at)),
        ];
        for leak in leaks {
            assert!(!Verdict::of(&leak).is_level(), "{leak:?}");
        }
    }
}
