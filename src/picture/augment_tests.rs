//! Against torchvision: the pixels of given parts, and the distribution of what is drawn. And against what follows from the
//! definition, by theory.

use std::collections::BTreeMap;

use image::Rgb;
use serde::Deserialize;

use super::*;

/// Largest distance of an empirical distribution from the true one, times √n, that chance exceeds once in a thousand times.
const KOLMOGOROV: f64 = 1.95;

/// tests/fixtures/random_crops.json; the script beside it says what is what.
#[derive(Deserialize)]
struct Fixture {
    pixels: Vec<Pixels>,
    draws: Vec<Draws>,
    small: Vec<Small>,
}

#[derive(Deserialize)]
struct Pixels {
    part: [u32; 4],
    side: u32,
    mirrored: bool,
    rgb: String,
}

#[derive(Deserialize)]
struct Draws {
    size: (u32, u32),
    area: Vec<u32>,
    log_ratio: Vec<u32>,
    left: Vec<u32>,
    top: Vec<u32>,
}

#[derive(Deserialize)]
struct Small {
    size: (u32, u32),
    parts: BTreeMap<String, u32>,
}

fn fixture() -> Fixture {
    serde_json::from_str(include_str!("../../tests/fixtures/random_crops.json")).unwrap()
}

/// `count` views, of as many contents, each with a number of its own too.
fn draw(count: u16, size: (u32, u32)) -> Vec<RandomCrop> {
    let view = |index: u16| {
        let content = *blake3::hash(&index.to_le_bytes()).as_bytes();
        RandomCrop::of(3, index % 16 + 1, &content, size)
    };
    (0..count).map(view).collect()
}

/// Checks that `sample` comes from the distribution with this distribution function: Kolmogorov and Smirnov's test.
#[track_caller]
fn comes_from(name: &str, mut sample: Vec<f64>, distribution: impl Fn(f64) -> f64) {
    sample.sort_by(f64::total_cmp);
    let n = sample.len() as f64;
    let distance = |(index, value): (usize, &f64)| {
        let expected = distribution(*value);
        (expected - index as f64 / n)
            .abs()
            .max((expected - (index as f64 + 1.0) / n).abs())
    };
    let furthest = sample.iter().enumerate().map(distance).fold(0.0, f64::max);
    assert!(
        furthest * n.sqrt() < KOLMOGOROV,
        "{name}: {} √n off",
        furthest * n.sqrt()
    );
}

/// Checks that two histograms are samples of one distribution: the χ² test for two samples, bins that have few joined.
#[track_caller]
fn same_distribution(name: &str, ours: &[u32], theirs: &[u32]) {
    assert_eq!(ours.len(), theirs.len());
    let mut bins: Vec<(f64, f64)> = Vec::new();
    let mut few = (0.0, 0.0);
    for (ours, theirs) in ours.iter().zip(theirs) {
        few = (few.0 + f64::from(*ours), few.1 + f64::from(*theirs));
        if few.0 + few.1 >= 20.0 {
            bins.push(std::mem::take(&mut few));
        }
    }
    if let Some(last) = bins.last_mut() {
        *last = (last.0 + few.0, last.1 + few.1);
    }
    let sum = |of: fn(&(f64, f64)) -> f64| bins.iter().map(of).sum::<f64>();
    let (ours, theirs) = (sum(|bin| bin.0), sum(|bin| bin.1));
    let (ours, theirs) = ((theirs / ours).sqrt(), (ours / theirs).sqrt());
    let chi_squared: f64 = bins
        .iter()
        .map(|bin| (bin.0 * ours - bin.1 * theirs).powi(2) / (bin.0 + bin.1))
        .sum();
    let freedom = bins.len() as f64 - 1.0;
    // Mean and standard deviation of χ²; it is far from normal only for few degrees of freedom, hence the 9.
    let most = freedom + 4.0 * (2.0 * freedom).sqrt() + 9.0;
    assert!(
        chi_squared < most,
        "{name}: χ² {chi_squared:.1} of {freedom} degrees of freedom"
    );
}

#[test]
fn pixels_of_given_parts_equal_torchvisions() {
    let picture = RgbImage::from_fn(61, 47, |x, y| {
        Rgb([0, 1, 2].map(|channel| ((7 * x + 13 * y + 29 * x * y + 85 * channel) % 256) as u8))
    });
    let cases = fixture().pixels;
    assert_eq!(cases.len(), 12);
    for case in cases {
        let [left, top, width, height] = case.part;
        let crop = RandomCrop {
            part: Part {
                left,
                top,
                width,
                height,
            },
            mirrored: case.mirrored,
        };
        let pixels = crop.pixels(&picture, case.side);
        let hex: String = pixels.as_raw().iter().map(|value| format!("{value:02x}")).collect();
        assert!(hex == case.rgb, "{:?} at {}", case.part, case.side);
    }
}

#[test]
fn parts_are_drawn_as_torchvision_draws_them() {
    let bin = |value: f64, bins: usize| ((value * bins as f64).floor().max(0.0) as usize).min(bins - 1);
    for draws in fixture().draws {
        let (width, height) = draws.size;
        let (mut area, mut log_ratio, mut left, mut top) = ([0; 20], [0; 20], [0; 10], [0; 10]);
        for RandomCrop { part, .. } in draw(20_000, draws.size) {
            let (w, h) = (f64::from(part.width), f64::from(part.height));
            area[bin(w * h / (f64::from(width) * f64::from(height)), 20)] += 1;
            let low = 0.75_f64.ln();
            log_ratio[bin(((w / h).ln() - low) / (-2.0 * low), 20)] += 1;
            for (places, start, spare) in [
                (&mut left, part.left, width - part.width),
                (&mut top, part.top, height - part.height),
            ] {
                if spare >= 20 {
                    places[bin((f64::from(start) + 0.5) / (f64::from(spare) + 1.0), 10)] += 1;
                }
            }
        }
        let name = |of| format!("{of} of {width}×{height}");
        same_distribution(&name("area"), &area, &draws.area);
        same_distribution(&name("ratio"), &log_ratio, &draws.log_ratio);
        for (of, ours, theirs) in [("left", left, &draws.left), ("top", top, &draws.top)] {
            // Of a narrow picture one of them never has room.
            if theirs.iter().sum::<u32>() > 1000 {
                same_distribution(&name(of), &ours, theirs);
            } else {
                assert!(ours.iter().sum::<u32>() < 1000, "{}", name(of));
            }
        }
    }
}

#[test]
fn each_part_of_a_small_picture_is_drawn_as_often_as_by_torchvision() {
    for small in fixture().small {
        let mut ours: BTreeMap<String, u32> = small.parts.keys().map(|part| (part.clone(), 0)).collect();
        for RandomCrop { part, .. } in draw(20_000, small.size) {
            let text = format!("{},{},{},{}", part.left, part.top, part.width, part.height);
            *ours.entry(text).or_insert(0) += 1;
        }
        // What only one of the two has drawn is rare, or should be.
        let theirs: Vec<u32> = ours
            .keys()
            .map(|part| small.parts.get(part).copied().unwrap_or(0))
            .collect();
        let ours: Vec<u32> = ours.into_values().collect();
        same_distribution(&format!("{:?}", small.size), &ours, &theirs);
    }
}

#[test]
fn area_ratio_place_and_mirroring_follow_the_theory() {
    // So large that rounding to pixels is not seen. A share `a` fits a square with ratio `r` if |ln r| ≤ -ln a, which is
    // always so up to 3/4; so a has the density min(1, -ln a / ln(4/3)), and ln r is uniform as far as it fits.
    const SIDE: u32 = 1 << 20;
    let bound = (4.0_f64 / 3.0).ln();
    let side = f64::from(SIDE);
    let crops = draw(20_000, (SIDE, SIDE));
    let share = |crop: &RandomCrop| f64::from(crop.part.width) * f64::from(crop.part.height) / (side * side);

    let tail = |share: f64| (share - share * share.ln()) / bound;
    let mass = |share: f64| share.min(0.75) - 0.08 + (tail(share.max(0.75)) - tail(0.75));
    comes_from("area", crops.iter().map(share).collect(), |share| {
        mass(share) / mass(1.0)
    });
    let fits: Vec<f64> = crops.iter().map(share).filter(|share| *share < 0.75).collect();
    assert!(fits.len() > 15_000);
    comes_from("area that fits", fits, |share| (share - 0.08) / (0.75 - 0.08));

    let ratio = |crop: &RandomCrop| {
        let log = (f64::from(crop.part.width) / f64::from(crop.part.height)).ln();
        log / bound.min(-share(crop).ln())
    };
    comes_from("log ratio", crops.iter().map(ratio).collect(), |ratio| {
        f64::midpoint(ratio, 1.0)
    });
    let place = |start: u32, length: u32| f64::from(start) / f64::from(SIDE - length + 1);
    let left = crops.iter().map(|crop| place(crop.part.left, crop.part.width));
    let top = crops.iter().map(|crop| place(crop.part.top, crop.part.height));
    comes_from("left", left.collect(), |place| place);
    comes_from("top", top.collect(), |place| place);
    // Binomial(20 000, 1/2) has a standard deviation of 71.
    let mirrored = crops.iter().filter(|crop| crop.mirrored).count();
    assert!(mirrored.abs_diff(10_000) < 283, "{mirrored} mirrored");
}

#[test]
fn an_elongated_picture_gives_its_centre_once_ten_draws_did_not_fit() {
    // A part of at least 8 % of the area is wider than the picture, whatever its ratio.
    for ((width, height), expected) in [
        ((10_000, 10), [4993, 0, 13, 10]),
        ((10, 10_000), [0, 4993, 10, 13]),
        // Python's round: 4 / 0.75 = 5.33, 6 · 4/3 = 8 exactly.
        ((4, 4000), [0, 1997, 4, 5]),
        ((6000, 6), [2996, 0, 8, 6]),
    ] {
        for crop in draw(200, (width, height)) {
            let Part {
                left,
                top,
                width,
                height,
            } = crop.part;
            assert_eq!([left, top, width, height], expected);
        }
    }
    // Fallbacks of allowed ratios take the whole; no draw of a picture of one pixel leaves it.
    assert_eq!(
        centre(4, 3),
        Part {
            left: 0,
            top: 0,
            width: 4,
            height: 3
        }
    );
    for crop in draw(200, (1, 1)) {
        assert_eq!((crop.part.width, crop.part.height), (1, 1));
    }
}

#[test]
fn a_view_depends_on_seed_number_and_content_and_every_part_lies_within() {
    let content = |byte| [byte; 32];
    let base = RandomCrop::of(0, 1, &content(7), (500, 375));
    assert_eq!(RandomCrop::of(0, 1, &content(7), (500, 375)), base);
    assert_ne!(RandomCrop::of(1, 1, &content(7), (500, 375)), base);
    assert_ne!(RandomCrop::of(0, 2, &content(7), (500, 375)), base);
    assert_ne!(RandomCrop::of(0, 1, &content(8), (500, 375)), base);
    // The bytes of seed and number are not interchangeable.
    assert_ne!(
        RandomCrop::of(0, 257, &content(7), (500, 375)),
        RandomCrop::of(257, 0, &content(7), (500, 375))
    );
    for size in [(500, 375), (1, 1), (2, 9), (70_000, 3)] {
        for RandomCrop { part, .. } in draw(2000, size) {
            assert!(part.width >= 1 && part.height >= 1);
            assert!(
                part.left + part.width <= size.0 && part.top + part.height <= size.1,
                "{part:?}"
            );
        }
    }
}

#[test]
fn other_draws_are_another_recipe() {
    // Rows of earlier versions lie under these numbers: whoever has to change this raises `RECIPE` instead.
    assert_eq!(RECIPE, 0);
    let drawn = |seed, number| {
        let RandomCrop { part, mirrored } = RandomCrop::of(seed, number, &[42; 32], (500, 375));
        (part.left, part.top, part.width, part.height, mirrored)
    };
    let expected = [(134, 67, 321, 296, false), (67, 64, 130, 152, false)];
    assert_eq!([drawn(0, 1), drawn(0, 2)], expected);
}
