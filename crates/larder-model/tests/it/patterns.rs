//! Patterns: never beyond their service, and as plain recursion has it.

use larder_model::Pattern;
use proptest::prelude::*;

use crate::fuzz_checks::check_pattern;

/// Glob rules without classes, as plain as can be.
fn naive(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => {
            naive(rest, text) || (!text.is_empty() && naive(pattern, &text[1..]))
        }
        ([b'?', rest @ ..], [_, text @ ..]) => naive(rest, text),
        ([b'\\', byte, rest @ ..], [first, text @ ..]) => byte == first && naive(rest, text),
        ([byte, rest @ ..], [first, text @ ..]) => byte == first && naive(rest, text),
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn they_match_as_plain_recursion_does(pattern in r"[ab*?\\]{0,8}", text in r"[ab\\*]{0,8}") {
        let parsed = Pattern::parse(&format!("cache:s:{pattern}")).unwrap();
        prop_assert_eq!(parsed.matches(&format!("cache:s:{text}")), naive(pattern.as_bytes(), text.as_bytes()));
    }

    #[test]
    fn they_stay_within_their_service(pattern in r"[ab*?:\[\]\\^-]{0,12}", key in r"[ab:\[\]*?-]{0,12}") {
        check_pattern(format!("{pattern}\0{key}").as_bytes());
        check_pattern(format!("cache:a{pattern}\0cache:a{key}").as_bytes());
    }
}

#[test]
fn five_hundred_stars_on_a_thousand_bytes_take_no_time() {
    let pattern = Pattern::parse(&format!("cache:s:{}b", "*a".repeat(500))).unwrap();
    let key = format!("cache:s:{}", "a".repeat(1_016));
    let begin = std::time::Instant::now();
    assert!(!pattern.matches(&key));
    // The mark is 1 ms, with optimisation.
    assert!(
        begin.elapsed() < std::time::Duration::from_millis(100),
        "{:?}",
        begin.elapsed()
    );
}
