//! Which key is asked for next: Zipf's law with exponent 1, from a fixed seed.

/// `count` numbers below `keys`; the first is asked for twice as often as the second, and so on. The order of the
/// popular ones is scattered, so that neighbours in a store are not neighbours in rank.
#[must_use]
pub fn requests(keys: usize, count: usize) -> Vec<u32> {
    let mut sums = Vec::with_capacity(keys);
    let mut sum = 0.0;
    for rank in 1..=keys {
        sum += 1.0 / rank as f64;
        sums.push(sum);
    }
    let mut random = Random::new(0x9e37_79b9_7f4a_7c15);
    (0..count)
        .map(|_| {
            let at = random.share() * sum;
            let rank = sums.partition_point(|upto| *upto < at).min(keys - 1);
            scatter(rank, keys)
        })
        .collect()
}

/// A permutation of the numbers below `keys`: the factor is a prime that divides no such number.
fn scatter(rank: usize, keys: usize) -> u32 {
    (rank as u64 * 1_000_003 % keys as u64) as u32
}

/// xorshift64*: quick, and the same in every run.
pub struct Random(u64);

impl Random {
    /// From a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        // 0 would stay 0.
        Self(seed | 1)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn share(&mut self) -> f64 {
        (self.number() >> 11) as f64 / (1_u64 << 53) as f64
    }
}
