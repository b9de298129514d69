//! Looks at what stands beside an entry, without a change.

use std::time::Duration;

use larder_core::{Beside, Key, Service, StoreError, VersionName};

use crate::command::{Command, Expect};
use crate::lease::{UNCACHED, lease_key};
use crate::resp::Value;
use crate::store::RedisStore;
use crate::version::{self, version_key};

impl RedisStore {
    pub(crate) async fn look_beside(
        &self,
        key: &Key,
        names: &[VersionName],
    ) -> Result<Beside, StoreError> {
        let (lease, service) = (lease_key(key.as_str()), Service::from(key));
        let names = names.iter().map(|name| version_key(&service, name));
        let names: Vec<String> = names.collect();
        let mut reads: Vec<[&[u8]; 2]> = vec![[b"PTTL", lease.as_bytes()]];
        let places = std::iter::once(&lease).chain(&names);
        reads.extend(places.map(|place| [&b"GET"[..], place.as_bytes()]));
        let expected = |index| match index {
            0 => Expect::Integer,
            _ => Expect::Text,
        };
        let commands = reads.iter().enumerate();
        let commands = commands.map(|(index, read)| Command::new(read, expected(index)));
        let answers = self.servers.ask_over(&commands.collect::<Vec<_>>()).await;
        let [left, token, versions @ ..] = &answers[..] else {
            return Err(StoreError::NotBegun);
        };
        let is_held = match token.outcome.clone()? {
            Some(Value::Text(token)) => token != UNCACHED,
            _ => false,
        };
        let left = match left.outcome.clone()? {
            Some(Value::Integer(left)) => u64::try_from(left).ok(),
            _ => None,
        };
        let mut told = Vec::with_capacity(versions.len());
        for version in versions {
            told.push(version::read(version, None)?.map(|told| told.version));
        }
        Ok(Beside {
            lease: left.filter(|_| is_held).map(Duration::from_millis),
            versions: told,
        })
    }
}
