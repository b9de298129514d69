//! Any operations on two caches over one store, which are to each other what two processes are: each answers what a simple model
//! says. Policies change and time passes in between.

mod model;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use larder_core::{
    Cache, Clock, Endpoint, Governor, InProcess, Invalidated, Key, LoadError, Looked, Mode,
    Outcome, Pattern, PolicyPatch, Service, Store, Tag, Token,
};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::{Config, TestCaseResult, TestError, TestRunner};

use crate::{Failed, Steered, key};
use model::{Made, Model, Rule, Rules};

const ENDPOINTS: [&str; 3] = ["/a", "/a?b=1", "/c"];
const PATTERNS: [&str; 4] = [
    "cache:svc:*",
    "cache:svc:/a*",
    "cache:svc:/[ac]",
    "cache:svc:/x",
];

#[derive(Debug, Clone)]
enum Step {
    Get(usize),
    Load(usize, Made),
    /// A key, and seconds.
    Set(usize, u64),
    Delete(Vec<usize>),
    Clear(usize),
    InvalidateTag,
    /// The endpoint of a key.
    InvalidateEndpoint(usize),
    InvalidateService,
    Token(usize),
    /// A token, and seconds.
    SetIf(usize, u64),
    Govern(Rules),
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<(usize, Step)>> {
    let key = || 0..ENDPOINTS.len();
    let keys = subsequence(
        (0..ENDPOINTS.len()).collect::<Vec<_>>(),
        1..=ENDPOINTS.len(),
    );
    let life = || select(vec![5_u64, 60, 300]);
    let made = select(vec![Made::Value, Made::Value, Made::Absent, Made::Failed]);
    let either = |one: u64, other: u64| select(vec![one, other]);
    let rules = (
        prop::bool::weighted(0.85),
        (either(10, 100), either(0, 20), either(0, 50), either(0, 30)),
        any::<bool>(),
    );
    let rules = rules.prop_map(
        |(is_on, (ttl, revalidate, error, negative), is_tagged)| Rules {
            is_on,
            ttl,
            revalidate,
            error,
            negative,
            is_tagged,
        },
    );
    let step = prop_oneof![
        6 => key().prop_map(Step::Get),
        12 => (key(), made).prop_map(|(key, made)| Step::Load(key, made)),
        3 => (key(), life()).prop_map(|(key, life)| Step::Set(key, life)),
        2 => keys.prop_map(Step::Delete),
        1 => (0..PATTERNS.len()).prop_map(Step::Clear),
        2 => Just(Step::InvalidateTag),
        1 => key().prop_map(Step::InvalidateEndpoint),
        1 => Just(Step::InvalidateService),
        3 => key().prop_map(Step::Token),
        3 => (0..4_usize, life()).prop_map(|(token, life)| Step::SetIf(token, life)),
        4 => rules.prop_map(Step::Govern),
        6 => select(vec![1_u64, 5, 15, 31, 60]).prop_map(Step::Pass),
    ];
    prop::collection::vec((0..2_usize, step), 1..50)
}

/// A clock that only the steps move: in seconds.
#[derive(Clone, Default)]
struct Stepped(Arc<AtomicU64>);

impl Clock for Stepped {
    fn now(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::SeqCst))
    }
}

struct Machine {
    caches: [Cache; 2],
    governor: Arc<Steered>,
    clock: Stepped,
    model: Model,
    tokens: Vec<Token>,
    /// What was made last: each value is another.
    made: u32,
}

impl Machine {
    fn new(without: Option<Rule>) -> Self {
        let clock = Stepped::default();
        let store = Arc::new(InProcess::with_clock(64 << 20, Arc::new(clock.clone())));
        let governor = Arc::new(Steered::default());
        let cache = || {
            Cache::builder(Service::new("svc").unwrap())
                .governor(Arc::clone(&governor) as Arc<dyn Governor>)
                .store(Arc::clone(&store) as Arc<dyn Store>)
                .build()
        };
        let machine = Self {
            caches: [cache(), cache()],
            clock,
            model: Model::new(without),
            tokens: Vec::new(),
            made: 0,
            governor,
        };
        machine.govern(machine.model.rules);
        machine
    }

    fn govern(&self, rules: Rules) {
        let tag = Tag::new("t").unwrap();
        self.governor.set(&PolicyPatch {
            mode: Some(if rules.is_on { Mode::On } else { Mode::Off }),
            jitter: Some(0.0),
            ttl_seconds: Some(rules.ttl as f64),
            stale_while_revalidate_seconds: Some(rules.revalidate as f64),
            stale_if_error_seconds: Some(rules.error as f64),
            negative_ttl_seconds: Some(rules.negative as f64),
            tags: Some(rules.is_tagged.then_some(tag).into_iter().collect()),
            ..PolicyPatch::default()
        });
    }

    async fn step(&mut self, (cache, step): (usize, Step)) -> TestCaseResult {
        let cache = self.caches[cache].clone();
        self.made += 1;
        match step {
            Step::Get(key) => {
                let found = cache.get::<Option<u32>>(&key_of(key)).await;
                prop_assert_eq!(found, self.model.get(key));
            }
            // It would wait for the one who has the token.
            Step::Load(key, _) if self.model.is_leased(key) => {}
            Step::Load(key, made) => self.load(&cache, key, made).await?,
            Step::Set(key, life) => {
                let written = cache
                    .set(&key_of(key), &self.made, Duration::from_secs(life))
                    .await;
                prop_assert_eq!(written, self.model.set(key, self.made, life));
            }
            Step::Delete(keys) => {
                let names: Vec<Key> = keys.iter().copied().map(key_of).collect();
                let deleted = cache.delete_many(&names).await;
                same(&deleted, self.model.delete(&keys))?;
            }
            Step::Clear(pattern) => {
                let pattern = Pattern::parse(PATTERNS[pattern]).unwrap();
                let meant: Vec<usize> = (0..ENDPOINTS.len())
                    .filter(|key| pattern.matches(key_of(*key).as_str()))
                    .collect();
                same(&cache.clear(&pattern).await, self.model.delete(&meant))?;
            }
            Step::InvalidateTag => {
                let invalidated = cache.invalidate_tag(&Tag::new("t").unwrap()).await;
                self.model.invalidate_tag();
                same(&invalidated, 0)?;
            }
            Step::InvalidateEndpoint(key) => {
                let path = ENDPOINTS[key].split('?').next().unwrap();
                let endpoint: Endpoint = path.parse().unwrap();
                let invalidated = cache.invalidate_endpoint(&endpoint).await.swept().await;
                same(&invalidated, self.model.invalidate_endpoint(path))?;
            }
            Step::InvalidateService => {
                let invalidated = cache.invalidate_service().await.swept().await;
                same(&invalidated, self.model.invalidate_service())?;
            }
            Step::Token(key) => match cache.get_or_token::<Option<u32>>(&key_of(key)).await {
                Looked::Hit(value) => prop_assert_eq!(Some(value), self.model.get(key)),
                Looked::Miss(token) => {
                    prop_assert_eq!(None, self.model.get(key));
                    self.model.take_token(key, self.tokens.len());
                    self.tokens.push(token);
                }
            },
            Step::SetIf(token, life) if token < self.tokens.len() => {
                // The others keep their numbers.
                let key = self.tokens[token].key().clone();
                let empty = Cache::in_process(1 << 20).get_or_token::<u32>(&key).await;
                let Looked::Miss(empty) = empty else {
                    return Err(TestCaseError::fail("an empty cache has nothing"));
                };
                let token_there = std::mem::replace(&mut self.tokens[token], empty);
                let life_there = Duration::from_secs(life);
                let written = cache.set_if(token_there, &self.made, life_there).await;
                settle().await;
                prop_assert_eq!(written, self.model.set_if(token, self.made, life));
            }
            Step::SetIf(..) => {}
            Step::Govern(rules) => {
                self.model.rules = rules;
                self.govern(rules);
            }
            Step::Pass(seconds) => {
                self.clock.0.fetch_add(seconds, Ordering::SeqCst);
                self.model.pass(seconds);
            }
        }
        Ok(())
    }

    async fn load(&mut self, cache: &Cache, key: usize, made: Made) -> TestCaseResult {
        let value = self.made;
        let loader = move || async move {
            match made {
                Made::Value => Ok(Some(value)),
                Made::Absent => Ok(None),
                Made::Failed => Err(Failed("away")),
            }
        };
        let answer = cache.get_or_load_optional(&key_of(key), loader).await;
        settle().await;
        let expected: Option<(Option<u32>, Outcome)> = self.model.load(key, made, value);
        match answer {
            Ok(answer) => prop_assert_eq!(Some((answer.value, answer.outcome)), expected),
            Err(LoadError::Loader(_)) => prop_assert_eq!(None, expected),
            Err(other) => return Err(TestCaseError::fail(other.to_string())),
        }
        Ok(())
    }
}

/// What runs in the background is through then: on this runtime, with this store, it waits for nothing.
async fn settle() {
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
}

fn key_of(index: usize) -> Key {
    key(ENDPOINTS[index])
}

fn same(invalidated: &Invalidated, entries: u64) -> TestCaseResult {
    prop_assert!(invalidated.is_done());
    prop_assert_eq!(invalidated.entries(), entries);
    Ok(())
}

/// Runs as many sequences of steps, over a model without one of its rules.
fn run(cases: u32, without: Option<Rule>) -> Result<(), TestError<Vec<(usize, Step)>>> {
    let config = Config {
        cases,
        source_file: Some(file!()),
        // What a wrong model says is not to be kept.
        failure_persistence: without.map_or(Config::default().failure_persistence, |_| None),
        max_shrink_iters: without.map_or(Config::default().max_shrink_iters, |_| 0),
        ..Config::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_time().build().unwrap();
    TestRunner::new(config).run(&steps(), |steps| {
        runtime.block_on(async {
            let mut machine = Machine::new(without);
            for step in steps {
                machine.step(step).await?;
            }
            Ok(())
        })
    })
}

#[test]
fn two_caches_over_one_store_answer_what_a_simple_model_says() {
    match run(1_000, None) {
        Ok(()) => {}
        Err(TestError::Fail(why, steps)) => panic!("{why}\n{steps:#?}"),
        Err(other) => panic!("{other}"),
    }
}

/// A rule that is needed is found to be within some 300 sequences on average: that so many find none is less likely than one in
/// 10^50.
const UNTIL_NOT_NEEDED: u32 = 40_000;

#[test]
fn each_rule_of_the_model_is_needed() {
    for rule in Rule::ALL {
        let found = run(UNTIL_NOT_NEEDED, Some(rule));
        assert!(
            matches!(found, Err(TestError::Fail(..))),
            "{rule:?} is not needed"
        );
    }
}
