//! Our matcher and Redis's mean the same by a pattern.

use larder_core::{ClearMode, Pattern, Store as _};
use larder_testing::redis::RedisServer;

use crate::connect_patiently;

/// xorshift64*, from a fixed seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }

    fn text(&mut self, letters: &[u8], longest: usize) -> String {
        let length = self.below(longest);
        (0..length)
            .map(|_| letters[self.below(letters.len())] as char)
            .collect()
    }
}

#[tokio::test]
async fn thousands_of_patterns_match_as_in_redis() {
    let server = RedisServer::start();
    let store = connect_patiently(&server.url());
    let mut random = Random(0x1234_5678);
    let mut keys: Vec<String> = (0..300)
        .map(|_| format!("cache:s:{}", random.text(b"abc-]^[?*\\", 6)))
        .collect();
    keys.sort();
    keys.dedup();
    let mut mset: Vec<&str> = vec!["MSET"];
    for key in &keys {
        mset.extend([key, "1"]);
    }
    server.cli(&mset);
    let mut matched = 0;
    for _ in 0..3_000 {
        let text = format!("cache:s:{}", random.text(b"abc-]^[?*\\**??[[", 9));
        let pattern = Pattern::parse(&text).unwrap();
        let ours = keys.iter().filter(|key| pattern.matches(key)).count() as u64;
        let theirs = store
            .clear(&pattern, ClearMode::DryRun)
            .await
            .unwrap()
            .entries;
        assert_eq!(ours, theirs, "{text}");
        matched += ours;
    }
    assert!(matched > 1_000, "the patterns match something: {matched}");
}
