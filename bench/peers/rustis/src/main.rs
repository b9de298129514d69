//! rustis: multiplexed clients.

use larder_bench_load::{Error, Prepared, Tasks, serve};
use rustis::client::Client;
use rustis::commands::StringCommands as _;
use rustis::resp::BulkString;

fn main() -> Result<(), Error> {
    serve(std::env::args().skip(1), |scene| {
        let tasks = Tasks::of(scene)?;
        let mut clients = Vec::new();
        for _ in 0..scene.connections {
            clients.push(tasks.runtime.block_on(Client::connect(&*scene.place))?);
        }
        let round = move || {
            let clients = clients.clone();
            tasks.round(move |task, key| {
                let client = clients[task % clients.len()].clone();
                async move {
                    let found = client.get::<BulkString>(key.as_str()).await;
                    found.is_ok_and(|value| !value.is_empty())
                }
            })
        };
        Ok(Prepared {
            grown_bytes: 0,
            round,
        })
    })
}
