//! A Python with other people's libraries: one that is there, or a throwaway environment with them.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[cfg(windows)]
const INTERPRETERS: [&str; 2] = ["python", "py"];
#[cfg(not(windows))]
const INTERPRETERS: [&str; 2] = ["python3", "python"];

/// A Python that can run one of the scripts in this folder's neighbours.
pub(crate) struct Python {
    interpreter: PathBuf,
    script: PathBuf,
    /// Removed with this.
    environment: Option<TempDir>,
}

impl Python {
    /// Takes `interpreter`, or makes a virtual environment and lets its pip install `packages` from PyPI. `script`: below
    /// `benches/`.
    pub(crate) fn find(script: &str, interpreter: Option<PathBuf>, packages: &[&str]) -> Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches").join(script);
        if let Some(interpreter) = interpreter {
            return Ok(Self {
                interpreter,
                script,
                environment: None,
            });
        }
        let environment = tempfile::tempdir()?;
        let python = Self {
            interpreter: make_environment(environment.path())?,
            script,
            environment: Some(environment),
        };
        eprintln!(
            "installing {} from PyPI into a throwaway environment; --python takes one that is there",
            packages.join(", ")
        );
        python.install(packages)?;
        Ok(python)
    }

    /// Adds packages to an environment that was made here; one that was given is left as it is.
    pub(crate) fn install(&self, packages: &[&str]) -> Result<()> {
        if self.environment.is_none() {
            return Ok(());
        }
        let mut pip = Command::new(&self.interpreter);
        pip.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-input",
        ]);
        output(pip.args(packages)).map(|_| ())
    }

    /// The script with these arguments.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.interpreter);
        command.arg(&self.script).args(arguments);
        // Only together do they make sense, and either slows the library behind NumPy down where it does not fit.
        command.env_remove("OPENBLAS_CORETYPE").env_remove("OPENBLAS_L2_SIZE");
        command
    }

    /// What the script answers.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Result<Value> {
        Ok(serde_json::from_slice(&output(&mut self.command(arguments))?)?)
    }

    /// What the script knows of versions: `PyTorch 2.15.0, NumPy 2.4.6`.
    pub(crate) fn versions(&self) -> Result<String> {
        let found = self.ask(&["versions"])?;
        let found = found.as_object().ok_or("the versions are no object")?;
        let one = |(name, version): (&String, &Value)| format!("{name} {}", version.as_str().unwrap_or("?"));
        Ok(found.iter().map(one).collect::<Vec<_>>().join(", "))
    }
}

/// Makes the environment, and returns its Python.
fn make_environment(folder: &Path) -> Result<PathBuf> {
    let made = INTERPRETERS.iter().any(|python| {
        let mut command = Command::new(python);
        output(command.args(["-m", "venv"]).arg(folder)).is_ok()
    });
    if !made {
        return Err(format!("none of {INTERPRETERS:?} makes a virtual environment").into());
    }
    Ok(folder.join(if cfg!(windows) {
        "Scripts/python.exe"
    } else {
        "bin/python"
    }))
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
