//! `lastlayer doctor`.

use std::io::Write;

use clap::Args;
use serde_json::{Value, json};

use super::context::Context;
use super::output::{Ending, Result, print_json};
use crate::backbone::{CudaStatus, Runtime, models, registered_providers};
use crate::picture::{WITHOUT_VECTORS, decoder};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Fetch ONNX Runtime if it is nowhere
    #[arg(long)]
    fetch: bool,
}

pub(super) fn run(arguments: Arguments, context: &Context) -> Result<Ending> {
    let mut options = context.runtime();
    options.offline |= !arguments.fetch;
    let runtime = Runtime::load(&options, &context.observer);
    let providers: Vec<(String, Result<(), String>)> = runtime
        .as_ref()
        .map_or_else(|_| Vec::new(), |runtime| registered_providers(runtime));
    let cuda = runtime
        .as_ref()
        .ok()
        .map(|runtime| CudaStatus::of(runtime.path(), runtime.version()));
    let folders = context.model_folders();
    let backbones: Vec<_> = models()
        .into_iter()
        .map(|model| (model.find(&folders), model))
        .collect();
    let (spaces, cache_problem) = match context.cache.spaces() {
        Ok(spaces) => (spaces, None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    let mut rows = Vec::new();
    for (space, origin) in &spaces {
        let count = context.cache.open_space(space)?.map_or(0, |space| space.len());
        let name = origin
            .as_ref()
            .map_or("unknown backbone", |origin| origin.name.as_str());
        rows.push((space.id().to_string(), name, count));
    }
    let jpeg_simd = !decoder().contains(WITHOUT_VECTORS);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);

    if context.json {
        let runtime = match &runtime {
            Ok(runtime) => json!({
                "path": runtime.path(),
                "version": runtime.version(),
                "source": runtime.source().to_string(),
            }),
            Err(error) => json!({"error": error.to_string()}),
        };
        let providers: Vec<Value> = providers
            .iter()
            .map(|(name, registered)| {
                json!({
                    "name": name, "registers": registered.is_ok(), "problem": registered.as_ref().err(),
                })
            })
            .collect();
        let backbones: Vec<Value> = backbones
            .iter()
            .map(|(found, model)| {
                json!({
                    "name": model.name, "path": found, "origin": model.origin(), "licence": model.licence,
                })
            })
            .collect();
        let spaces: Vec<Value> = rows
            .iter()
            .map(|(id, name, count)| {
                json!({
                    "space": id, "backbone": name, "rows": count,
                })
            })
            .collect();
        print_json(&json!({
            "version": env!("CARGO_PKG_VERSION"),
            "runtime": runtime,
            "providers": providers,
            "cuda": cuda.as_ref().map(|cuda| json!({
                "driver": cuda.driver.as_ref().ok().map(String::as_str),
                "problem": cuda.driver.as_ref().err(),
                "provider": cuda.provider.as_ref().map(|path| path.to_string_lossy()),
                "needs": cuda.versions,
                "libraries": cuda.libraries.iter().map(|library| json!({
                    "name": library.name,
                    "path": library.path.as_ref().map(|path| path.to_string_lossy()),
                })).collect::<Vec<_>>(),
            })),
            "decoder": decoder(),
            "jpeg_simd": jpeg_simd,
            "backbones": backbones,
            "cache": {"path": context.cache.root().to_string_lossy(), "spaces": spaces, "problem": cache_problem},
            "data_folder": context.data_dir,
            "cores": cores,
            "offline": context.offline,
        }))?;
        return Ok(Ending::Done);
    }

    let mut out = std::io::stdout().lock();
    writeln!(out, "lastlayer     {}", env!("CARGO_PKG_VERSION"))?;
    match &runtime {
        Ok(runtime) => {
            writeln!(out, "ONNX Runtime  {} ({})", runtime.version(), runtime.source())?;
            writeln!(out, "              {}", runtime.path().display())?;
        }
        Err(error) => {
            writeln!(out, "ONNX Runtime  not found")?;
            for line in error.to_string().lines() {
                writeln!(out, "              {line}")?;
            }
            writeln!(
                out,
                "              `extract` and `predict` fetch it by themselves; `doctor --fetch` does it now"
            )?;
        }
    }
    for (name, registered) in &providers {
        match registered {
            Ok(()) => writeln!(out, "  {name:<11} registers")?,
            Err(problem) => writeln!(out, "  {name:<11} does not register: {problem}")?,
        }
    }
    if let Some(cuda) = &cuda {
        write_cuda(&mut out, cuda)?;
    }
    writeln!(out, "decoders      {}", decoder())?;
    let simd = if jpeg_simd {
        "decoded with SIMD"
    } else {
        "decoded without SIMD, which is slower: on x86 install NASM and build again"
    };
    writeln!(out, "JPEG          {simd}")?;
    writeln!(out, "cores         {cores}, {} used", context.threads)?;
    writeln!(out, "backbones")?;
    for (found, model) in &backbones {
        match found {
            Some(path) => writeln!(out, "  {:<12} {}", model.name, path.display())?,
            None => writeln!(out, "  {:<12} not here; comes from {}", model.name, model.origin())?,
        }
    }
    writeln!(out, "cache         {}", context.cache.root().display())?;
    if let Some(problem) = cache_problem {
        writeln!(out, "  {problem}")?;
    }
    for (id, name, count) in &rows {
        writeln!(out, "  {}     {count} features of {name}", &id[..8])?;
    }
    writeln!(out, "data folder   {}", context.data_dir.display())?;
    writeln!(
        out,
        "network       {}",
        if context.offline {
            "not used (offline)"
        } else {
            "used when something is missing"
        }
    )?;
    out.flush()?;
    Ok(Ending::Done)
}

fn write_cuda(out: &mut dyn Write, cuda: &CudaStatus) -> Result<()> {
    match &cuda.driver {
        Ok(version) if version.is_empty() => writeln!(out, "CUDA          an NVIDIA driver is installed")?,
        Ok(version) => writeln!(out, "CUDA          NVIDIA driver {version}")?,
        Err(problem) => writeln!(out, "CUDA          {problem}")?,
    }
    match &cuda.provider {
        Some(provider) => writeln!(out, "              {}, for {}", provider.display(), cuda.versions)?,
        None => writeln!(
            out,
            "              this ONNX Runtime is for the CPU alone; `lastlayer runtime install --cuda` fetches one for GPUs"
        )?,
    }
    for library in &cuda.libraries {
        match &library.path {
            Some(path) => writeln!(out, "  {:<20} {}", library.name, path.display())?,
            None => writeln!(out, "  {:<20} not found", library.name)?,
        }
    }
    Ok(())
}
