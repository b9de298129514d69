//! redis-rs: one `MultiplexedConnection`, or (`form=managed`) one `ConnectionManager`, or several of them; or
//! (`form=cluster`) one for each master of a Cluster.

mod cluster;

use larder_bench_load::{Error, Prepared, Round, Scene, Tasks, serve};
use redis::AsyncCommands as _;

fn main() -> Result<(), Error> {
    serve(std::env::args().skip(1), |scene| match &*scene.form {
        "cluster" => cluster::prepare(scene),
        _ => prepare(scene),
    })
}

fn prepare(scene: &Scene) -> Result<Prepared<Round>, Error> {
    let tasks = Tasks::of(scene)?;
    let client = redis::Client::open(&*scene.place)?;
    let (mut multiplexed, mut managed) = (Vec::new(), Vec::new());
    for _ in 0..scene.connections {
        if scene.form == "managed" {
            let connecting = client.get_connection_manager();
            managed.push(tasks.runtime.block_on(connecting)?);
        } else {
            let connecting = client.get_multiplexed_async_connection();
            multiplexed.push(tasks.runtime.block_on(connecting)?);
        }
    }
    let round = move || {
        if managed.is_empty() {
            let connections = multiplexed.clone();
            tasks.round(move |task, key| {
                let mut connection = connections[task % connections.len()].clone();
                async move { connection.get::<_, Vec<u8>>(key.as_str()).await.is_ok() }
            })
        } else {
            let connections = managed.clone();
            tasks.round(move |task, key| {
                let mut connection = connections[task % connections.len()].clone();
                async move { connection.get::<_, Vec<u8>>(key.as_str()).await.is_ok() }
            })
        }
    };
    Ok(Prepared {
        grown_bytes: 0,
        round: Box::new(round),
    })
}
