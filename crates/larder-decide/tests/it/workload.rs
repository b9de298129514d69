//! Requests as chance makes them, from a seed.

use larder_decide::simulation::Request;

/// splitmix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Above 0, at most 1.
    pub(crate) fn chance(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 1.0) / (1_u64 << 53) as f64
    }

    /// With a mean of 1.
    pub(crate) fn exponential(&mut self) -> f64 {
        -self.chance().ln()
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * self.chance().ln()).sqrt() * (std::f64::consts::TAU * self.chance()).cos()
    }

    /// With this mean.
    pub(crate) fn lognormal(&mut self, mean: f64, spread: f64) -> f64 {
        (mean.ln() - spread * spread / 2.0 + spread * self.normal()).exp()
    }
}

/// Ranks by Zipf's law.
pub(crate) struct Zipf(Vec<f64>);

impl Zipf {
    pub(crate) fn new(keys: usize, exponent: f64) -> Self {
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

    pub(crate) fn draw(&self, random: &mut Random) -> usize {
        let at = random.chance();
        self.0
            .partition_point(|part| *part < at)
            .min(self.0.len() - 1)
    }
}

pub(crate) fn hash(key: u64) -> u32 {
    Random(key).next() as u32
}

/// Arrivals by Poisson, as many a second as `rate` says of the time in seconds; `make` fills in the rest.
pub(crate) struct Arrivals<R, M> {
    pub(crate) random: Random,
    pub(crate) at: f64,
    pub(crate) until: f64,
    pub(crate) rate: R,
    pub(crate) make: M,
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
pub(crate) fn steadily<M>(
    rate: f64,
    hours: f64,
    seed: u64,
    make: M,
) -> impl Iterator<Item = Request>
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
pub(crate) struct Versions {
    interval: f64,
    next: Vec<f64>,
    versions: Vec<u32>,
    random: Random,
}

impl Versions {
    pub(crate) fn new(keys: usize, interval: f64, seed: u64) -> Self {
        let mut random = Random(seed ^ 0xabcd);
        let next = (0..keys).map(|_| interval * random.exponential()).collect();
        Self {
            interval,
            next,
            versions: vec![0; keys],
            random,
        }
    }

    pub(crate) fn of(&mut self, key: usize, now: f64) -> u32 {
        while self.next[key] <= now {
            self.next[key] += self.interval * self.random.exponential();
            self.versions[key] += 1;
        }
        self.versions[key]
    }
}
