//! The most specific template wins, whatever the templates.

use larder_model::{Endpoint, Templates};
use proptest::prelude::*;

/// How specific a segment of a template is: less is more.
fn rank(segment: &str) -> u8 {
    match segment {
        _ if segment.starts_with("{*") => 2,
        _ if segment.starts_with('{') => 1,
        _ => 0,
    }
}

/// Whether a template fits a path, segment by segment.
fn fits(template: &str, path: &str) -> bool {
    let (mut segments, mut path) = (template[1..].split('/'), path[1..].split('/'));
    loop {
        match (segments.next(), path.next()) {
            (Some(segment), Some(_)) if rank(segment) == 2 => return true,
            (Some(segment), Some(here)) if rank(segment) == 1 => {
                if here.is_empty() {
                    return false;
                }
            }
            (Some(segment), Some(here)) if segment == here => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

proptest! {
    #[test]
    fn the_most_specific_that_fits_is_found(
        templates in prop::collection::vec(r"(/(a|b|\{x\})){1,4}(/\{\*r\})?", 1..12),
        path in r"(/(a|b|c)){1,5}",
    ) {
        let mut found = Templates::default();
        for template in &templates {
            let endpoint: Endpoint = template.parse().unwrap();
            found.insert(&endpoint, template.clone());
        }
        let order = |template: &&String| -> Vec<u8> { template[1..].split('/').map(rank).collect() };
        let best = templates.iter().filter(|template| fits(template, &path)).min_by_key(order);
        let ours = found.find("GET", &path);
        prop_assert_eq!(ours.map(|best| order_of(best)), best.map(|best| order_of(best)), "{:?} {}", templates, path);
    }
}

fn order_of(template: &str) -> Vec<u8> {
    template[1..].split('/').map(rank).collect()
}
