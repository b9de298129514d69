//! Random numbers that nobody can foresee.

use std::hash::{BuildHasher as _, RandomState};

/// By way of `std`, whose hashers have secret keys that come from the operating system's randomness, another one each time.
pub(crate) fn u128() -> u128 {
    let random = RandomState::new();
    u128::from(random.hash_one(0_u8)) << 64 | u128::from(random.hash_one(1_u8))
}

/// Above 0, at most 1.
pub(crate) fn chance() -> f64 {
    let random = RandomState::new().hash_one(0_u8);
    (random as f64 + 1.0) / (u64::MAX as f64 + 1.0)
}
