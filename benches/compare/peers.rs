//! The same features by other people's libraries in Python.

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::ours::Reference;
use super::python::Python;
use super::turns::{Contender, Sample};
use super::{Result, Task, process};

/// A Python with the peers, and what they load.
pub(crate) struct Peers {
    python: Python,
    prepared: TempDir,
    pub(crate) versions: String,
    /// Why fastembed is not among them.
    fastembed: std::result::Result<(), String>,
}

/// A peer: its name in `peers.py`, and what it is called here.
pub(crate) type Peer = (&'static str, &'static str);

pub(crate) const FOLDED: &str = "torchvision-folded";
pub(crate) const PEERS: [Peer; 4] = [
    ("torchvision", "torchvision + PyTorch"),
    (FOLDED, "the same, BatchNorm folded into the convolutions by hand"),
    ("onnxruntime", "Pillow + onnxruntime in Python"),
    ("fastembed", "fastembed, with this backbone"),
];

impl Peers {
    pub(crate) fn find(interpreter: Option<std::path::PathBuf>, backbone: &Path) -> Result<Self> {
        let packages = ["torch", "torchvision", "onnxruntime", "onnx", "pillow", "numpy"];
        let python = Python::find("compare/peers.py", interpreter, &packages)?;
        // By itself: it asks for other versions at times, and is the least of them.
        let mut fastembed = python.install(&["fastembed"]).map_err(|problem| problem.to_string());
        let versions = python.versions()?;
        if fastembed.is_ok() && !versions.contains("fastembed") {
            fastembed = Err("it is not installed there".to_owned());
        }
        let prepared = tempfile::tempdir()?;
        python.ask(&["prepare", text(backbone)?, text(prepared.path())?])?;
        Ok(Self {
            python,
            prepared,
            versions,
            fastembed,
        })
    }

    /// Tries out the ways of a peer on some pictures, checks that its features are ours, and gives a contender that runs the
    /// fastest.
    pub(crate) fn contender<'a>(
        &'a self,
        (peer, name): Peer,
        task: &'a Task,
        dataset: &'a Path,
        reference: &'a Reference,
        trial: usize,
    ) -> Contender<'a> {
        let begin = || -> Result<(Value, Value, String)> {
            if peer == "fastembed" {
                self.fastembed.clone()?;
            }
            let asked = json!({
                "dataset": dataset,
                "folder": self.prepared.path(),
                "pictures": reference.pictures(),
                "threads": task.threads,
                "quick": task.quick,
                "trial": trial,
            });
            eprintln!("{name}: trial of {trial} pictures");
            let best = self.ask(&[peer, "trial", &asked.to_string()])?;
            let way = best["way"].clone();
            let mut checked = asked.clone();
            checked["reference"] = json!(reference.features());
            let check = self.ask(&[peer, "run", &checked.to_string(), &way.to_string()])?;
            let text = format!(
                "{}; the best of {}; least cosine to lastlayer's features {:.5}",
                in_words(&way),
                best["tried"],
                check["cosine"].as_f64().unwrap_or(f64::NAN),
            );
            Ok((asked, way, text))
        };
        match begin() {
            Ok((asked, way, text)) => Contender::new(name, text, move || {
                let ran = process::run(
                    &mut self
                        .python
                        .command(&[peer, "run", &asked.to_string(), &way.to_string()]),
                )?;
                let report = ran.json()?;
                let number = |key: &str| {
                    report[key]
                        .as_f64()
                        .ok_or_else(|| format!("`{key}` is missing in {report}"))
                };
                Ok(Sample {
                    own: number("pictures")? / number("seconds")?,
                    whole: Some(number("pictures")? / ran.seconds),
                    peak: ran.peak,
                    report: Value::Null,
                })
            }),
            Err(problem) => Contender::absent(name, problem),
        }
    }

    fn ask(&self, arguments: &[&str]) -> Result<Value> {
        process::run(&mut self.python.command(arguments))?.json()
    }

    /// The seconds of one picture as a whole process: import, load, classify.
    pub(crate) fn predict_one(&self, picture: &Path) -> Result<f64> {
        process::time(
            &mut self
                .python
                .command(&["cold", text(self.prepared.path())?, text(picture)?]),
        )
    }
}

/// `num_workers 2, batch_size 16, channels_last`.
fn in_words(way: &Value) -> String {
    let one = |(key, value): (&String, &Value)| match value {
        Value::Bool(true) => Some(key.clone()),
        Value::Bool(false) | Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(format!("{key} {other}")),
    };
    let parts: Vec<String> = way.as_object().into_iter().flatten().filter_map(one).collect();
    parts.join(", ")
}

fn text(path: &Path) -> Result<&str> {
    path.to_str()
        .ok_or_else(|| format!("`{}` is no text", path.display()).into())
}
