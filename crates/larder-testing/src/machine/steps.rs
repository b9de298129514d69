//! The operations, few enough in their arguments that they meet each other.

use proptest::prelude::*;
use proptest::sample::subsequence;

/// Keys with a query and a variant among them, which patterns tell apart.
pub(super) const ENDPOINTS: [&str; 4] = ["/a", "/a?b=1", "/a/1", "/c"];
pub(super) const PATTERNS: [&str; 5] = ["*", "/a*", "/a/?", "/[bc]", "/x"];
/// What is named besides keys: all of the service, an endpoint, a tag.
const VERSIONS: [usize; 3] = [0, 1, 2];

/// One operation. Keys, patterns, versions and leases by their number; lives in seconds.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// A key, and the longest that it may live yet.
    Get(usize, Option<u64>),
    GetMany(Vec<usize>),
    /// A key, a value, a life.
    Set(usize, u32, u64),
    SetMany(Vec<usize>, u32, u64),
    Delete(Vec<usize>),
    /// A pattern, and whether it is only counted.
    Clear(usize, bool),
    Acquire(Vec<usize>),
    /// A lease, a value, and whether the load's own right has ended.
    Fill(usize, u32, bool),
    Extend(usize),
    Release(usize),
    Versions(Vec<usize>),
    Renew(Vec<usize>),
    Beside(usize),
    /// How many a page has.
    Scan(usize),
}

/// Steps, each with the handle that takes it. Any part of any of them is one, too: so they can be made shorter.
pub(super) fn steps() -> impl Strategy<Value = Vec<(usize, Step)>> {
    let key = || 0..ENDPOINTS.len();
    let keys = || {
        subsequence(
            (0..ENDPOINTS.len()).collect::<Vec<_>>(),
            1..=ENDPOINTS.len(),
        )
    };
    let versions = || subsequence(VERSIONS.to_vec(), 1..=VERSIONS.len());
    let life = || prop::sample::select(vec![300_u64, 900]);
    let longest = prop::option::of(prop::sample::select(vec![200_u64, 600]));
    let lease = || 0..8_usize;
    let value = || 0..100_u32;
    let step = prop_oneof![
        6 => (key(), longest).prop_map(|(key, longest)| Step::Get(key, longest)),
        2 => keys().prop_map(Step::GetMany),
        4 => (key(), value(), life()).prop_map(|(key, value, life)| Step::Set(key, value, life)),
        2 => (keys(), value(), life())
            .prop_map(|(keys, value, life)| Step::SetMany(keys, value, life)),
        4 => keys().prop_map(Step::Delete),
        2 => (0..PATTERNS.len(), any::<bool>())
            .prop_map(|(pattern, is_dry)| Step::Clear(pattern, is_dry)),
        6 => keys().prop_map(Step::Acquire),
        6 => (lease(), value(), prop::bool::weighted(0.2))
            .prop_map(|(lease, value, is_ended)| Step::Fill(lease, value, is_ended)),
        2 => lease().prop_map(Step::Extend),
        2 => lease().prop_map(Step::Release),
        2 => versions().prop_map(Step::Versions),
        1 => versions().prop_map(Step::Renew),
        1 => key().prop_map(Step::Beside),
        1 => (1..6_usize).prop_map(Step::Scan),
    ];
    prop::collection::vec((0..2_usize, step), 1..40)
}
