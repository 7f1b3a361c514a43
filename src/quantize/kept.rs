//! Quantised backbones in the cache's folder: made when a data set is first extracted in int8, and used from then on.
//!
//! A file's name is made of what decides how it is made, except for the pictures: those that are added later are computed by
//! the same backbone, in the same feature space. To have it made anew, remove the file.
//!
//! ```text
//! CACHE/models/<backbone>-int8-<key>.onnx         the backbone
//!              <backbone>-int8-<key>.onnx.json    the report of how it was made
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;

use super::{METHOD, QuantizeOptions, QuantizeReport, quantize};
use crate::backbone::Backbone;
use crate::cache::Cache;
use crate::dataset::Dataset;
use crate::disk::{create_folder, write_atomically};
use crate::error::{Error, Result};
use crate::observer::Observer;
use crate::space::FeatureOptions;

/// `backbone` in int8 for `dataset`: what was made of them before, or is made now.
///
/// Returns the backbone and the report of how it was made, which is missing where someone removed it.
///
/// # Errors
/// Those of [`quantize`], and when the file can't be read or written.
pub fn quantized_for(
    backbone: &Backbone,
    dataset: &Dataset,
    cache: &Cache,
    options: &QuantizeOptions,
    observer: &dyn Observer,
) -> Result<(Arc<Backbone>, Option<QuantizeReport>)> {
    let file = kept_file(backbone, &dataset.name, cache, options);
    let report_file = report_of(&file);
    if !file.is_file() {
        observer.note(&format!(
            "quantising `{}` to int8 with pictures of the data set, once",
            backbone.origin().name
        ));
        let mut made = quantize(backbone, dataset, options, observer)?;
        made.report.file = Some(file.to_string_lossy().into_owned());
        let report = serde_json::to_vec_pretty(&made.report)
            .map_err(|error| Error::io("write", &report_file)(std::io::Error::other(error)))?;
        create_folder(&cache.models_folder())?;
        // The file last: where it is, the report is.
        write_atomically(&report_file, &[&report])?;
        write_atomically(&file, &[&made.onnx])?;
    }
    let report = std::fs::read(&report_file).ok();
    let report = report.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let backbone = Backbone::open(&backbone.origin().name, &file, None)?;
    Ok((Arc::new(backbone), report))
}

/// The file that [`quantized_for`] uses, whether it is there or not.
pub(crate) fn kept_file(backbone: &Backbone, dataset: &Path, cache: &Cache, options: &QuantizeOptions) -> PathBuf {
    let FeatureOptions { exif, decode, .. } = options.features;
    let key = json!({
        "method": METHOD,
        "backbone": backbone.blake3(),
        "feature": backbone.model().output,
        "dataset": dataset.to_string_lossy(),
        "exif": exif,
        "decode": decode,
        "images": options.images,
        "seed": options.seed,
        "weight_bits": u8::from(options.weight_bits),
    });
    let key = blake3::hash(key.to_string().as_bytes()).to_hex();
    let name = Path::new(&backbone.origin().name).file_stem().unwrap_or_default();
    cache
        .models_folder()
        .join(format!("{}-int8-{}.onnx", name.to_string_lossy(), &key.as_str()[..16]))
}

fn report_of(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".json");
    PathBuf::from(name)
}
