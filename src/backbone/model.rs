//! A backbone file as the rest of the program sees it: a network cut at its features, with its identity.

use std::path::Path;

use bytes::Bytes;

use super::graph::{Doubt, FeatureModel};
use crate::cache::Origin;
use crate::error::{Error, Result};
use crate::picture::Transform;
use crate::space::{FeatureOptions, SpaceDescription};

/// A frozen network, cut at its features, with its identity.
#[derive(Debug, Clone)]
pub struct Backbone {
    origin: Origin,
    blake3: String,
    model: FeatureModel,
}

impl Backbone {
    /// Reads the ONNX classifier in `file`; `name` is how the user called it.
    ///
    /// `feature` names the tensor to take as the feature. Default: the input of the last classifier layer.
    ///
    /// # Errors
    /// When the file can't be read, is no ONNX model, or is none that turns a picture into features.
    pub fn open(name: &str, file: &Path, feature: Option<&str>) -> Result<Self> {
        let bytes = Bytes::from(std::fs::read(file).map_err(Error::io("read", file))?);
        let mut blake3 = blake3::hash(&bytes);
        let model = FeatureModel::from_bytes(bytes, file, feature)?;
        if let Some(weights) = model.external_weights {
            // The weights can change while the file that names them does not.
            blake3 = blake3::hash(&[*blake3.as_bytes(), *weights.as_bytes()].concat());
        }
        let file = std::fs::canonicalize(file).map_err(Error::io("open", file))?;
        Ok(Self {
            origin: Origin {
                name: name.to_owned(),
                file,
            },
            blake3: blake3.to_hex().to_string(),
            model,
        })
    }

    /// Where it was read from.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// blake3 of its bytes, hexadecimal; with weights in other files, of its hash and theirs.
    #[must_use]
    pub fn blake3(&self) -> &str {
        &self.blake3
    }

    /// What a person should know about the feature that was chosen, a line each.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let output = &self.model.output;
        let note = self.model.doubt.as_ref().map(|doubt| match doubt {
            Doubt::NoClassifier => format!(
                "the backbone has no classifier layer that is recognised: its output `{output}` is taken as the feature \
                 (`--feature {output}` if that is right)"
            ),
            Doubt::AveragedConvolution { output: averaged } => format!(
                "the backbone's last 1×1 convolution is taken for its classifier: the feature is the average of \
                 `{output}` (`--feature {averaged}` takes the output)"
            ),
        });
        note.into_iter().collect()
    }

    /// The network, ready to run.
    #[must_use]
    pub fn model(&self) -> &FeatureModel {
        &self.model
    }

    /// The feature space of this backbone after torchvision's validation transform for its input size.
    ///
    /// # Errors
    /// When its input is not square.
    pub fn space(&self, options: &FeatureOptions) -> Result<SpaceDescription> {
        let (height, width) = self.model.input_size;
        if height != width {
            return Err(Error::Usage(format!(
                "`{}` takes pictures of {width}×{height} pixels; only square inputs are supported",
                self.origin.file.display()
            )));
        }
        let transform = Transform {
            exif: options.exif,
            decode: options.decode,
            ..Transform::for_input(height)
        };
        Ok(SpaceDescription::new(
            &self.blake3,
            &self.model.output,
            transform,
            options.precision,
        ))
    }
}
