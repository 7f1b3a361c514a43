//! What the user can do about each error: the line after the message.
//!
//! The messages themselves are beside the variants; where only the place of the error knows the remedy, the variant carries it.

use std::path::Path;

use super::Error;

impl Error {
    /// What the user can do about it, where there is something to say beyond the message.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Dataset { hint, .. }
            | Self::Table { hint, .. }
            | Self::Sweep { hint, .. }
            | Self::Options { hint, .. } => Some(hint.clone()),
            Self::TableColumns { columns, option, .. } => {
                // One column with a separator in its name is a line that was not split.
                let alone = columns.first().filter(|_| columns.len() == 1);
                let separators = [
                    ("\\t", "a .tsv with tabs"),
                    (";", "a .csv with commas"),
                    (",", "a .csv with commas"),
                ];
                let unsplit = separators
                    .iter()
                    .find(|(separator, _)| alone.is_some_and(|name| name.contains(separator)));
                Some(match unsplit {
                    Some((separator, kind)) => format!(
                        "its first line, {}, is not split at `{separator}`: save it as {kind}",
                        columns.join(", ")
                    ),
                    None => format!(
                        "its columns are {}; name the right one with `{option}`, or, where these are no names, begin the \
                         table with a line of names such as `path,label,split`",
                        columns.join(", ")
                    ),
                })
            }
            Self::Archive { .. } => {
                Some("get the archive again, or make it anew: `tar tf ARCHIVE` must list it to its end".to_owned())
            }
            Self::Damaged { .. } => Some("remove the file; `lastlayer extract` computes what is missing".to_owned()),
            Self::DamagedCache { repaired: true, .. } => Some(
                "what is damaged was set aside and is never used: run `lastlayer extract` to compute it again"
                    .to_owned(),
            ),
            Self::DamagedCache { .. } => Some("run it without `--dry-run` to set aside what is damaged".to_owned()),
            Self::NewerCache { .. } => Some("use that version, or another folder with `--cache`".to_owned()),
            Self::UnknownDataset { .. } => {
                Some("check the path, or name the cache that `extract` filled with `--cache`".to_owned())
            }
            Self::NotExtracted { path, .. } if path.ends_with("-") => Some(
                "give the list or the archive to `lastlayer extract -` again, with the same --cache and --backbone as \
                 before; it computes only what is missing"
                    .to_owned(),
            ),
            Self::NotExtracted { path, .. } => Some(format!(
                "run `lastlayer extract {}` with the same --cache and --backbone as before; it computes only what is missing",
                path.display()
            )),
            Self::NoViews { path, views, .. } => {
                let seed = match views.seed() {
                    0 => String::new(),
                    seed => format!(" --views-seed {seed}"),
                };
                let dataset = if path.ends_with("-") { Path::new("-") } else { path };
                Some(format!(
                    "run `lastlayer extract {} --views {}{seed}` with the same --cache and --backbone as before; it \
                     computes only what is missing",
                    dataset.display(),
                    views.count()
                ))
            }
            Self::SeveralSpaces { .. } | Self::NoSuchSpace { .. } => {
                Some("name one of them with its `--space`, or by its options".to_owned())
            }
            Self::OtherBackbone { .. } => Some("name the right backbone with `--backbone`".to_owned()),
            Self::Checkpoint { .. } => Some(
                "only plain weights are read: save them with `torch.save(model.state_dict(), path)`; \
                 if that is what the file is, fetch it again"
                    .to_owned(),
            ),
            Self::Network { network, .. } => Some(format!("the checkpoint must be torchvision's {network}, unchanged")),
            Self::Expectation { .. } => Some(
                "ONNX Runtime computes wrongly or with reduced precision here: try another library with `--ort-lib`"
                    .to_owned(),
            ),
            Self::NotOnnx { source, .. } => Some(source.hint().to_owned()),
            Self::ModelInput { .. } => {
                Some("one input of f32 [batch, 3, height, width] is needed, channels first".to_owned())
            }
            Self::Model { hint, .. } => Some(hint.clone()),
            Self::UnknownTensor { candidates, .. } if !candidates.is_empty() => {
                let names: Vec<String> = candidates.iter().map(|name| format!("`{name}`")).collect();
                Some(format!("features could be {}", names.join(", ")))
            }
            Self::ExternalData { .. } => {
                Some("keep the model and the weight files that came with it in one folder".to_owned())
            }
            Self::RuntimeMissing { offline, .. } => Some(format!(
                "install it with `pip install onnxruntime`, or name the library file with `--ort-lib`{}",
                if *offline {
                    ", or drop `--offline` to have it fetched once"
                } else {
                    ""
                }
            )),
            Self::RuntimeLibrary { origin, .. } => Some(format!(
                "{origin} must name the ONNX Runtime library (libonnxruntime.so, .dylib or onnxruntime.dll) of version 1.22 \
                 or newer, or its folder; without it the usual places are searched"
            )),
            Self::Device { library, .. } => Some(format!(
                "the library loaded is `{}`; CUDA needs an NVIDIA driver and `pip install \"onnxruntime-gpu[cuda,cudnn]\"` \
                 (CUDA 13, cuDNN 9), or another such library named with `--ort-lib`; `--device cpu` always works",
                library.display()
            )),
            Self::Fetch { resumes, .. } => Some(format!(
                "check the connection and run the same command again{}",
                if *resumes {
                    ": it goes on where the download stopped"
                } else {
                    ""
                }
            )),
            Self::UnknownModel { .. } => {
                Some("name one of these, or give the path of an ONNX file: `./name.onnx`".to_owned())
            }
            Self::ModelNotFound { .. } => {
                Some("check the path; a name without `.onnx` and without a slash means a model of the zoo".to_owned())
            }
            Self::ModelOffline { file, origin, .. } => Some(format!(
                "get it by hand from {origin} and put it at `{}`, or drop `--offline`",
                file.display()
            )),
            Self::Diverged { learning_rate, .. } => Some(format!(
                "lower the learning rate, for example to {:?}",
                learning_rate / 10.0
            )),
            Self::NoOptimum => {
                Some("train on features of one scale with `--standardize`, or with a smaller `--C`".to_owned())
            }
            Self::NoHead { .. } => Some(
                "sweep lower learning rates or stronger penalties; --leaderboard FILE.csv has each one's reason"
                    .to_owned(),
            ),
            Self::TooManyFailures { .. } => {
                Some("mend or remove these files, or raise `--max-failures`; what was computed is kept".to_owned())
            }
            Self::UnknownRun { latest, .. } => Some(match latest {
                Some(latest) => format!(
                    "`lastlayer runs` lists them, the newest is `{latest}`; `--runs` names another folder of runs"
                ),
                None => "no run is kept there yet: `lastlayer train-head` keeps each; `--runs` names another folder"
                    .to_owned(),
            }),
            Self::AmbiguousRun { .. } => Some("say more of its name".to_owned()),
            Self::NoOutputFolder { .. } => Some("create the folder first, or name a file elsewhere".to_owned()),
            Self::UnknownHead { heads: 0, .. } => {
                Some("it is the run of one head, or none was kept: name it without a number".to_owned())
            }
            Self::UnknownHead { sweep, heads, .. } => Some(format!(
                "they are called `{sweep}/1` to `{sweep}/{heads}`, the best first; `train-head --keep N` keeps more"
            )),
            Self::SeveralDatasets { .. } => Some("name one of these in place of `best`".to_owned()),
            Self::Run { .. } => Some("`lastlayer runs` lists the runs that are whole".to_owned()),
            Self::DataChanged { .. } => Some(
                "only the same data give the same head: bring them back, or train anew with the options that \
                 `lastlayer runs show` prints"
                    .to_owned(),
            ),
            Self::Safetensors { .. } | Self::HeadFile { .. } => {
                Some("give a head file that `lastlayer train-head` wrote, or train it again".to_owned())
            }
            _ => None,
        }
    }
}
