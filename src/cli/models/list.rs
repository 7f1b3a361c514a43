//! `lastlayer models list`.

use std::io::Write;

use serde_json::{Value, json};

use super::super::context::Context;
use super::super::output::{Ending, Result, print_json};
use crate::backbone::models;

pub(super) fn run(context: &Context) -> Result<Ending> {
    let folders = context.model_folders();
    let models: Vec<_> = models()
        .into_iter()
        .map(|model| (model.find(&folders), model))
        .collect();
    if context.json {
        let models: Vec<Value> = models
            .iter()
            .map(|(found, model)| {
                json!({
                    "name": model.name, "description": model.description, "licence": model.licence,
                    "input_size": model.input_size, "feature_dim": model.feature_dim, "bytes": model.bytes,
                    "origin": model.origin(), "path": found,
                })
            })
            .collect();
        print_json(&json!({"models": models}))?;
        return Ok(Ending::Done);
    }
    let mut out = std::io::stdout().lock();
    for (found, model) in &models {
        writeln!(out, "{}: {}", model.name, model.description)?;
        writeln!(
            out,
            "  {} features of {2}×{2} pixels, licence {1}",
            model.feature_dim, model.licence, model.input_size
        )?;
        match found {
            Some(path) => writeln!(out, "  {}", path.display())?,
            None => writeln!(out, "  not here yet; comes from {}", model.origin())?,
        }
    }
    Ok(out.flush().map(|()| Ending::Done)?)
}
