//! The commands, one file each: its arguments and what it does.

pub mod create;
pub mod delete;
pub mod events;
pub mod exec;
pub mod features;
pub mod history;
pub mod kill;
pub mod list;
mod making;
mod matching;
pub mod pause;
pub mod ps;
pub mod resume;
pub mod rollback;
pub mod run;
pub mod spec;
pub mod start;
pub mod state;
pub mod stats;
mod table;
pub mod top;
pub mod update;
