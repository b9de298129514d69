//! Known holes of Redis and Valkey through which a script, or anybody on a TLS port, takes over the server or its replies.
//!
//! From the records of the CVEs and the vendors' release notes.

use larder::Product;

/// A release: major, minor, patch.
pub(crate) type Release = (u32, u32, u32);

struct Hole {
    cve: &'static str,
    product: Product,
    /// The first release of each line without it; lines that begin later never had it, others were not mended.
    mended: &'static [Release],
    /// Whether it is there only where TLS is spoken.
    needs_tls: bool,
}

const HOLES: [Hole; 6] = [
    // Scripts: a use after free in the garbage collector of Lua.
    Hole {
        cve: "CVE-2024-46981",
        product: Product::Redis,
        mended: &[(6, 2, 17), (7, 2, 7), (7, 4, 2)],
        needs_tls: false,
    },
    // Scripts: a use after free in the parser of Lua; CVE-2025-46817, -46818 and -46819 were mended with it.
    Hole {
        cve: "CVE-2025-49844",
        product: Product::Redis,
        mended: &[(6, 2, 20), (7, 2, 11), (7, 4, 6), (8, 0, 4), (8, 2, 2)],
        needs_tls: false,
    },
    Hole {
        cve: "CVE-2025-49844",
        product: Product::Valkey,
        mended: &[(7, 2, 11), (8, 0, 6), (8, 1, 4)],
        needs_tls: false,
    },
    // Scripts: an error with a NUL in it puts replies of its own into the connection.
    Hole {
        cve: "CVE-2025-67733",
        product: Product::Valkey,
        mended: &[(7, 2, 12), (8, 0, 7), (8, 1, 6), (9, 0, 2)],
        needs_tls: false,
    },
    // A use after free among TLS connections that have more to read; without logging in.
    Hole {
        cve: "CVE-2026-81934",
        product: Product::Redis,
        mended: &[
            (6, 2, 24),
            (7, 2, 16),
            (7, 4, 11),
            (8, 2, 9),
            (8, 4, 6),
            (8, 6, 6),
            (8, 8, 2),
            (8, 10, 1),
        ],
        needs_tls: true,
    },
    // The same in Valkey, by who is logged in.
    Hole {
        cve: "CVE-2026-56684",
        product: Product::Valkey,
        mended: &[(7, 2, 14), (8, 0, 10), (8, 1, 9), (9, 0, 5), (9, 1, 1)],
        needs_tls: true,
    },
];

impl Hole {
    /// The first release without it, for one who has this release; `None` if this one is without it.
    fn mended_after(&self, release: Release) -> Option<Release> {
        let line = |(major, minor, _): Release| (major, minor);
        let later = self
            .mended
            .iter()
            .find(|mended| line(**mended) >= line(release));
        later.copied().filter(|mended| release < *mended)
    }
}

/// The holes that a release has, and the first release of its line, or else of a later one, without any.
pub(crate) fn of(
    product: Product,
    release: Release,
    speaks_tls: bool,
) -> Option<(Vec<&'static str>, Release)> {
    let of_it = HOLES
        .iter()
        .filter(|hole| hole.product == product && (speaks_tls || !hole.needs_tls));
    let open: Vec<(&'static str, Release)> = of_it
        .filter_map(|hole| Some((hole.cve, hole.mended_after(release)?)))
        .collect();
    let mended = open.iter().map(|(_, mended)| *mended).max()?;
    Some((open.into_iter().map(|(cve, _)| cve).collect(), mended))
}

/// Reads `7.2.11`.
pub(crate) fn release(version: &str) -> Option<Release> {
    let mut numbers = version.split('.').map(str::parse);
    let mut next = || numbers.next()?.ok();
    let release = (next()?, next()?, next()?);
    numbers.next().is_none().then_some(release)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_has_the_holes_that_were_mended_after_it() {
        let script = "CVE-2025-49844";
        for (product, version, tls, expected) in [
            (
                Product::Redis,
                "6.2.16",
                false,
                Some((vec!["CVE-2024-46981", script], (6, 2, 20))),
            ),
            // A line that was not mended.
            (
                Product::Redis,
                "7.0.15",
                false,
                Some((vec!["CVE-2024-46981", script], (7, 2, 11))),
            ),
            (
                Product::Redis,
                "7.2.10",
                false,
                Some((vec![script], (7, 2, 11))),
            ),
            (Product::Redis, "7.2.11", false, None),
            (
                Product::Redis,
                "7.2.11",
                true,
                Some((vec!["CVE-2026-81934"], (7, 2, 16))),
            ),
            (
                Product::Redis,
                "8.0.3",
                false,
                Some((vec![script], (8, 0, 4))),
            ),
            (
                Product::Redis,
                "8.0.6",
                true,
                Some((vec!["CVE-2026-81934"], (8, 2, 9))),
            ),
            (Product::Redis, "8.12.0", true, None),
            (
                Product::Valkey,
                "8.1.3",
                false,
                Some((vec![script, "CVE-2025-67733"], (8, 1, 6))),
            ),
            (
                Product::Valkey,
                "9.0.1",
                false,
                Some((vec!["CVE-2025-67733"], (9, 0, 2))),
            ),
            (
                Product::Valkey,
                "9.1.0",
                true,
                Some((vec!["CVE-2026-56684"], (9, 1, 1))),
            ),
            (Product::Valkey, "9.1.2", true, None),
        ] {
            assert_eq!(
                of(product, release(version).unwrap(), tls),
                expected,
                "{product:?} {version}"
            );
        }
    }

    #[test]
    fn a_version_that_is_none_is_not_read() {
        for version in ["", "7", "7.2", "7.2.x", "7.2.1.1", "-7.2.1"] {
            assert_eq!(release(version), None, "{version}");
        }
    }
}
