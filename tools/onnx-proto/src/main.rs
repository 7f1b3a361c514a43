//! Writes `src/backbone/onnx.rs` from `onnx.proto` (onnx 1.23.2, Apache-2.0; proto2, so that a field's presence survives
//! decoding and encoding).

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = here.join("../../src/backbone");
    let files = protox::compile([here.join("onnx.proto")], [here])?;
    prost_build::Config::new()
        .out_dir(&out)
        .bytes(["."]) // weights stay slices of the file's bytes: a 45 MB model is not copied
        .disable_comments(["."])
        .compile_fds(files)?;
    // The package is called onnx, so is the file.
    println!("wrote {}", out.join("onnx.rs").display());
    Ok(())
}
