//! Each lookup is a span of OpenTelemetry, which says what came of it, and names no key.

use std::convert::Infallible;
use std::time::{Duration, Instant, SystemTime};

use larder::Cache;
use larder_testing::process::PATIENCE;
use opentelemetry::Value;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use tracing::Subscriber;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;

const SLOW: Duration = Duration::from_millis(30);

/// As a service exports its spans.
fn exporting_to(exporter: &InMemorySpanExporter) -> impl Subscriber + Send + Sync + use<> {
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(exporter.clone())
        .build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("a service"));
    tracing_subscriber::registry()
        .with(LevelFilter::INFO)
        .with(layer)
}

fn attribute(span: &SpanData, name: &str) -> Option<Value> {
    let mut attributes = span.attributes.iter();
    let found = attributes.find(|attribute| attribute.key.as_str() == name);
    found.map(|attribute| attribute.value.clone())
}

fn outcome(span: &SpanData) -> String {
    attribute(span, "outcome").unwrap().to_string()
}

fn took(span: &SpanData) -> Duration {
    let end: SystemTime = span.end_time;
    end.duration_since(span.start_time).unwrap()
}

#[tokio::test]
async fn each_lookup_is_exported_with_its_outcome_its_store_and_its_time() {
    let exporter = InMemorySpanExporter::default();
    let _here = tracing::subscriber::set_default(exporting_to(&exporter));

    let cache = Cache::in_process(1 << 20);
    let key = cache.key("/users/secret").unwrap();
    let load = || async {
        tokio::time::sleep(SLOW).await;
        Ok::<_, Infallible>(1)
    };
    assert_eq!(cache.get::<u32>(&key).await, None);
    cache.get_or_load(&key, load).await.unwrap();
    cache.get_or_load(&key, load).await.unwrap();
    assert_eq!(cache.get::<u32>(&key).await, Some(1));
    let other = cache.key("/other").unwrap();
    let failing = || async { Err::<u32, _>("away") };
    cache.get_or_load(&other, failing).await.unwrap_err();

    let spans = exporter.get_finished_spans().unwrap();
    let outcomes: Vec<String> = spans.iter().map(outcome).collect();
    assert_eq!(outcomes, ["miss", "miss", "hit", "hit", "failed"]);
    for span in &spans {
        assert_eq!(span.name, "larder lookup");
        assert_eq!(attribute(span, "service").unwrap().as_str(), "local");
        assert_eq!(
            attribute(span, "store").unwrap().as_str(),
            "in this process"
        );
        assert!(!format!("{span:?}").contains("secret"), "{span:?}");
    }
    assert!(took(&spans[1]) >= SLOW && took(&spans[2]) < took(&spans[1]));
    assert!(matches!(
        spans[4].status,
        opentelemetry::trace::Status::Error { .. }
    ));
}

/// Over a store that others share, it is told whether the L1 answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hit_of_the_l1_says_so() {
    let _room = crate::among_others();
    let redis = larder_testing::redis::RedisServer::start();
    let cache = crate::cache(&redis.url(), &larder::PolicyPatch::default());
    crate::until_connected(&cache).await;
    let key = cache.key("/a").unwrap();
    assert!(
        cache
            .set(&key, "value", larder::DEFAULT_TTL)
            .await
            .is_stored()
    );
    let exporter = InMemorySpanExporter::default();
    let _here = tracing::subscriber::set_default(exporting_to(&exporter));
    let begin = Instant::now();
    let span = loop {
        let near = cache.counts().hits_near;
        let seen = cache.get::<String>(&key).await;
        assert_eq!(seen.as_deref(), Some("value"));
        let span = exporter.get_finished_spans().unwrap().pop().unwrap();
        let is_near = cache.counts().hits_near > near;
        assert_eq!(attribute(&span, "l1"), is_near.then_some(Value::Bool(true)));
        if is_near {
            break span;
        }
        assert!(begin.elapsed() < PATIENCE, "the L1 has nothing");
    };
    let store = attribute(&span, "store").unwrap().to_string();
    assert!(store.starts_with("redis://127.0.0.1:"), "{store}");
}
