//! The parts of which the commands are made, each alone: `cargo bench --bench parts -- [FILTER]`.
//!
//! All inputs are made here, but for ResNet18, where it is in `../shared`. The whole of it is measured by `compare`.
#![expect(clippy::print_stderr, reason = "a program that reports to a person")]

use std::hint::black_box;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use image::{ImageFormat, RgbImage};
use lastlayer::{
    Backbone, Cache, Decode, Examples, FeatureSpace, InferenceOptions, Limits, LinearHead, Origin, Quiet, Recipe,
    RowKey, RunOptions, Runtime, Session, SessionOptions, Space, TrainingTask, Transform,
};
use ndarray::Array2;

#[path = "../tests/cli/common/model.rs"]
#[expect(dead_code, reason = "the tests need more of it")]
mod model;

use model::TinyModel;

const DIM: usize = 512;

/// Soft shapes with some noise: a file of about the size that a photo has.
fn picture(width: u32, height: u32) -> RgbImage {
    let mut random = Random(u64::from(width));
    RgbImage::from_fn(width, height, |x, y| {
        let (x, y) = (x as f32 / width as f32, y as f32 / height as f32);
        let noise = random.next() * 12.0;
        let channel = |phase: f32| (128.0 + 90.0 * (9.0 * x + phase).sin() * (7.0 * y - phase).cos() + noise) as u8;
        image::Rgb([channel(0.0), channel(1.0), channel(2.0)])
    })
}

fn jpeg(picture: &RgbImage) -> Vec<u8> {
    let mut compress = mozjpeg::Compress::new(mozjpeg::ColorSpace::JCS_RGB);
    // As cameras and most programs write them: one scan.
    compress.set_fastest_defaults();
    compress.set_size(picture.width() as usize, picture.height() as usize);
    compress.set_quality(90.0);
    let mut started = compress.start_compress(Vec::new()).expect("memory can be written");
    started
        .write_scanlines(picture.as_raw())
        .expect("memory can be written");
    started.finish().expect("memory can be written")
}

/// As cameras and phones write it: baseline, colours at half the resolution.
fn camera_jpeg(picture: &RgbImage) -> Vec<u8> {
    let mut compress = mozjpeg::Compress::new(mozjpeg::ColorSpace::JCS_RGB);
    compress.set_size(picture.width() as usize, picture.height() as usize);
    compress.set_fastest_defaults();
    compress.set_quality(90.0);
    compress.set_chroma_sampling_pixel_sizes((2, 2), (2, 2));
    let mut started = compress.start_compress(Vec::new()).expect("memory can be written");
    started
        .write_scanlines(picture.as_raw())
        .expect("memory can be written");
    started.finish().expect("memory can be written")
}

fn png(picture: &RgbImage) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture
        .write_to(&mut bytes, ImageFormat::Png)
        .expect("memory can be written");
    bytes.into_inner()
}

/// SplitMix64, so that the inputs are the same on every machine.
struct Random(u64);

impl Random {
    /// In -0.5..0.5.
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ (bits >> 31)) >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    }

    fn matrix(&mut self, rows: usize, columns: usize) -> Array2<f32> {
        Array2::from_shape_simple_fn((rows, columns), || self.next())
    }
}

fn pictures(criterion: &mut Criterion) {
    let transform = Transform::default();
    let limits = Limits::default();
    let mut tensor = vec![0.0; transform.tensor_len()];
    let fast = Transform {
        decode: Decode::Fast,
        ..Transform::default()
    };
    let (small, large) = (picture(500, 375), jpeg(&picture(4000, 3000)));
    let mut group = criterion.benchmark_group("picture to tensor");
    group.throughput(Throughput::Elements(1));
    for (name, bytes, transform) in [
        ("JPEG 500x375", jpeg(&small), &transform),
        ("PNG 500x375", png(&small), &transform),
        ("JPEG 4000x3000", large.clone(), &transform),
        ("JPEG 4000x3000, fast", large, &fast),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                transform
                    .load(black_box(&bytes), &limits, &mut tensor)
                    .expect("it is a picture")
            });
        });
    }
    group.finish();
}

/// What [`pictures`] measures together. Pixels that lie in the file as they are cost next to nothing to decode, and a crop
/// of one pixel next to nothing to resize.
fn steps(criterion: &mut Criterion) {
    let limits = Limits::default();
    let plain = |picture: &RgbImage| {
        let mut bytes = Cursor::new(Vec::new());
        picture
            .write_to(&mut bytes, ImageFormat::Pnm)
            .expect("memory can be written");
        bytes.into_inner()
    };
    let (small, large) = (picture(500, 375), picture(4000, 3000));
    let mut group = criterion.benchmark_group("picture, step by step");
    group.throughput(Throughput::Elements(1));
    let mut pixels = |name: &str, transform: &Transform, bytes: &[u8]| {
        group.bench_function(name, |bencher| {
            bencher.iter(|| transform.pixels(black_box(bytes), &limits).expect("it is a picture"));
        });
    };
    for (name, picture) in [("500x375", &small), ("4000x3000", &large)] {
        let one_pixel = Transform {
            resize_shorter_side: picture.height(),
            crop: 1,
            ..Transform::default()
        };
        pixels(
            &format!("decode: JPEG {name}, as a camera writes it"),
            &one_pixel,
            &camera_jpeg(picture),
        );
        let bytes = plain(picture);
        pixels(
            &format!("resize and crop: {name}, read as it lies in the file"),
            &Transform::default(),
            &bytes,
        );
        pixels(&format!("of that the reading: {name}"), &one_pixel, &bytes);
    }
    let transform = Transform {
        resize_shorter_side: 224,
        ..Transform::default()
    };
    let bytes = plain(&picture(224, 224));
    pixels("224x224, read as it lies in the file", &transform, &bytes);
    let mut tensor = vec![0.0; transform.tensor_len()];
    group.bench_function("the same and normalise", |bencher| {
        bencher.iter(|| {
            transform
                .load(black_box(&bytes), &limits, &mut tensor)
                .expect("it is a picture")
        });
    });
    group.finish();
}

/// Batches of ResNet18 where it is there, else of a made backbone.
fn inference(criterion: &mut Criterion) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/models/resnet18.onnx");
    let folder = tempfile::tempdir().expect("there is a temporary folder");
    let (name, file) = if file.is_file() {
        ("ResNet18", file)
    } else {
        let made = folder.path().join("tiny.onnx");
        std::fs::write(&made, TinyModel::default().onnx()).expect("the disk has room");
        ("a made backbone", made)
    };
    let backbone = Backbone::open("backbone", &file, None).expect("it is a backbone");
    let model = backbone.model();
    let Some(data_dir) = dirs::data_dir().map(|folder| folder.join("lastlayer")) else {
        return;
    };
    let mut options = InferenceOptions::new(data_dir, 1);
    options.runtime.env_library = std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from);
    options.runtime.offline = true;
    let Ok(runtime) = Runtime::load(&options.runtime, &Quiet) else {
        eprintln!("inference is not measured: ONNX Runtime is not here; `lastlayer doctor --fetch` gets it");
        return;
    };
    let (height, width) = (model.input_size.0 as usize, model.input_size.1 as usize);
    let mut random = Random(3);
    let mut group = criterion.benchmark_group(format!("inference, {name}, one thread"));
    group.sample_size(10);
    for batch in [1, 4, 8, 16] {
        let options = SessionOptions {
            input: &model.input,
            output: &model.output,
            picture: [3, height, width],
            run: RunOptions::cpu(1),
        };
        let mut session = Session::open(runtime, &model.onnx, &options, &Quiet).expect("it opens");
        let input: Vec<f32> = (0..batch * 3 * height * width).map(|_| 4.0 * random.next()).collect();
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_function(format!("batch of {batch}"), |bencher| {
            bencher.iter(|| session.run(black_box(&input), batch).expect("it runs"));
        });
    }
    group.finish();
}

fn new_space(folder: &Path) -> Space {
    let origin = Origin {
        name: "made".to_owned(),
        file: PathBuf::from("made.onnx"),
    };
    let space = FeatureSpace::new(&"made");
    Cache::new(folder)
        .create_space(&space, &origin)
        .expect("the folder is fresh")
}

fn cache(criterion: &mut Criterion) {
    const ROWS: usize = 10_000;
    let keys: Vec<RowKey> = (0..ROWS as u64)
        .map(|row| RowKey::plain(*blake3::hash(&row.to_le_bytes()).as_bytes()))
        .collect();
    let rows = Random(1).matrix(ROWS, DIM);
    let rows = rows.as_slice().expect("a new array is contiguous");
    let append = |space: &mut Space| space.append(&keys, rows, DIM, "cpu", "0").expect("the disk has room");

    let mut group = criterion.benchmark_group("cache of 10,000 rows");
    group.sample_size(10).throughput(Throughput::Elements(ROWS as u64));
    group.bench_function("append", |bencher| {
        bencher.iter_batched_ref(
            || {
                let folder = tempfile::tempdir().expect("there is a temporary folder");
                (new_space(folder.path()), folder)
            },
            |(space, _)| append(space),
            BatchSize::PerIteration,
        );
    });
    // What one commit of `extract` costs, most of which is making it durable.
    group.bench_function("append one row", |bencher| {
        bencher.iter_batched_ref(
            || {
                let folder = tempfile::tempdir().expect("there is a temporary folder");
                (new_space(folder.path()), folder)
            },
            |(space, _)| {
                space
                    .append(&keys[..1], &rows[..DIM], DIM, "cpu", "0")
                    .expect("the disk has room");
            },
            BatchSize::PerIteration,
        );
    });
    let folder = tempfile::tempdir().expect("there is a temporary folder");
    let mut space = new_space(folder.path());
    append(&mut space);
    group.bench_function("open", |bencher| bencher.iter(|| new_space(folder.path()).len()));
    group.bench_function("look up and sum", |bencher| {
        bencher.iter(|| {
            keys.iter()
                .map(|key| space.row(key).expect("it was appended").iter().sum::<f32>())
                .sum::<f32>()
        });
    });
    group.finish();
}

fn head(criterion: &mut Criterion) {
    const CLASSES: usize = 4;
    const ROWS: usize = 504;
    let mut random = Random(2);
    let centres = random.matrix(CLASSES, DIM);
    let labels: Vec<usize> = (0..ROWS).map(|row| row % CLASSES).collect();
    let mut features = random.matrix(ROWS, DIM) * 4.0;
    for (mut row, &label) in features.rows_mut().into_iter().zip(&labels) {
        row += &centres.row(label);
    }
    let mut group = criterion.benchmark_group("head of 4 classes");
    let params = Recipe::default().check().expect("the defaults are valid");
    group.bench_function("train: 504 rows, 25 epochs, batch 4", |bencher| {
        bencher.iter(|| {
            let train = Examples::new(features.view(), &labels).expect("they are finite");
            let task = TrainingTask::new(CLASSES, train).expect("the labels fit");
            params.train(&task, &Quiet, &mut |_| ()).expect("it converges")
        });
    });
    let head = LinearHead::uniform(CLASSES, DIM, 0).expect("it has classes");
    let x = random.matrix(1000, DIM);
    group.throughput(Throughput::Elements(1000));
    group.bench_function("logits of 1000 rows", |bencher| {
        bencher.iter(|| head.logits(black_box(x.view())).expect("the dimensions fit"));
    });
    group.finish();
}

criterion_group!(benches, pictures, steps, inference, cache, head);
criterion_main!(benches);
