//! Passwords: hashed by argon2id, two at once, so that who tries many takes neither the memory nor the processors.

use std::sync::{Arc, LazyLock};

use argon2::password_hash::{PasswordHash, PasswordHasher as _, PasswordVerifier as _, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use larder_model::Secret;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// No password is shorter, in characters.
const LEAST: usize = 12;
/// None is longer, in bytes.
pub(crate) const MOST: usize = 1_024;
/// What a hash costs (OWASP's least): KiB of memory, passes, lanes.
const COST: (u32, u32, u32) = (19 * 1_024, 2, 1);
/// So many are hashed at once,
const AT_ONCE: usize = 2;
/// and so many more wait for it.
const WAITING: usize = 8;

/// Why a password is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PasswordError {
    #[error("a password has at least 12 characters")]
    Short,
    #[error("a password has at most 1,024 bytes")]
    Long,
    #[error("the system gives no random numbers")]
    NoRandomness,
    #[error("the password could not be hashed")]
    Failed,
    /// As many as may be wait already.
    #[error("too many log in at once: come again in a moment")]
    Busy,
}

/// The hash of a password, as it is stored: `$argon2id$…`, with its salt and what it cost.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Hashed(String);

impl Hashed {
    pub(crate) fn stored(text: String) -> Self {
        Self(text)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// # Errors
    /// A password that is too short or too long.
    pub(crate) fn of(password: &Secret) -> Result<Self, PasswordError> {
        let text = password.expose();
        if text.chars().count() < LEAST {
            return Err(PasswordError::Short);
        }
        if text.len() > MOST {
            return Err(PasswordError::Long);
        }
        hash(text)
    }

    fn is_of(&self, password: &Secret) -> bool {
        let Ok(hash) = PasswordHash::new(&self.0) else {
            return false;
        };
        let verified = hasher().and_then(|hasher| {
            let verified = hasher.verify_password(password.expose().as_bytes(), &hash);
            verified.map_err(|_| PasswordError::Failed)
        });
        verified.is_ok()
    }
}

fn hash(text: &str) -> Result<Hashed, PasswordError> {
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).map_err(|_| PasswordError::NoRandomness)?;
    let salt = SaltString::encode_b64(&salt).map_err(|_| PasswordError::Failed)?;
    let hash = hasher()?.hash_password(text.as_bytes(), &salt);
    let hash = hash.map_err(|_| PasswordError::Failed)?;
    Ok(Hashed(hash.to_string()))
}

fn hasher() -> Result<Argon2<'static>, PasswordError> {
    let (memory, passes, lanes) = COST;
    let params = Params::new(memory, passes, lanes, None).map_err(|_| PasswordError::Failed)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// That of nobody: to know that there is no such user takes as long as to know that the password is wrong.
static OF_NOBODY: LazyLock<Option<Hashed>> = LazyLock::new(|| hash("").ok());

/// Where passwords are looked at.
pub(crate) struct Desk {
    /// Those that are looked at, and those that wait.
    queue: Arc<Semaphore>,
    at_once: Arc<Semaphore>,
}

impl Default for Desk {
    fn default() -> Self {
        Self {
            queue: Arc::new(Semaphore::new(AT_ONCE + WAITING)),
            at_once: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }
}

impl Desk {
    /// Whether a password is that of a user, who may not exist.
    ///
    /// # Errors
    /// [`PasswordError::Busy`].
    pub(crate) async fn verify(
        &self,
        password: Secret,
        hashed: Option<Hashed>,
    ) -> Result<bool, PasswordError> {
        let place = self.place().await?;
        let verified = tokio::task::spawn_blocking(move || {
            let _place = place;
            let exists = hashed.is_some();
            let hashed = hashed.or_else(|| OF_NOBODY.clone());
            hashed.is_some_and(|hashed| hashed.is_of(&password)) && exists
        });
        verified.await.map_err(|_| PasswordError::Failed)
    }

    /// The hash of a new password.
    ///
    /// # Errors
    /// A [`PasswordError`].
    pub(crate) async fn hash(&self, password: Secret) -> Result<Hashed, PasswordError> {
        let place = self.place().await?;
        let hashed = tokio::task::spawn_blocking(move || {
            let _place = place;
            Hashed::of(&password)
        });
        hashed.await.map_err(|_| PasswordError::Failed)?
    }

    async fn place(&self) -> Result<[OwnedSemaphorePermit; 2], PasswordError> {
        let queued = Arc::clone(&self.queue).try_acquire_owned();
        let queued = queued.map_err(|_| PasswordError::Busy)?;
        let place = Arc::clone(&self.at_once).acquire_owned().await;
        Ok([queued, place.map_err(|_| PasswordError::Failed)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    #[tokio::test]
    async fn the_right_one_is_known_and_no_other() {
        let desk = Desk::default();
        let hashed = desk.hash(secret("correct horse battery")).await.unwrap();
        assert!(
            hashed
                .as_str()
                .starts_with("$argon2id$v=19$m=19456,t=2,p=1$")
        );
        let is = async |text: &str| {
            let hashed = Some(hashed.clone());
            desk.verify(secret(text), hashed).await.unwrap()
        };
        assert!(is("correct horse battery").await);
        assert!(!is("correct horse batterY").await);
        assert!(!is("").await);
        let other = desk.hash(secret("correct horse battery")).await.unwrap();
        assert!(other != hashed, "salted");
        assert_eq!(desk.verify(secret(""), None).await, Ok(false), "of nobody");
        let broken = Some(Hashed::stored("$argon2id$".to_owned()));
        assert_eq!(desk.verify(secret(""), broken).await, Ok(false));
        for (text, error) in [
            ("12345678901".to_owned(), PasswordError::Short),
            ("x".repeat(MOST + 1), PasswordError::Long),
        ] {
            assert_eq!(desk.hash(secret(&text)).await.err(), Some(error));
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_crowd_is_sent_away_and_leaves_nothing_behind() {
        let desk = Arc::new(Desk::default());
        let crowd = (0..100).map(|_| {
            let desk = Arc::clone(&desk);
            tokio::spawn(async move { desk.verify(secret("whatever it is"), None).await })
        });
        let crowd: Vec<_> = crowd.collect();
        let mut busy = 0;
        for one in crowd {
            busy += usize::from(one.await.unwrap() == Err(PasswordError::Busy));
        }
        assert!(busy > 0, "nobody was sent away");
        assert_eq!(desk.queue.available_permits(), AT_ONCE + WAITING);
        assert_eq!(desk.at_once.available_permits(), AT_ONCE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_third_is_not_looked_at_beside_two_and_one_too_many_does_not_wait() {
        let desk = Desk::default();
        let first = desk.place().await.unwrap();
        let _second = desk.place().await.unwrap();
        let third = desk.place();
        let third = tokio::time::timeout(std::time::Duration::from_secs(1), third).await;
        assert!(third.is_err(), "a third is looked at beside two");
        let wait = || Arc::clone(&desk.queue).try_acquire_owned().unwrap();
        let waiting: Vec<_> = (0..WAITING).map(|_| wait()).collect();
        assert_eq!(desk.place().await.err(), Some(PasswordError::Busy));
        drop((first, waiting));
        assert!(desk.place().await.is_ok());
    }
}
