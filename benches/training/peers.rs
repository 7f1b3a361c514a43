//! PyTorch and scikit-learn: where they are, or a throwaway environment with them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ndarray::Array2;
use serde_json::Value;
use tempfile::TempDir;

use super::Result;
use super::made::Data;

#[cfg(windows)]
const INTERPRETERS: [&str; 2] = ["python", "py"];
#[cfg(not(windows))]
const INTERPRETERS: [&str; 2] = ["python3", "python"];

/// A Python that has both.
pub(crate) struct Peers {
    python: PathBuf,
    /// `PyTorch 2.15.0, scikit-learn 1.9.1, NumPy 2.4.6`.
    pub(crate) versions: String,
    /// Removed with this.
    _environment: Option<TempDir>,
}

impl Peers {
    /// Takes `python`, or makes a virtual environment and lets its pip install both from PyPI.
    pub(crate) fn find(python: Option<PathBuf>) -> Result<Self> {
        let (python, environment) = match python {
            Some(python) => (python, None),
            None => {
                let environment = tempfile::tempdir()?;
                (install(environment.path())?, Some(environment))
            }
        };
        let mut peers = Self {
            python,
            versions: String::new(),
            _environment: environment,
        };
        let found = peers.ask(&["versions"])?;
        let found = found.as_object().ok_or("the versions are no object")?;
        let one = |(name, version): (&String, &Value)| format!("{name} {}", version.as_str().unwrap_or("?"));
        peers.versions = found.iter().map(one).collect::<Vec<_>>().join(", ");
        Ok(peers)
    }

    /// What `peers.py` answers.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Result<Value> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/training/peers.py");
        let mut command = Command::new(&self.python);
        command.arg(script).args(arguments);
        // Only together do they make sense, and either slows the library behind NumPy down where it does not fit.
        command.env_remove("OPENBLAS_CORETYPE").env_remove("OPENBLAS_L2_SIZE");
        Ok(serde_json::from_slice(&output(&mut command)?)?)
    }
}

/// Writes what `peers.py` reads.
pub(crate) fn write(folder: &Path, data: &Data) -> Result<()> {
    let matrix = |name: &str, (features, labels): &(Array2<f32>, Vec<usize>)| -> Result<()> {
        ndarray_npy::write_npy(folder.join(format!("{name}.npy")), features)?;
        let labels: ndarray::Array1<i64> = labels.iter().map(|&label| label as i64).collect();
        ndarray_npy::write_npy(folder.join(format!("{name}_labels.npy")), &labels)?;
        Ok(())
    };
    matrix("train", &data.train)?;
    matrix("val", &data.validation)
}

/// Makes the environment, and returns its Python.
fn install(folder: &Path) -> Result<PathBuf> {
    eprintln!(
        "installing PyTorch and scikit-learn from PyPI into a throwaway environment; --python takes one that is there"
    );
    let made = INTERPRETERS.iter().any(|python| {
        let mut command = Command::new(python);
        output(command.args(["-m", "venv"]).arg(folder)).is_ok()
    });
    if !made {
        return Err(format!("none of {INTERPRETERS:?} makes a virtual environment").into());
    }
    let python = folder.join(if cfg!(windows) {
        "Scripts/python.exe"
    } else {
        "bin/python"
    });
    let mut pip = Command::new(&python);
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-input",
    ]);
    output(pip.args(["torch", "scikit-learn", "numpy"]))?;
    Ok(python)
}

/// Runs to the end, and returns what was written to standard output.
fn output(command: &mut Command) -> Result<Vec<u8>> {
    let shown = format!("{:?}", command.get_program());
    let output = command.stdin(Stdio::null()).stderr(Stdio::piped()).output();
    let output = output.map_err(|error| format!("{shown}: {error}"))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let last = complaint.lines().rev().find(|line| !line.trim().is_empty());
    Err(format!("{shown}: {}: {}", output.status, last.unwrap_or("it says nothing")).into())
}
