//! Requests as chance makes them, from a seed.

use super::Request;

/// Chance, from a seed (splitmix64).
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn next_number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Above 0, at most 1.
    pub fn chance(&mut self) -> f64 {
        ((self.next_number() >> 11) as f64 + 1.0) / (1_u64 << 53) as f64
    }

    /// With a mean of 1.
    pub fn exponential(&mut self) -> f64 {
        -self.chance().ln()
    }

    /// Normally distributed, with a mean of 0 and a deviation of 1.
    pub fn normal(&mut self) -> f64 {
        (-2.0 * self.chance().ln()).sqrt() * (std::f64::consts::TAU * self.chance()).cos()
    }

    /// With this mean.
    pub fn lognormal(&mut self, mean: f64, spread: f64) -> f64 {
        (mean.ln() - spread * spread / 2.0 + spread * self.normal()).exp()
    }
}

/// Ranks by Zipf's law.
#[derive(Debug, Clone)]
pub struct Zipf(Vec<f64>);

impl Zipf {
    /// Of so many keys, with this exponent.
    #[must_use]
    pub fn new(keys: usize, exponent: f64) -> Self {
        let weights = (1..=keys).map(|rank| (rank as f64).powf(-exponent));
        let mut sum = 0.0;
        let mut sums: Vec<f64> = weights
            .map(|weight| {
                sum += weight;
                sum
            })
            .collect();
        sums.iter_mut().for_each(|part| *part /= sum);
        Self(sums)
    }

    /// The rank of the next request, from 0.
    pub fn draw(&self, random: &mut Random) -> usize {
        let at = random.chance();
        self.0
            .partition_point(|part| *part < at)
            .min(self.0.len() - 1)
    }
}

/// The hash of a key's number.
#[must_use]
pub fn hash(key: u64) -> u32 {
    Random(key).next_number() as u32
}

/// Arrivals by Poisson, as many a second as `rate` says of the time in seconds; `make` fills in the rest.
#[derive(Debug)]
pub struct Arrivals<R, M> {
    /// Where chance comes from.
    pub random: Random,
    /// The time, in seconds.
    pub at: f64,
    /// Its end.
    pub until: f64,
    /// Requests a second, at a time.
    pub rate: R,
    /// What makes a request's key, answer and latency, at a time.
    pub make: M,
}

impl<R, M> Iterator for Arrivals<R, M>
where
    R: Fn(f64) -> f64,
    M: FnMut(f64, &mut Random, &mut Request),
{
    type Item = Request;

    fn next(&mut self) -> Option<Request> {
        self.at += self.random.exponential() / (self.rate)(self.at);
        if self.at > self.until {
            return None;
        }
        let mut request = Request {
            at_ms: (self.at * 1_000.0) as u64,
            key: 0,
            body: 0,
            latency_ms: 0.0,
            is_error: false,
        };
        (self.make)(self.at, &mut self.random, &mut request);
        Some(request)
    }
}

/// So many requests a second for so many hours.
pub fn steadily<M>(rate: f64, hours: f64, seed: u64, make: M) -> impl Iterator<Item = Request>
where
    M: FnMut(f64, &mut Random, &mut Request),
{
    Arrivals {
        random: Random(seed),
        at: 0.0,
        until: hours * 3_600.0,
        rate: move |_| rate,
        make,
    }
}

/// Versions of keys that change by Poisson: once in `interval` seconds each.
#[derive(Debug, Clone)]
pub struct Versions {
    interval: f64,
    next: Vec<f64>,
    versions: Vec<u32>,
    random: Random,
}

impl Versions {
    /// Of so many keys; the interval is in seconds.
    #[must_use]
    pub fn new(keys: usize, interval: f64, seed: u64) -> Self {
        let mut random = Random(seed ^ 0xabcd);
        let next = (0..keys).map(|_| interval * random.exponential()).collect();
        Self {
            interval,
            next,
            versions: vec![0; keys],
            random,
        }
    }

    /// The version of a key, at a time that never goes back, in seconds.
    pub fn of(&mut self, key: usize, now: f64) -> u32 {
        while self.next[key] <= now {
            self.next[key] += self.interval * self.random.exponential();
            self.versions[key] += 1;
        }
        self.versions[key]
    }
}
