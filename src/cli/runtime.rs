//! `lastlayer runtime`.

use std::io::Write;

use clap::{Args, Subcommand};
use serde_json::json;

use super::context::Context;
use super::output::{Ending, Result, print_json};
use crate::backbone::{
    CudaStatus, InstalledRuntime, Runtime, RuntimeOptions, check_cuda, install_cuda_runtime, install_runtime,
};
use crate::error::Error;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Fetch ONNX Runtime into the data folder; with --cuda one for NVIDIA's GPUs, and the libraries of NVIDIA's for it
    Install(InstallArguments),
}

#[derive(Debug, Args)]
pub(super) struct InstallArguments {
    /// The one for NVIDIA's GPUs: 1.6 GB are fetched from PyPI, and 2.5 GB of disk are taken
    #[arg(long)]
    cuda: bool,
    /// With --cuda: fetch it without an NVIDIA driver too, for an image that is built elsewhere than it is used
    #[arg(long, requires = "cuda")]
    force: bool,
}

pub(super) fn run(command: Command, context: &Context) -> Result<Ending> {
    match command {
        Command::Install(arguments) => install(&arguments, context),
    }
}

fn install(arguments: &InstallArguments, context: &Context) -> Result<Ending> {
    if context.offline {
        return Err(Error::Options {
            problem: "`--offline` forbids to fetch anything".to_owned(),
            hint: "run it where there is a network and copy the data folder, which `lastlayer doctor` names".to_owned(),
        }
        .into());
    }
    if !arguments.cuda {
        return report(&install_runtime(&context.data_dir, &context.observer)?, None, context);
    }
    let driver = CudaStatus::driver();
    // Where there is no CUDA at all, that is said below.
    if let Err(reason) = &driver
        && !arguments.force
        && !cfg!(target_vendor = "apple")
    {
        return Err(Error::Device {
            device: "cuda".to_owned(),
            reason: reason.clone(),
            hint: "install NVIDIA's driver first (in a container, start it with `--gpus all`); `--force` fetches the 1.6 GB \
                   anyway, for an image that is used elsewhere"
                .to_owned(),
        }
        .into());
    }
    let installed = install_cuda_runtime(&context.data_dir, &context.observer)?;
    if driver.is_err() {
        return report(
            &installed,
            Some(Err("there is no driver here to try it with".to_owned())),
            context,
        );
    }
    // Whether it works only a run on the GPU tells.
    let options = RuntimeOptions {
        library: Some(installed.library.clone()),
        ..context.runtime()
    };
    check_cuda(Runtime::load(&options, &context.observer)?)?;
    report(&installed, Some(Ok(())), context)
}

/// `tried`: whether a session was run on the GPU, and if not, why not; `None` where none is meant.
fn report(
    installed: &InstalledRuntime,
    tried: Option<std::result::Result<(), String>>,
    context: &Context,
) -> Result<Ending> {
    if context.json {
        print_json(&json!({
            "library": installed.library.to_string_lossy(),
            "version": installed.version,
            "fetched": installed.fetched,
            "cuda": tried.is_some(),
            "runs_on_gpu": tried.as_ref().map(std::result::Result::is_ok),
        }))?;
        return Ok(Ending::Done);
    }
    let mut out = std::io::stdout().lock();
    let how = if installed.fetched {
        "installed"
    } else {
        "was installed already"
    };
    writeln!(out, "ONNX Runtime {} {how}", installed.version)?;
    writeln!(out, "  {}", installed.library.display())?;
    match tried {
        None => {}
        Some(Ok(())) => writeln!(
            out,
            "  a convolution runs on the GPU; `--device auto` uses it from now on"
        )?,
        Some(Err(reason)) => writeln!(out, "  not tried on a GPU: {reason}")?,
    }
    out.flush()?;
    Ok(Ending::Done)
}
