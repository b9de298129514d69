//! What happened in a cache, in the text format of Prometheus.

use std::fmt::Write as _;

use larder_core::{Cache, StoreStats};

/// The `Content-Type` of [`prometheus()`].
pub const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What happened in a cache in this process, and how full its store is: in Prometheus' text format (0.0.4), to be served at
/// `/metrics`. No label comes from outside: none holds a key, a path or a user. Asks the store for its figures, which are left
/// out if it does not answer within its deadline.
///
/// ```
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let cache = larder::Cache::in_process(1 << 20);
/// let text = larder::prometheus(&cache).await;
/// assert!(text.contains("larder_lookups_total{outcome=\"hit\"} 0"));
/// # });
/// ```
pub async fn prometheus(cache: &Cache) -> String {
    let mut page = Page::default();
    page.lookups(cache);
    page.pending(cache);
    if let Ok(stats) = cache.stats().await {
        page.store(&stats);
    }
    page.0
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn lookups(&mut self, cache: &Cache) {
        let counts = cache.counts();
        self.counters(
            "larder_lookups_total",
            "Lookups, by what they did",
            "outcome",
            &[
                ("hit", counts.hits),
                ("miss", counts.misses),
                ("stale", counts.stales),
                ("bypass", counts.bypasses),
            ],
        );
        self.counters(
            "larder_stale_total",
            "Stale values served, by why",
            "reason",
            &[
                ("while_revalidate", counts.stale_while_revalidate),
                ("if_error", counts.stale_if_error),
                ("slow_load", counts.stale_slow),
            ],
        );
        self.counters(
            "larder_unused_entries_total",
            "Entries that were there and not used, by why",
            "reason",
            &[
                ("undecodable", counts.undecodable),
                ("dead", counts.dead),
                ("unsealed", counts.unsealed),
                ("hidden", counts.hidden),
            ],
        );
        for (name, help, count) in [
            (
                "larder_l1_hits_total",
                "Hits that the L1 answered",
                counts.hits_near,
            ),
            ("larder_loads_total", "Loads that began", counts.loads),
            (
                "larder_load_errors_total",
                "Loads that failed, panicked or took too long",
                counts.load_errors,
            ),
            (
                "larder_joined_total",
                "Lookups that joined a load under way in this process",
                counts.joined,
            ),
            (
                "larder_unshared_total",
                "Lookups that joined a load and could not have its value",
                counts.unshared,
            ),
            (
                "larder_lease_waits_total",
                "Waits for a load of another process",
                counts.lease_waits,
            ),
            (
                "larder_background_loads_total",
                "Loads that began in the background",
                counts.background_loads,
            ),
            (
                "larder_background_full_total",
                "Loads in the background that did not begin, since too many ran",
                counts.background_full,
            ),
            (
                "larder_fills_refused_total",
                "Fills refused since something was invalidated during the load",
                counts.refused,
            ),
            (
                "larder_too_large_total",
                "Values that were too large to be stored",
                counts.too_large,
            ),
            (
                "larder_store_errors_total",
                "Operations that the store did not do",
                counts.store_errors,
            ),
        ] {
            self.one(name, "counter", help, count);
        }
    }

    fn pending(&mut self, cache: &Cache) {
        let counts = cache.outbox_counts();
        for (name, kind, help, count) in [
            (
                "larder_outbox_pending",
                "gauge",
                "Parts of invalidations that the store does not know of yet",
                counts.pending,
            ),
            (
                "larder_outbox_applied_total",
                "counter",
                "Parts of invalidations that the store was told later",
                counts.applied,
            ),
            (
                "larder_outbox_adopted_total",
                "counter",
                "Journals of dead processes that were adopted",
                counts.adopted,
            ),
            (
                "larder_outbox_refused_total",
                "counter",
                "Journals that could not be adopted",
                counts.refused,
            ),
            (
                "larder_outbox_unreadable_total",
                "counter",
                "Lines of adopted journals that could not be read",
                counts.unreadable,
            ),
            (
                "larder_outbox_collapsed_total",
                "counter",
                "How often all of a service took the place of its parts",
                counts.collapsed,
            ),
        ] {
            self.one(name, kind, help, count);
        }
    }

    /// What the store can't tell is left out.
    fn store(&mut self, stats: &StoreStats) {
        for (name, kind, help, count) in [
            (
                "larder_store_entries",
                "gauge",
                "Entries of all services",
                stats.entries,
            ),
            (
                "larder_store_used_bytes",
                "gauge",
                "Bytes used",
                stats.used_bytes,
            ),
            (
                "larder_store_limit_bytes",
                "gauge",
                "Bytes that may be used",
                stats.limit_bytes,
            ),
            (
                "larder_store_evictions_total",
                "counter",
                "Entries removed to make room",
                stats.evictions,
            ),
            (
                "larder_store_expired_total",
                "counter",
                "Entries removed since their time was over",
                stats.expired,
            ),
            (
                "larder_store_damaged_total",
                "counter",
                "Entries that were damaged",
                stats.damaged,
            ),
        ] {
            if let Some(count) = count {
                self.one(name, kind, help, count);
            }
        }
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing into a String does not fail.
        let _ = writeln!(self.0, "# HELP {name} {help}.\n# TYPE {name} {kind}");
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, count: u64) {
        self.head(name, kind, help);
        let _ = writeln!(self.0, "{name} {count}");
    }

    fn counters(&mut self, name: &str, help: &str, label: &str, counts: &[(&str, u64)]) {
        self.head(name, "counter", help);
        for (value, count) in counts {
            let _ = writeln!(self.0, "{name}{{{label}=\"{value}\"}} {count}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    /// The samples, after a check of the form: each belongs to the family above it, and none comes twice.
    fn parse(text: &str) -> HashMap<String, u64> {
        let mut samples = HashMap::new();
        let (mut family, mut families) = (String::new(), HashSet::new());
        for line in text.lines() {
            if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                assert!(families.insert(name.to_owned()), "{name} twice");
                name.clone_into(&mut family);
            } else if !line.starts_with("# HELP ") {
                let (name, value) = line.rsplit_once(' ').unwrap();
                assert_eq!(name.split('{').next().unwrap(), family, "{line}");
                let old = samples.insert(name.to_owned(), value.parse().unwrap());
                assert_eq!(old, None, "{line}");
            }
        }
        samples
    }

    #[tokio::test]
    async fn the_page_has_every_outcome_and_no_key() {
        let cache = Cache::in_process(1 << 20);
        let key = larder_core::Key::new("local", "/a-path?user=canary").unwrap();
        for _ in 0..3 {
            let load = || async { Ok::<_, String>(1) };
            cache.get_or_load(&key, load).await.unwrap();
        }
        let text = prometheus(&cache).await;
        assert!(!text.contains("canary") && !text.contains("a-path"));
        let samples = parse(&text);
        assert_eq!(samples["larder_lookups_total{outcome=\"hit\"}"], 2);
        assert_eq!(samples["larder_lookups_total{outcome=\"miss\"}"], 1);
        assert_eq!(samples["larder_loads_total"], 1);
        assert_eq!(samples["larder_store_entries"], 1);
        assert_eq!(samples["larder_outbox_pending"], 0);
        assert!(samples.contains_key("larder_stale_total{reason=\"if_error\"}"));
    }
}
