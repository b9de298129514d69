//! Operations from many tasks.

use std::future::Future;
use std::sync::Arc;

use tokio::task::JoinSet;

use crate::{Error, Key, Runtime, Scene, keys, nanos_each, requests};

/// The tasks of a scene, with the runtime that they run on.
pub struct Tasks {
    /// What they run on.
    pub runtime: tokio::runtime::Runtime,
    /// The keys that there are.
    pub keys: Arc<[Key]>,
    requests: Arc<[u32]>,
    tasks: usize,
    /// Operations of one task.
    each: usize,
}

impl Tasks {
    /// The tasks of a scene.
    ///
    /// # Errors
    /// No runtime can be started.
    pub fn of(scene: &Scene) -> Result<Self, Error> {
        let mut builder = match scene.runtime {
            Runtime::Workers => tokio::runtime::Builder::new_multi_thread(),
            Runtime::Current => tokio::runtime::Builder::new_current_thread(),
        };
        Ok(Self {
            runtime: builder.worker_threads(2).enable_all().build()?,
            keys: keys(scene.keys)?.into(),
            requests: requests(scene.keys, scene.operations).into(),
            tasks: scene.workers,
            each: scene.operations / scene.workers,
        })
    }

    /// How long an operation takes, all tasks together, in nanoseconds. `look_up` is asked with the task's number, and
    /// answers whether it found something.
    ///
    /// # Errors
    /// A lookup found nothing.
    pub fn round<F, L>(&self, look_up: F) -> Result<f64, Error>
    where
        F: Fn(usize, Key) -> L + Clone + Send + 'static,
        L: Future<Output = bool> + Send,
    {
        let mut result = Ok(());
        let nanos = nanos_each(self.each * self.tasks, || {
            result = self.runtime.block_on(self.run(look_up));
        });
        result.map(|()| nanos)
    }

    async fn run<F, L>(&self, look_up: F) -> Result<(), Error>
    where
        F: Fn(usize, Key) -> L + Clone + Send + 'static,
        L: Future<Output = bool> + Send,
    {
        let mut tasks = JoinSet::new();
        for task in 0..self.tasks {
            let (keys, requests) = (Arc::clone(&self.keys), Arc::clone(&self.requests));
            let (look_up, each) = (look_up.clone(), self.each);
            tasks.spawn(async move {
                for request in requests.iter().cycle().skip(task * each).take(each) {
                    let key = keys[*request as usize].clone();
                    if !look_up(task, key).await {
                        return Err(Error::from("a lookup found nothing"));
                    }
                }
                Ok(())
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
        Ok(())
    }
}

/// Does something with every key, so many at a time.
///
/// # Errors
/// The first that failed.
pub async fn with_each<F, D>(keys: &Arc<[Key]>, workers: usize, work: F) -> Result<(), Error>
where
    F: Fn(Key) -> D + Clone + Send + 'static,
    D: Future<Output = Result<(), Error>> + Send + 'static,
{
    let mut all = JoinSet::new();
    for worker in 0..workers {
        let (keys, work) = (Arc::clone(keys), work.clone());
        all.spawn(async move {
            for key in keys.iter().skip(worker).step_by(workers) {
                work(key.clone()).await?;
            }
            Ok::<_, Error>(())
        });
    }
    while let Some(ended) = all.join_next().await {
        ended??;
    }
    Ok(())
}
