//! Every verb through the binary, as a user runs it: exit codes, what is printed where, and what is on disk afterwards.
//!
//! Models and pictures are made by the tests; nothing but ONNX Runtime is fetched, by the program itself, once, into the
//! user's data folder. `reference` compares with `../shared` where that is present.
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod archives;
mod cache_explain;
mod cache_export;
mod cache_gc;
mod cache_status;
mod cache_verify;
mod common;
mod demo;
mod doctor;
mod evaluate;
mod extract;
mod extract_crash;
mod extract_data;
mod failures;
mod folds;
mod inputs;
mod int8;
#[cfg(unix)]
mod kill;
mod options;
mod pictures;
mod precision;
mod predict;
mod problems;
mod profile;
mod read_segment;
mod reference;
mod runs;
mod runtime;
mod sweep;
mod sweep_end;
mod together;
mod train_head;
mod views;
mod views_used;
