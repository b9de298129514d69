//! Whether a server is still a master. One that was demoted goes on answering reads and pings, from data that its new
//! master has long replaced.

use std::sync::Arc;
use std::time::Duration;

use crate::command::{Command, Expect};
use crate::connection::Connection;
use crate::resp::Value;

/// So often it is asked.
const EVERY: Duration = Duration::from_secs(1);

/// Ends a connection when its server says that it is a master no more; at greeting it then says so again.
pub(crate) async fn end_when_demoted(connection: Arc<Connection>) {
    loop {
        tokio::time::sleep(EVERY).await;
        let asked = connection.send_one(Command::new(&[b"ROLE"], Expect::Array));
        let Ok(Some(reply)) = asked else {
            // Too much is under way, or it ended.
            continue;
        };
        match reply.await {
            Ok(Value::Array(parts)) if parts.first().is_some_and(|role| !is_master(role)) => {
                connection.end("it is a replica now");
                return;
            }
            // A user may lack the right to ask.
            Ok(Value::Error(_)) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

fn is_master(role: &Value) -> bool {
    matches!(role, Value::Text(text) if text == "master")
}
