//! Networks as ONNX Runtime optimised them for this machine, kept so that a session opens without doing it again.
//!
//! Optimising a network takes longer than classifying a picture with it, and leaves several copies of the weights in
//! memory. What ONNX Runtime makes of a network depends on the network, on the library and on the processor: all of them
//! are in the name of its folder, and what lies there is hashed before it is used. Opened from there, weights are mapped, so
//! that all sessions share them. Whatever fails here, the session is opened from the network itself: this is never an error.
//!
//! ```text
//! <data folder>/optimised/<key>/model.onnx     the graph
//!                               weights.bin    what it refers to; absent where there is nothing large
//!                               checksums      blake3 of both, 32 bytes each; its time is that of the last use
//! ```

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use super::runtime::Runtime;

const GRAPH: &str = "model.onnx";
const WEIGHTS: &str = "weights.bin";
const CHECKSUMS: &str = "checksums";
/// Part of every key: raised when what is kept under a key would be another file.
const FORMAT: &str = "lastlayer optimised model 1";
/// Smaller networks open at once.
const SMALLEST: usize = 1 << 20;
/// Those used last are kept.
const MOST_KEPT: usize = 4;

/// Held while a network is optimised, so that the sessions that are opened side by side don't all do it.
static MAKING: Mutex<()> = Mutex::new(());

/// How ONNX Runtime is to treat a network that it opens.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source<'a> {
    /// The network itself.
    Network(&'a [u8]),
    /// The network, which is written to `graph` and `weights` (beside it) as it is after optimisation.
    Optimise {
        network: &'a [u8],
        graph: &'a Path,
        weights: &'a str,
    },
    /// A graph that is optimised already.
    Optimised(&'a Path),
}

/// Opens `network` by way of what is kept of it on the CPU; `open` opens a session from any source.
///
/// # Errors
/// What `open` gives for the network itself.
pub(super) fn open<S, E: std::fmt::Display>(
    runtime: &Runtime,
    network: &[u8],
    open: impl Fn(Source<'_>) -> Result<S, E>,
) -> Result<S, E> {
    open_in(runtime.optimised_folder(), &identity(runtime), network, open)
}

fn open_in<S, E: std::fmt::Display>(
    shelf: &Path,
    identity: &str,
    network: &[u8],
    open: impl Fn(Source<'_>) -> Result<S, E>,
) -> Result<S, E> {
    if network.len() < SMALLEST {
        return open(Source::Network(network));
    }
    let mut key = blake3::Hasher::new();
    key.update(identity.as_bytes()).update(&[0]).update_rayon(network);
    let folder = shelf.join(&key.finalize().to_hex()[..32]);
    let kept = |folder: &Path| -> Option<S> {
        if !is_whole(folder) {
            return None;
        }
        let opened = open(Source::Optimised(&folder.join(GRAPH)));
        opened
            .inspect_err(|error| tracing::debug!(%error, "an optimised model can't be opened"))
            .ok()
    };
    if let Some(session) = kept(&folder) {
        return Ok(session);
    }
    let _guard = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    // Another thread may have made it meanwhile.
    if let Some(session) = kept(&folder) {
        return Ok(session);
    }
    let make = || -> io::Result<Result<S, E>> {
        fs::create_dir_all(shelf)?;
        let making = tempfile::Builder::new().prefix(".lastlayer-").tempdir_in(shelf)?;
        let session = match open(Source::Optimise {
            network,
            graph: &making.path().join(GRAPH),
            weights: WEIGHTS,
        }) {
            Ok(session) => session,
            Err(error) => return Ok(Err(error)),
        };
        put(making, &folder)?;
        trim(shelf, &folder);
        Ok(Ok(session))
    };
    match make() {
        // The one that optimised has copies of the weights of its own.
        Ok(Ok(session)) => Ok(kept(&folder).unwrap_or(session)),
        Ok(Err(_)) => open(Source::Network(network)),
        Err(error) => {
            tracing::debug!(%error, "the optimised model can't be kept");
            open(Source::Network(network))
        }
    }
}

/// What, besides the network, decides what ONNX Runtime makes of it.
fn identity(runtime: &Runtime) -> String {
    // Builds of one version differ.
    let length = fs::metadata(runtime.path()).map_or(0, |metadata| metadata.len());
    format!(
        "{FORMAT}\nONNX Runtime {} of {length} bytes\n{} {}\n{}",
        runtime.version(),
        std::env::consts::OS,
        std::env::consts::ARCH,
        processor().join(" ")
    )
}

/// The instruction sets by which ONNX Runtime chooses kernels and the layout of weights.
fn processor() -> Vec<&'static str> {
    let mut found = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        macro_rules! look_for {
            ($($name:tt)*) => { $(if std::arch::is_x86_feature_detected!($name) { found.push($name); })* };
        }
        look_for!("sse4.1" "avx" "avx2" "fma" "f16c" "avxvnni" "avxvnniint8" "avx512f" "avx512bw" "avx512dq" "avx512vl"
            "avx512vnni" "avx512bf16" "avx512fp16");
    }
    #[cfg(target_arch = "aarch64")]
    {
        macro_rules! look_for {
            ($($name:tt)*) => { $(if std::arch::is_aarch64_feature_detected!($name) { found.push($name); })* };
        }
        look_for!("neon" "fp16" "dotprod" "i8mm" "bf16" "sve");
    }
    found.push("end");
    found
}

/// Whether the folder's files are those that were put there; then it counts as used now.
fn is_whole(folder: &Path) -> bool {
    let path = folder.join(CHECKSUMS);
    let Ok(expected) = fs::read(&path) else {
        return false;
    };
    match checksums(folder) {
        Ok(found) if found == expected => {
            let touched = File::options().write(true).open(&path);
            // A folder that can't be written to is as good.
            let _ = touched.and_then(|file| file.set_modified(SystemTime::now()));
            true
        }
        found => {
            tracing::debug!(folder = %folder.display(), error = ?found.err(), "an optimised model is damaged");
            false
        }
    }
}

/// blake3 of the graph and of the weights.
fn checksums(folder: &Path) -> io::Result<Vec<u8>> {
    let weights = match checksum(&folder.join(WEIGHTS)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => *blake3::hash(&[]).as_bytes(),
        weights => weights?,
    };
    Ok([checksum(&folder.join(GRAPH))?, weights].concat())
}

fn checksum(path: &Path) -> io::Result<[u8; 32]> {
    let mut file = File::open(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut piece = vec![0_u8; 1 << 21];
    loop {
        let mut filled = 0;
        while filled < piece.len() {
            match file.read(&mut piece[filled..])? {
                0 => break,
                count => filled += count,
            }
        }
        hasher.update_rayon(&piece[..filled]);
        if filled < piece.len() {
            return Ok(*hasher.finalize().as_bytes());
        }
    }
}

/// Gives what was made its name; what has the name already was made of the same, unless it is damaged.
fn put(making: tempfile::TempDir, folder: &Path) -> io::Result<()> {
    fs::write(making.path().join(CHECKSUMS), checksums(making.path())?)?;
    // Private until here; readable for whoever shares the data folder from now on.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(making.path(), fs::Permissions::from_mode(0o755))?;
    }
    let _ = fs::remove_dir_all(folder);
    fs::rename(making.keep(), folder)
}

/// Removes what was not used for longest, and what killed programs left; `made` stays.
fn trim(shelf: &Path, made: &Path) {
    let Ok(entries) = fs::read_dir(shelf) else {
        return;
    };
    let mut kept: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in entries.flatten() {
        let path = entry.path();
        if crate::disk::is_temporary(&entry.file_name()) {
            if crate::disk::is_old_leftover(&path) {
                let _ = fs::remove_dir_all(&path);
            }
            continue;
        }
        if path != made {
            let used = fs::metadata(path.join(CHECKSUMS)).and_then(|metadata| metadata.modified());
            kept.push((used.unwrap_or(SystemTime::UNIX_EPOCH), path));
        }
    }
    kept.sort();
    let surplus = (kept.len() + 1).saturating_sub(MOST_KEPT);
    for (_, path) in &kept[..surplus] {
        // Its checksums first: nobody opens it half removed.
        let _ = fs::remove_file(path.join(CHECKSUMS));
        let _ = fs::remove_dir_all(path);
    }
}

#[cfg(test)]
#[path = "optimised_tests.rs"]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests;
