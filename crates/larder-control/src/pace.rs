//! How often something may be done.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use larder_model::Service;

const MINUTE: Duration = Duration::from_secs(60);
/// All policies of a service may be replaced so often in a minute.
pub(crate) const REPLACEMENTS: u32 = 60;

/// What was done in a minute, which begins with the first of it.
#[derive(Debug, Default)]
pub(crate) struct Minute {
    began: Option<Instant>,
    done: u32,
}

impl Minute {
    /// Whether one more may be done, if there are `most` in a minute.
    pub(crate) fn take(&mut self, most: u32, now: Instant) -> bool {
        if self.is_over(now) {
            self.began = Some(now);
            self.done = 0;
        }
        let may = self.done < most;
        self.done += u32::from(may);
        may
    }

    fn is_over(&self, now: Instant) -> bool {
        self.began
            .is_none_or(|began| now.saturating_duration_since(began) >= MINUTE)
    }
}

/// How often something was done lately of each service.
pub(crate) struct PerService {
    most: u32,
    services: Mutex<HashMap<Service, Minute>>,
}

impl PerService {
    /// So often in a minute.
    pub(crate) fn new(most: u32) -> Self {
        Self {
            most,
            services: Mutex::default(),
        }
    }

    /// Whether it may be done once more of a service.
    pub(crate) fn take(&self, service: &Service, now: Instant) -> bool {
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        services.retain(|_, minute| !minute.is_over(now));
        let minute = services.entry(service.clone()).or_default();
        minute.take(self.most, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_service_that_is_changed_too_often_keeps_no_other_from_it() {
        let replacements = PerService::new(REPLACEMENTS);
        let (one, other) = (Service::new("one").unwrap(), Service::new("other").unwrap());
        let begin = Instant::now();
        for _ in 0..REPLACEMENTS {
            assert!(replacements.take(&one, begin));
        }
        assert!(!replacements.take(&one, begin + MINUTE / 2));
        assert!(replacements.take(&other, begin + MINUTE / 2));
        assert!(replacements.take(&one, begin + MINUTE));
        assert_eq!(replacements.services.lock().unwrap().len(), 2);
    }
}
