//! What a run leaves behind: its own directory, the evidence found in logs and files, the verdict, and the rows that
//! every report is a view of.
//!
//! Nothing here runs anything, and nothing here knows where a job ran.

pub mod aggregate;
pub mod attendance;
pub mod configs;
pub mod error_scan;
pub mod merge;
pub mod metric;
pub mod multiple;
pub mod redact;
pub mod row;
pub mod run_directory;
pub mod verdict;
