//! Versions: told the same until they are renewed, and never the same again.

use std::sync::Arc;

use larder_core::{Service, Store, Tag, Version, VersionName};

use super::{PATIENCE, service};

fn names() -> Vec<VersionName> {
    vec![
        VersionName::Service,
        VersionName::of_endpoint("/products"),
        VersionName::Tag(Tag::new("products").unwrap()),
        VersionName::Tag(Tag::new("product:17/a,b~'\"").unwrap()),
    ]
}

async fn versions(store: &dyn Store, service: &Service, names: &[VersionName]) -> Vec<Version> {
    let told = store.versions(service, names).await.unwrap();
    told.into_iter().map(|told| told.version).collect()
}

pub(super) async fn a_version_stays_until_it_is_renewed(store: &dyn Store) {
    let one = Service::new(&service("versions")).unwrap();
    let other = Service::new(&service("versions-other")).unwrap();
    let names = names();
    assert!(versions(store, &one, &[]).await.is_empty());
    let before = versions(store, &one, &names).await;
    let before_other = versions(store, &other, &names).await;
    assert_eq!(before, versions(store, &one, &names).await);
    for (n, version) in before.iter().enumerate() {
        assert!(!before[..n].contains(version) && !before_other.contains(version));
    }
    store.renew(&one, &names[1..3]).await.unwrap();
    let after = versions(store, &one, &names).await;
    assert_eq!((after[0], after[3]), (before[0], before[3]));
    assert!(after[1] != before[1] && after[2] != before[2]);
    assert_eq!(before_other, versions(store, &other, &names).await);
    store.renew(&one, &names).await.unwrap();
    let last = versions(store, &one, &names).await;
    assert!(
        last.iter()
            .all(|version| !after.contains(version) && !before.contains(version))
    );
}

pub(super) async fn all_who_ask_first_are_told_the_same(store: Arc<dyn Store>) {
    let service = Service::new(&service("versions-race")).unwrap();
    let asks: Vec<_> = (0..20)
        .map(|_| {
            let (store, service) = (Arc::clone(&store), service.clone());
            tokio::spawn(async move { versions(&*store, &service, &names()).await })
        })
        .collect();
    let mut all = Vec::new();
    for ask in asks {
        all.push(ask.await.unwrap());
    }
    assert!(all.iter().all(|told| *told == all[0]));
}

/// What was told with a proof may be kept for as long as that holds.
pub(super) async fn a_renewed_version_ends_its_proof(store: &dyn Store) {
    let service = Service::new(&service("versions-proof")).unwrap();
    let names = names();
    let told = store.versions(&service, &names).await.unwrap();
    store.renew(&service, &names[2..3]).await.unwrap();
    let began = std::time::Instant::now();
    if let Some(proof) = told[2].proof {
        while store.holds(&proof) {
            assert!(began.elapsed() < PATIENCE, "the push never came");
            tokio::task::yield_now().await;
        }
    }
}
