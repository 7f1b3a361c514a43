//! Experiments are kept: each training as a folder, which can be listed, compared and repeated bit for bit.
//!
//! A run's folder is `ROOT/YYYYMMDD-HHMMSS-NAME/`, in UTC:
//!
//! | file | what |
//! |---|---|
//! | `run.json` | format, kind (`head`, `sweep`), status (`running`, `complete`, `failed`), name, when, how long, why it failed |
//! | `config.json` | [`RunConfig`]: data set, features, recipe, version, command |
//! | `data.json` | [`DataFingerprint`](crate::DataFingerprint) of the rows used |
//! | `space.json` | the feature space's canonical JSON, byte for byte as in the cache: its blake3 is the space's id |
//! | `history.csv` | the epochs: `epoch,lr,train_loss,train_accuracy,val_loss,val_accuracy` |
//! | `events.out.tfevents.*` | the same for TensorBoard |
//! | `metrics.json` | what the head is worth |
//! | `head.safetensors` | the head |
//! | `folds.csv` | of a cross-validation, which picture validated in which fold |
//!
//! A sweep's folder has `leaderboard.csv` and `leaderboard.json` in place of history and head, and the folders of the heads
//! that are kept. `run.json` is there from the beginning and says `complete` when all the others are: whatever stops a run,
//! its folder tells. What is in these folders is read as any file from elsewhere: damage is a value of the listing, never
//! its end.
//!
//! This module knows nothing of how heads are trained or printed.

mod best;
mod compare;
mod config;
mod entry;
mod find;
mod history;
mod options;
mod query;
mod tensorboard;
mod time;
mod validation;
mod writer;

pub use compare::{Compared, Comparison, compare_runs};
pub use config::{RunConfig, RunDataset, RunFeatures};
pub use entry::{Run, RunState};
pub use find::{find_run, list_runs};
pub(crate) use query::check_keys;
pub use query::{RunFilter, has_key, look_up, sort_runs};
pub use writer::{RunInputs, RunKind, RunWriter};

const RUN: &str = "run.json";
const CONFIG: &str = "config.json";
const DATA: &str = "data.json";
const SPACE: &str = "space.json";
const HISTORY: &str = "history.csv";
const METRICS: &str = "metrics.json";
/// The head in a run's folder.
pub(crate) const HEAD: &str = "head.safetensors";
const LEADERBOARD: &str = "leaderboard";
/// Which picture validates in which fold, of a cross-validation.
pub(crate) const FOLDS: &str = "folds.csv";
