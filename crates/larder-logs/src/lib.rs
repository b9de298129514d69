//! Access logs, read line by line in bounded memory.
//!
//! ```
//! use larder_logs::{Line, LogReader};
//!
//! let log = r#"10.0.0.7 - - [10/Oct/2026:13:55:36 -0700] "GET /products/42?a=1 HTTP/1.1" 200 2326"#;
//! let mut lines = LogReader::new(log.as_bytes());
//! let Some(Line::Request(request)) = lines.next_line()? else { panic!("it is a request") };
//! assert_eq!((&*request.target, request.status, request.bytes), ("/products/42?a=1", 200, 2_326));
//! assert_eq!(larder_logs::format_time(request.at_ms), "2026-10-10T20:55:36Z");
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! - The input may be gzip (of several members, too) or plain: its first bytes tell. It is unpacked as it is read.
//! - The format is that of the first line that is in one: Common or Combined Log Format, nginx JSON, or CSV with a
//!   header ([`Format`]).
//! - A line is at most [`MAX_LINE_BYTES`] long. A longer one is read away, and is no log line; whatever the input, no more
//!   than a buffer of 256 KiB is held.
//! - What is no log line is handed out with its [`Flaw`], and ends nothing.
//! - [`push_template`] makes a route template of a path: `/products/42` is `/products/{id}`.

mod common;
mod csv;
mod format;
mod lines;
mod nginx;
mod reader;
mod request;
mod template;
mod time;
mod unpack;

pub use format::{Format, LineFormat};
pub use lines::MAX_LINE_BYTES;
pub use reader::{Line, LogReader};
pub use request::{Flaw, Method, Request};
pub use template::push_template;
pub use time::format_time;
