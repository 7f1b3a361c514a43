//! The cut model with the batch that its file fixed, to fall back on where opening that batch changes the numbers.
//!
//! Weights are kept once: this copy borrows those of the opened model when it is asked for.

use std::collections::{HashMap, HashSet};
use std::sync::OnceLock;

use prost::Message;

use super::cut::Cut;
use super::onnx::{ModelProto, TensorProto};
use super::{Refusal, complete};

/// A batch that was fixed in the file.
#[derive(Debug)]
pub(crate) struct FixedBatch {
    /// Its length.
    pub(crate) batch: i64,
    /// The model with that batch, less the weights that the opened one has too; `None` if there is no opened one.
    unopened: Option<Vec<u8>>,
    /// What `trial` found out, once it did: the model to run if it is not the opened one.
    pub(crate) decided: OnceLock<Option<Vec<u8>>>,
}

impl FixedBatch {
    /// Opens the batch of the pruned `model` if that can be done, and keeps what it was; returns the length of features.
    ///
    /// # Errors
    /// If the features are no `[batch, dim]` even with the batch as it is.
    pub(super) fn split(
        model: &mut ModelProto,
        input: &str,
        cut: &Cut,
        batch: i64,
    ) -> Result<(Option<usize>, Self), Refusal> {
        let ir_version = model.ir_version();
        let mut opened = model.clone();
        let graph = |model: &mut ModelProto| std::mem::take(&mut model.graph).unwrap_or_default();
        let mut kept = graph(model);
        let dim = complete(&mut kept, input, cut, ir_version, Some(batch))?;
        let mut open = graph(&mut opened);
        let fixed = |unopened| Self {
            batch,
            unopened,
            decided: OnceLock::new(),
        };
        if let Err(refusal) = complete(&mut open, input, cut, ir_version, None) {
            tracing::debug!(problem = refusal.problem, "the batch stays fixed");
            model.graph = Some(kept);
            return Ok((dim, fixed(None)));
        }
        let shared: HashSet<&str> = open.initializer.iter().map(TensorProto::name).collect();
        for tensor in &mut kept.initializer {
            if shared.contains(tensor.name()) {
                *tensor = TensorProto {
                    name: tensor.name.take(),
                    ..TensorProto::default()
                };
            }
        }
        opened.graph = Some(kept);
        model.graph = Some(open);
        Ok((dim, fixed(Some(opened.encode_to_vec()))))
    }

    /// The serialised model with the batch of the file; `None` if `opened`, the model beside this, is that already.
    pub(crate) fn unopened(&self, opened: &[u8]) -> Option<Vec<u8>> {
        const OWN: &str = "these bytes were encoded here";
        let mut model = ModelProto::decode(self.unopened.as_deref()?).expect(OWN);
        let opened = ModelProto::decode(opened).expect(OWN);
        let mut weights: HashMap<String, TensorProto> = opened
            .graph
            .into_iter()
            .flat_map(|graph| graph.initializer)
            .map(|tensor| (tensor.name().to_owned(), tensor))
            .collect();
        for tensor in model.graph.iter_mut().flat_map(|graph| &mut graph.initializer) {
            if tensor.data_type.is_none()
                && let Some(weight) = weights.remove(tensor.name())
            {
                *tensor = weight;
            }
        }
        Some(model.encode_to_vec())
    }
}
