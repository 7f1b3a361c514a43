//! Ordinary JPEGs at a quarter or an eighth of their size, several times faster than libjpeg decodes them so.
//!
//! Most of the time goes into the entropy code of coefficients that no reduced pixel is made of. Here they are passed over
//! several at a time. What is decoded is what cameras write: one scan, Huffman codes, grey or YCbCr whose colour has as many
//! samples as the brightness or fewer. Everything else, and everything that is damaged, is left to libjpeg.
//!
//! A block of 8 × 8 becomes `n` × `n` pixels by the inverse DCT of that size of its lowest `n` × `n` coefficients. Colour
//! of half the samples gets an inverse transform of twice the size, so that nothing is enlarged.

use std::ops::Range;

use image::RgbImage;
use multiversion::multiversion;

use super::decode::Eighths;
use super::entropy::{Bits, Code, Huffman};

/// The largest size that is decoded here.
pub(super) const MOST_EIGHTHS: u8 = 2;

/// Where the coefficients of a block lie, in the order in which they are stored (ITU T.81, figure A.6).
const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21,
    28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54,
    47, 55, 62, 63,
];

/// The picture of width and height `full` at some `eighths` of that, rounded up; `None` if it is not of the ordinary kind.
pub(super) fn decode(bytes: &[u8], full: (u32, u32), eighths: Eighths) -> Option<RgbImage> {
    let header = Header::read(bytes)?;
    if (u32::from(header.width), u32::from(header.height)) != full || eighths.0 > MOST_EIGHTHS {
        return None;
    }
    let size = usize::from(eighths.0);
    let mut planes = header.planes(size)?;
    header.read_scan(&mut planes)?;
    let (width, height) = (
        (usize::from(header.width) * size).div_ceil(8),
        (usize::from(header.height) * size).div_ceil(8),
    );
    let mut rgb = vec![0; width * height * 3];
    for (y, row) in rgb.chunks_exact_mut(width * 3).enumerate() {
        let (row, _) = row.as_chunks_mut::<3>();
        match &planes[..] {
            [grey] => {
                for (pixel, &grey) in row.iter_mut().zip(grey.row(y)) {
                    *pixel = [grey; 3];
                }
            }
            [luma, blue, red] => {
                for (((pixel, &luma), &blue), &red) in row.iter_mut().zip(luma.row(y)).zip(blue.row(y)).zip(red.row(y))
                {
                    *pixel = rgb_of(luma, blue, red);
                }
            }
            _ => return None,
        }
    }
    RgbImage::from_raw(width as u32, height as u32, rgb)
}

/// Full-range BT.601, as JFIF 1.02 has it, in fixed point of 16 bits.
fn rgb_of(luma: u8, blue: u8, red: u8) -> [u8; 3] {
    let (luma, blue, red) = (
        i32::from(luma) << 16 | 0x8000,
        i32::from(blue) - 128,
        i32::from(red) - 128,
    );
    [
        luma + 91_881 * red,
        luma - 22_554 * blue - 46_802 * red,
        luma + 116_130 * blue,
    ]
    .map(|value| (value >> 16).clamp(0, 255) as u8)
}

/// One component of the picture, as its frame header describes it.
#[derive(Debug, Clone, Copy)]
struct Component {
    id: u8,
    across: usize,
    down: usize,
    quantisation: usize,
}

/// What each coefficient, in stored order, adds to the pixels of its block: `[height, width]` of them, in rows of 2 or 4.
enum Basis {
    Four(Box<[[f32; 4]; 64]>),
    Sixteen(Box<[[f32; 16]; 64]>),
}

/// A component's tables, and its pixels.
struct Plane {
    /// Blocks of an MCU.
    across: usize,
    down: usize,
    /// Pixels of a block.
    block: (usize, usize),
    stride: usize,
    samples: Vec<u8>,
    basis: Basis,
    /// The last coefficient that adds anything.
    last: usize,
    /// Numbers of its Huffman codes.
    codes: (usize, usize),
}

impl Plane {
    fn row(&self, y: usize) -> &[u8] {
        &self.samples[y * self.stride..][..self.stride]
    }
}

/// What the segments before the scan say.
struct Header<'a> {
    width: u16,
    height: u16,
    components: Vec<Component>,
    quantisation: [Option<[u16; 64]>; 4],
    dc: [Option<Huffman>; 4],
    ac: [Option<Huffman>; 4],
    /// Numbers of the Huffman codes of each component.
    codes: Vec<(usize, usize)>,
    restart: usize,
    data: &'a [u8],
}

impl<'a> Header<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut header = Self {
            width: 0,
            height: 0,
            components: Vec::new(),
            quantisation: [None; 4],
            dc: [const { None }; 4],
            ac: [const { None }; 4],
            codes: Vec::new(),
            restart: 0,
            data: &[],
        };
        let (mut is_jfif, mut adobe) = (false, None);
        let mut rest = bytes.strip_prefix(&[0xff, 0xd8])?;
        loop {
            let [0xff, marker, after @ ..] = rest else { return None };
            if *marker == 0xff {
                rest = &rest[1..];
                continue;
            }
            let length = usize::from(u16::from_be_bytes(*after.first_chunk()?));
            let (content, next) = (after.get(2..length)?, after.get(length..)?);
            match marker {
                0xc0 | 0xc1 => header.frame(content)?,
                0xc4 => header.huffman(content)?,
                0xdb => header.quantisation(content)?,
                0xdd => header.restart = usize::from(u16::from_be_bytes(content.try_into().ok()?)),
                0xe0 => is_jfif |= content.starts_with(b"JFIF\0"),
                0xee if content.starts_with(b"Adobe") => adobe = Some(*content.get(11)?),
                0xda => {
                    header.scan(content)?;
                    header.data = next;
                    let ids = header.components.iter().map(|component| component.id);
                    let is_ycc = is_jfif || adobe.map_or_else(|| ids.eq(1..=3), |transform| transform == 1);
                    return (header.components.len() == 1 || is_ycc).then_some(header);
                }
                // Other segments of tables, and other kinds of frames.
                0xc2..=0xcf | 0xdc | 0xde | 0xdf | 0x01 | 0xd0..=0xd9 => return None,
                _ => {}
            }
            rest = next;
        }
    }

    fn frame(&mut self, content: &[u8]) -> Option<()> {
        let [8, height0, height1, width0, width1, count, rest @ ..] = content else {
            return None;
        };
        (self.width, self.height) = (
            u16::from_be_bytes([*width0, *width1]),
            u16::from_be_bytes([*height0, *height1]),
        );
        let (components, []) = rest.as_chunks::<3>() else {
            return None;
        };
        let new = self.components.is_empty() && matches!(count, 1 | 3) && components.len() == usize::from(*count);
        self.components = components
            .iter()
            .map(|&[id, factors, quantisation]| Component {
                id,
                across: usize::from(factors >> 4),
                down: usize::from(factors & 15),
                quantisation: usize::from(quantisation),
            })
            .collect();
        (new && self.width > 0 && self.height > 0).then_some(())
    }

    fn quantisation(&mut self, mut content: &[u8]) -> Option<()> {
        while let [number, rest @ ..] = content {
            let wide = number >> 4;
            let length = match wide {
                0 => 64,
                1 => 128,
                _ => return None,
            };
            let (values, after) = rest.split_at_checked(length)?;
            let mut table = [0; 64];
            for (index, value) in table.iter_mut().enumerate() {
                *value = match wide {
                    0 => u16::from(values[index]),
                    _ => u16::from_be_bytes([values[2 * index], values[2 * index + 1]]),
                };
            }
            *self.quantisation.get_mut(usize::from(number & 15))? = Some(table);
            content = after;
        }
        Some(())
    }

    fn huffman(&mut self, mut content: &[u8]) -> Option<()> {
        while let [number, rest @ ..] = content {
            let (counts, rest) = rest.split_first_chunk::<16>()?;
            let length = counts.iter().map(|&count| usize::from(count)).sum();
            let (symbols, after) = rest.split_at_checked(length)?;
            let (codes, kind) = match number >> 4 {
                0 => (&mut self.dc, Code::Dc),
                1 => (&mut self.ac, Code::Ac),
                _ => return None,
            };
            *codes.get_mut(usize::from(number & 15))? = Some(Huffman::new(counts, symbols, kind)?);
            content = after;
        }
        Some(())
    }

    fn scan(&mut self, content: &[u8]) -> Option<()> {
        let (&count, rest) = content.split_first()?;
        let (components, end) = rest.split_at_checked(2 * usize::from(count))?;
        let (components, _) = components.as_chunks::<2>();
        let all = components.len() == self.components.len();
        for (component, [id, codes]) in self.components.iter().zip(components) {
            if component.id != *id {
                return None;
            }
            self.codes.push((usize::from(codes >> 4), usize::from(codes & 15)));
        }
        (all && !self.components.is_empty() && end == [0, 63, 0]).then_some(())
    }

    /// Blocks of an MCU of the first component, of which the others have one.
    fn sampling(&self) -> Option<(usize, usize)> {
        let [first, others @ ..] = &self.components[..] else {
            return None;
        };
        if others.is_empty() {
            // A scan of one component has its blocks in rows, whatever the factors say.
            return Some((1, 1));
        }
        let fine = (1..=2).contains(&first.across) && (1..=2).contains(&first.down);
        let single = others
            .iter()
            .all(|component| (component.across, component.down) == (1, 1));
        (fine && single).then_some((first.across, first.down))
    }

    fn mcus(&self) -> Option<(usize, usize)> {
        let (across, down) = self.sampling()?;
        Some((
            usize::from(self.width).div_ceil(8 * across),
            usize::from(self.height).div_ceil(8 * down),
        ))
    }

    fn planes(&self, size: usize) -> Option<Vec<Plane>> {
        let (across, down) = self.sampling()?;
        let (mcus_across, mcus_down) = self.mcus()?;
        let stride = mcus_across * across * size;
        let plane = |(number, component): (usize, &Component)| {
            let quantisation = (*self.quantisation.get(component.quantisation)?)?;
            let (blocks, block) = if number == 0 {
                ((across, down), (size, size))
            } else {
                ((1, 1), (size * across, size * down))
            };
            let basis = if block.0.max(block.1) <= 2 {
                Basis::Four(basis::<4>(&quantisation, block))
            } else {
                Basis::Sixteen(basis::<16>(&quantisation, block))
            };
            let is_low = |place: u8| usize::from(place % 8) < block.0 && usize::from(place / 8) < block.1;
            let last = ZIGZAG.iter().rposition(|&place| is_low(place)).unwrap_or(0);
            Some(Plane {
                across: blocks.0,
                down: blocks.1,
                block,
                stride,
                samples: vec![0; stride * mcus_down * down * size],
                basis,
                last,
                codes: self.codes[number],
            })
        };
        self.components.iter().enumerate().map(plane).collect()
    }

    fn read_scan(&self, planes: &mut [Plane]) -> Option<()> {
        let (mcus_across, mcus_down) = self.mcus()?;
        let codes = |plane: &Plane| {
            let (dc, ac) = plane.codes;
            Some((self.dc.get(dc)?.as_ref()?, self.ac.get(ac)?.as_ref()?))
        };
        let codes: Vec<(&Huffman, &Huffman)> = planes.iter().map(codes).collect::<Option<_>>()?;
        let mcus = mcus_across * mcus_down;
        let interval = if self.restart == 0 { mcus } else { self.restart };
        let mut data = self.data;
        let mut plain = Vec::with_capacity(if self.restart == 0 { data.len() } else { 0 });
        for (number, start) in (0..mcus).step_by(interval).enumerate() {
            if number > 0 {
                let [0xff, marker, rest @ ..] = data else { return None };
                if usize::from(*marker) != 0xd0 + (number - 1) % 8 {
                    return None;
                }
                data = rest;
            }
            data = unstuff(data, &mut plain);
            read_interval(&plain, start..(start + interval).min(mcus), mcus_across, planes, &codes)?;
        }
        Some(())
    }
}

/// Reads the MCUs between two restarts from their bits; `None` if there are too few.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+bmi1+bmi2", "x86_64+avx2+bmi1+bmi2"))]
fn read_interval(
    data: &[u8],
    mcus: Range<usize>,
    mcus_across: usize,
    planes: &mut [Plane],
    codes: &[(&Huffman, &Huffman)],
) -> Option<()> {
    let mut bits = Bits::new(data);
    let mut before = [0_i32; 3];
    let (mut column, mut row) = (mcus.start % mcus_across, mcus.start / mcus_across);
    for _ in mcus {
        for ((plane, (dc, ac)), before) in planes.iter_mut().zip(codes).zip(&mut before) {
            let (width, height) = plane.block;
            let mut corner = row * plane.down * height * plane.stride + column * plane.across * width;
            for _ in 0..plane.down {
                for across in 0..plane.across {
                    *before = before.wrapping_add(dc.difference(&mut bits)?);
                    let output = &mut plane.samples[corner + across * width..];
                    match &plane.basis {
                        Basis::Four(basis) => {
                            let pixels = ac.block(&mut bits, *before, basis, plane.last)?;
                            put::<4, 2>(&pixels, plane.block, plane.stride, output);
                        }
                        Basis::Sixteen(basis) => {
                            let pixels = ac.block(&mut bits, *before, basis, plane.last)?;
                            put::<16, 4>(&pixels, plane.block, plane.stride, output);
                        }
                    }
                }
                corner += height * plane.stride;
            }
        }
        column += 1;
        if column == mcus_across {
            (column, row) = (0, row + 1);
            if bits.is_beyond() {
                return None;
            }
        }
    }
    (!bits.is_beyond()).then_some(())
}

/// Writes the pixels of a block, of which there are `width` × `height`, in rows of `N`.
#[inline(always)]
fn put<const A: usize, const N: usize>(
    pixels: &[f32; A],
    (width, height): (usize, usize),
    stride: usize,
    output: &mut [u8],
) {
    // Rounded by the addition, a number of 23 bits being whole: this way it is done to all of them at once.
    let bytes = pixels.map(|value| ((value + 128.0).clamp(0.0, 255.0) + 8_388_608.0).to_bits() as u8);
    let (rows, _) = bytes.as_chunks::<N>();
    for y in 0..height {
        if width == N {
            output[y * stride..][..N].copy_from_slice(&rows[y]);
        } else {
            output[y * stride..][..width].copy_from_slice(&rows[y][..width]);
        }
    }
}

/// The data up to the next marker in `plain`, without the zeros that are stuffed behind 0xff; returns what begins with the
/// marker.
fn unstuff<'a>(mut data: &'a [u8], plain: &mut Vec<u8>) -> &'a [u8] {
    plain.clear();
    loop {
        let at = position_of_ff(data).unwrap_or(data.len());
        match &data[at..] {
            [0xff, 0, rest @ ..] => {
                plain.extend_from_slice(&data[..=at]);
                data = rest;
            }
            // Any number of 0xff may stand before a marker.
            [0xff, 0xff, ..] => {
                plain.extend_from_slice(&data[..at]);
                data = &data[at + 1..];
            }
            rest => {
                plain.extend_from_slice(&data[..at]);
                return rest;
            }
        }
    }
}

/// Where the first 0xff is.
pub(super) fn position_of_ff(bytes: &[u8]) -> Option<usize> {
    let (chunks, _) = bytes.as_chunks::<32>();
    let without = chunks
        .iter()
        .take_while(|chunk| chunk.iter().fold(0, |found, &byte| found | u8::from(byte == 0xff)) == 0)
        .count();
    let start = without * 32;
    let within = bytes[start..].iter().position(|&byte| byte == 0xff);
    within.map(|at| start + at)
}

/// What each coefficient adds to the pixels of a block of `width` × `height`, both at most the root of `A`, which is the
/// length of its rows (ITU T.81, A.3.3, for blocks of other sizes); zero for those of higher frequencies than it has.
fn basis<const A: usize>(quantisation: &[u16; 64], (width, height): (usize, usize)) -> Box<[[f32; A]; 64]> {
    let stride = A.isqrt();
    let mut basis = Box::new([[0.0; A]; 64]);
    let cosine = |frequency: usize, at: usize, size: usize| {
        let scale = if frequency == 0 { 0.125_f64.sqrt() } else { 0.5 };
        let angle = (2 * at + 1) as f64 * frequency as f64 * std::f64::consts::PI / (2 * size) as f64;
        scale * angle.cos()
    };
    for ((pixels, &place), &step) in basis.iter_mut().zip(&ZIGZAG).zip(quantisation) {
        let (horizontal, vertical) = (usize::from(place % 8), usize::from(place / 8));
        if horizontal >= width || vertical >= height {
            continue;
        }
        for y in 0..height {
            for x in 0..width {
                let value = f64::from(step) * cosine(horizontal, x, width) * cosine(vertical, y, height);
                pixels[y * stride + x] = value as f32;
            }
        }
    }
    basis
}

#[cfg(test)]
#[path = "reduced_tests.rs"]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests;
