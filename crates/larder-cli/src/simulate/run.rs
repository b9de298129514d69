//! A simulation: line by line, each request to its endpoint.

use std::time::Instant;

use anyhow::Context as _;
use larder_core::{QueryRule, Service};
use larder_decide::simulation::{Request, Setup, Tally};
use larder_decide::{Limits, TTLS};
use larder_logs::{Line, LogReader, format_time};
use twox_hash::XxHash3_64;

use crate::args::Simulate;
use crate::replay::{
    Included, Input, LINES_PER_LOOK, LinesRead, Progress, SERVICE, Targets, ends_badly, shown,
};
use crate::simulate::endpoint::Endpoint;
use crate::simulate::report::{EndpointRow, Report, TtlRow};

/// So many endpoints have an engine, the first ones with enough requests.
const MOST_ENGINES: usize = 200;
/// So many endpoints are told apart.
const MOST_ENDPOINTS: usize = 10_000;
/// So many keys are told apart, of all endpoints together.
const MOST_KEYS: usize = 1_000_000;
/// A 304 says that nothing has changed.
const NOT_MODIFIED: u16 = 304;

/// Simulates a log. To be called where waiting does no harm.
pub(super) fn simulate(options: &Simulate, input: Input) -> anyhow::Result<Report> {
    let began = Instant::now();
    let mut progress = Progress::of(&input)?;
    let mut log = LogReader::new(input);
    let mut run = Run::new(options)?;
    let mut lines = 0_u64;
    loop {
        let line = log.next_line();
        let Some(line) = line.with_context(|| ends_badly(lines))? else {
            break;
        };
        lines += 1;
        if lines.is_multiple_of(LINES_PER_LOOK) {
            progress.show(lines);
        }
        match line {
            Line::Request(request) => run.take(&request),
            Line::Unreadable { text, flaw } => {
                let text = shown(text);
                run.lines.note_unreadable(log.line_number(), text, flaw);
            }
        }
    }
    run.lines.lines = log.line_number();
    let mut report = run.report();
    report.elapsed_seconds = began.elapsed().as_secs_f64();
    Ok(report)
}

struct Run<'a> {
    options: &'a Simulate,
    setup: Setup,
    targets: Targets,
    lines: LinesRead,
    /// By their place in `targets`.
    endpoints: Vec<Option<Endpoint>>,
    told_apart: usize,
    engines: usize,
    /// So many more keys are told apart.
    keys_left: usize,
    not_told_apart: u64,
    latest_ms: u64,
}

impl<'a> Run<'a> {
    fn new(options: &'a Simulate) -> anyhow::Result<Self> {
        let rule = match options.ignore_query {
            true => QueryRule::Only(Vec::new()),
            false => QueryRule::All,
        };
        let included = Included::new(options.include.clone());
        let limits = Limits {
            max_ttl: options.max_ttl,
            budget: options.staleness_budget,
            ..Limits::default()
        };
        Ok(Self {
            options,
            setup: Setup {
                limits,
                ..Setup::default()
            },
            targets: Targets::new(Service::new(SERVICE)?, rule, included),
            lines: LinesRead::default(),
            endpoints: Vec::new(),
            told_apart: 0,
            engines: 0,
            keys_left: MOST_KEYS,
            not_told_apart: 0,
            latest_ms: 0,
        })
    }

    fn take(&mut self, logged: &larder_logs::Request<'_>) {
        let lookup = self
            .lines
            .lookup(&self.options.status, &mut self.targets, logged);
        let Some((key, endpoint)) = lookup else {
            return;
        };
        self.latest_ms = self.latest_ms.max(logged.at_ms);
        let key = XxHash3_64::oneshot(key.as_str().as_bytes()) as u32;
        let at = endpoint.index();
        if self.endpoints.len() <= at {
            self.endpoints.resize_with(at + 1, || None);
        }
        let is_new = self.endpoints[at].is_none();
        if is_new && self.told_apart >= MOST_ENDPOINTS {
            self.not_told_apart += 1;
            return;
        }
        self.told_apart += usize::from(is_new);
        let setup = self.setup;
        let endpoint = self.endpoints[at].get_or_insert_with(|| Endpoint::new(setup));
        if !endpoint.knows(key) {
            if endpoint.is_full() || self.keys_left == 0 {
                self.not_told_apart += 1;
                return;
            }
            self.keys_left -= 1;
        }
        let latency_ms = logged.latency_micros.map(|micros| micros as f64 / 1_000.0);
        let request = Request {
            at_ms: self.latest_ms,
            key,
            // What a log tells of an answer.
            body: logged.bytes as u32 ^ u32::from(logged.status) << 16,
            latency_ms: latency_ms.unwrap_or(self.options.origin_ms),
            is_error: logged.status >= 500,
        };
        let has_body = logged.status != NOT_MODIFIED;
        let may_decide = self.engines < MOST_ENGINES;
        let is_decided = endpoint.step(request, logged.bytes, has_body, may_decide);
        self.engines += usize::from(is_decided);
    }

    fn report(self) -> Report {
        let names = self.targets.endpoints().names();
        let known = self.endpoints.iter().enumerate();
        let known = known.filter_map(|(at, endpoint)| Some((&names[at], endpoint.as_ref()?)));
        let mut endpoints: Vec<EndpointRow> = known
            .map(|(name, endpoint)| endpoint.report(name))
            .collect();
        endpoints.sort_by_key(|row| std::cmp::Reverse(row.requests));
        let span = self.lines.span_ms;
        Report {
            from: span.map(|(from, _)| format_time(from)),
            to: span.map(|(_, to)| format_time(to)),
            requests: endpoints.iter().map(|row| row.requests).sum(),
            not_told_apart: self.not_told_apart,
            total: self.total(),
            log: self.lines,
            endpoints,
            elapsed_seconds: 0.0,
        }
    }

    /// All endpoints together; that their peaks came at one time is the worst case.
    fn total(&self) -> Vec<TtlRow> {
        let mut sums = [(Tally::default(), 0_u64); TTLS.len()];
        for endpoint in self.endpoints.iter().flatten() {
            for ((sum, bytes), (tally, peak)) in sums.iter_mut().zip(endpoint.tallies()) {
                sum.requests += tally.requests;
                sum.hits += tally.hits;
                sum.stale += tally.stale;
                sum.waited_ms += tally.waited_ms;
                sum.without_ms += tally.without_ms;
                *bytes = bytes.saturating_add(peak);
            }
        }
        let rows = TTLS.iter().zip(&sums);
        rows.map(|(ttl, (tally, bytes))| TtlRow::of(u64::from(*ttl), tally, *bytes))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use clap::Parser as _;
    use larder_logs::Method;

    use super::*;
    use crate::args::{Args, Command};

    #[test]
    fn past_the_bound_no_key_is_told_apart_whatever_endpoint_it_is_of() {
        let args = Args::parse_from(["larder", "simulate", "log"]);
        let Command::Simulate(options) = args.command else {
            panic!("another command");
        };
        let mut run = Run::new(&options).unwrap();
        run.keys_left = 10;
        for at in 0..40_u64 {
            let target = format!("/{}/{}", ["a", "b"][at as usize % 2], at % 20);
            run.take(&larder_logs::Request {
                at_ms: at,
                method: Method::Get,
                target: Cow::Owned(target),
                status: 200,
                bytes: 1,
                latency_micros: None,
            });
        }
        let report = run.report();
        assert_eq!((report.requests, report.not_told_apart), (20, 20));
        assert_eq!(report.endpoints.len(), 2);
    }
}
