//! PyTorch and scikit-learn: where they are, or a throwaway environment with them.

use std::path::{Path, PathBuf};

use ndarray::Array2;
use serde_json::Value;

use super::Result;
use super::made::Data;
use super::python::Python;

/// A Python that has both.
pub(crate) struct Peers {
    python: Python,
    /// `PyTorch 2.15.0, scikit-learn 1.9.1, NumPy 2.4.6`.
    pub(crate) versions: String,
}

impl Peers {
    /// Takes `interpreter`, or makes a virtual environment with both.
    pub(crate) fn find(interpreter: Option<PathBuf>) -> Result<Self> {
        let python = Python::find("training/peers.py", interpreter, &["torch", "scikit-learn", "numpy"])?;
        let versions = python.versions()?;
        Ok(Self { python, versions })
    }

    /// What `peers.py` answers.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Result<Value> {
        self.python.ask(arguments)
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
