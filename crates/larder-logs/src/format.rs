//! In which form a log is written.

use std::fmt;

use crate::request::{Flaw, Request};
use crate::{common, csv, nginx};

/// In which form a log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Common or Combined Log Format.
    Common,
    /// JSON objects, as nginx writes them.
    NginxJson,
    /// CSV with a header.
    Csv,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Common => "common",
            Self::NginxJson => "nginx JSON",
            Self::Csv => "CSV",
        })
    }
}

/// How the lines of a log are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineFormat(Kind);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Common,
    NginxJson,
    Csv(csv::Columns),
}

impl LineFormat {
    /// The format that a line is in; `None` if it is in none. Of a CSV file the header tells.
    #[must_use]
    pub fn detect(line: &[u8]) -> Option<Self> {
        if common::parse(line).is_ok() {
            return Some(Self(Kind::Common));
        }
        if nginx::parse(line).is_ok() {
            return Some(Self(Kind::NginxJson));
        }
        csv::Columns::of_header(line).map(|columns| Self(Kind::Csv(columns)))
    }

    /// The format without its details.
    #[must_use]
    pub fn format(&self) -> Format {
        match self.0 {
            Kind::Common => Format::Common,
            Kind::NginxJson => Format::NginxJson,
            Kind::Csv(_) => Format::Csv,
        }
    }

    /// The request that a line tells of.
    ///
    /// # Errors
    /// A [`Flaw`], if it tells of none.
    pub fn parse<'a>(&self, line: &'a [u8]) -> Result<Request<'a>, Flaw> {
        match &self.0 {
            Kind::Common => common::parse(line),
            Kind::NginxJson => nginx::parse(line),
            Kind::Csv(columns) => columns.parse(line),
        }
    }
}
