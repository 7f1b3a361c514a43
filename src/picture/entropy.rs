//! The entropy code of sequential JPEGs, read for the lowest coefficients of each block.
//!
//! Coefficients that are wanted are looked up with their code and their value at once, all others several at a time for
//! nothing but their length. What the coefficients become is left to `reduced.rs`.

/// Bits that are looked up at once for a code together with its value.
const LOOK: u32 = 11;
/// Bits that are looked up at once for codes that are passed over.
const SKIP: u32 = 14;
/// Symbols that can be read before the bits have to be filled again: the last of them may have 31, all others [`LOOK`].
const PER_FILL: usize = 3;
/// Coefficients of a block.
const COEFFICIENTS: usize = 64;

/// Which coefficients a code is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    /// The first of each block, as a difference.
    Dc,
    /// All others, with runs of zeros.
    Ac,
}

/// The bits of a scan, without stuffed bytes, the first of them uppermost.
pub(super) struct Bits<'a> {
    data: &'a [u8],
    /// The next byte that is not in the buffer.
    at: usize,
    buffer: u64,
    /// Valid bits of the buffer.
    count: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self {
            data,
            at: 0,
            buffer: 0,
            count: 0,
        }
    }

    /// Makes at least 56 bits valid, zeros after the end.
    #[inline(always)]
    fn fill(&mut self) {
        let next = match self.data.get(self.at..).and_then(<[u8]>::first_chunk::<8>) {
            Some(next) => u64::from_be_bytes(*next),
            None => last_bytes(self.data, self.at),
        };
        self.buffer |= next >> self.count;
        self.at += ((63 - self.count) / 8) as usize;
        self.count |= 56;
    }

    #[inline(always)]
    fn first(&self, bits: u32) -> usize {
        (self.buffer >> (64 - bits)) as usize
    }

    #[inline(always)]
    fn pass(&mut self, bits: u32) {
        self.buffer <<= bits & 63;
        self.count -= bits;
    }

    /// Whether more was read than there is.
    pub(super) fn is_beyond(&self) -> bool {
        self.at * 8 > self.data.len() * 8 + self.count as usize
    }
}

/// The bytes from `at` on, fewer than eight, and zeros.
// Takes no reference to the bits, which would keep them out of registers.
#[cold]
#[inline(never)]
fn last_bytes(data: &[u8], at: usize) -> u64 {
    let rest = data.get(at..).unwrap_or_default();
    let mut bytes = [0; 8];
    bytes[..rest.len()].copy_from_slice(rest);
    u64::from_be_bytes(bytes)
}

/// A code, the zeros before its coefficient, and the coefficient.
#[derive(Debug, Clone, Copy, Default)]
struct Symbol {
    /// Bits of code and value together; 0 if they are more than [`LOOK`].
    bits: u8,
    /// Zeros before, or [`COEFFICIENTS`] for the end of the block.
    run: u8,
    value: i16,
}

/// Symbols that are passed over together: their bits, and how many coefficients they are, [`COEFFICIENTS`] more if the
/// block ends after them.
#[derive(Debug, Clone, Copy)]
struct Passed(u16);

impl Passed {
    /// What is too long to be looked up.
    const UNKNOWN: Self = Self::new(0, 127);

    const fn new(bits: u32, coefficients: usize) -> Self {
        Self(bits as u16 | (coefficients as u16) << 6)
    }

    fn bits(self) -> u32 {
        u32::from(self.0 & 63)
    }

    fn coefficients(self) -> usize {
        usize::from(self.0 >> 6)
    }
}

/// A Huffman code with its tables.
pub(super) struct Huffman {
    symbols: Box<[Symbol; 1 << LOOK]>,
    passed: Box<[Passed; 1 << SKIP]>,
    /// For every length of a code, the first code that is longer, in 16 bits; and what leads from a code to its symbol.
    limits: [(u32, i32); 17],
    values: Vec<u8>,
    kind: Code,
}

impl Huffman {
    /// The code that has so many symbols of each length from 1 to 16; `None` if there is no such code.
    pub(super) fn new(counts: &[u8; 16], values: &[u8], kind: Code) -> Option<Self> {
        let mut limits = [(0, 0); 17];
        let (mut code, mut index) = (0_u32, 0_i32);
        for (length, &count) in (1..).zip(counts) {
            limits[length].1 = index - code as i32;
            code += u32::from(count);
            index += i32::from(count);
            if code > 1 << length {
                return None;
            }
            limits[length].0 = code << (16 - length);
            code <<= 1;
        }
        if values.len() != index as usize || kind == Code::Dc && values.iter().any(|&value| value > 15) {
            return None;
        }
        let mut huffman = Self {
            symbols: Box::new([Symbol::default(); 1 << LOOK]),
            passed: Box::new([Passed::UNKNOWN; 1 << SKIP]),
            limits,
            values: values.to_vec(),
            kind,
        };
        for first in 0..1 << LOOK {
            huffman.symbols[first] = huffman.symbol(first as u32);
        }
        if kind == Code::Ac {
            for first in 0..1 << SKIP {
                huffman.passed[first] = huffman.pass_over(first as u32);
            }
        }
        Some(huffman)
    }

    /// Length and symbol of the code that 16 bits begin with.
    fn code(&self, first: u32) -> Option<(u32, u8)> {
        let length = (1..=16).find(|&length| first < self.limits[length].0)?;
        let index = (first >> (16 - length)) as i32 + self.limits[length].1;
        Some((length as u32, *self.values.get(index as usize)?))
    }

    /// Zeros before a symbol's coefficient, and the bits of its value.
    fn run_and_size(&self, symbol: u8) -> (usize, u32) {
        match (self.kind, symbol) {
            (Code::Ac, 0x00..=0xef) if symbol & 15 == 0 => (COEFFICIENTS, 0),
            _ => (usize::from(symbol >> 4), u32::from(symbol & 15)),
        }
    }

    fn symbol(&self, first: u32) -> Symbol {
        let found = self.code(first << (16 - LOOK));
        let Some((length, symbol)) = found.filter(|&(length, _)| length <= LOOK) else {
            return Symbol::default();
        };
        let (run, size) = self.run_and_size(symbol);
        if length + size > LOOK {
            return Symbol::default();
        }
        let value = first >> (LOOK - length - size) & ((1 << size) - 1);
        Symbol {
            bits: (length + size) as u8,
            run: run as u8,
            value: extend(value, size) as i16,
        }
    }

    fn pass_over(&self, first: u32) -> Passed {
        let (mut bits, mut coefficients) = (0, 0);
        loop {
            let rest = first << (16 - SKIP + bits) & 0xffff;
            let Some((length, symbol)) = self.code(rest) else { break };
            let (run, size) = self.run_and_size(symbol);
            let ends = run == COEFFICIENTS;
            if bits + length + size > SKIP || !ends && coefficients + run + 1 >= COEFFICIENTS - 1 {
                break;
            }
            bits += length + size;
            if ends {
                return Passed::new(bits, coefficients + COEFFICIENTS);
            }
            coefficients += run + 1;
        }
        if bits == 0 {
            return Passed::UNKNOWN;
        }
        Passed::new(bits, coefficients)
    }

    /// The symbol that these bits begin with, found bit by bit: its bits, the zeros before a coefficient, the coefficient.
    #[cold]
    #[inline(never)]
    fn read(&self, buffer: u64) -> Option<(u32, usize, i32)> {
        let (length, symbol) = self.code((buffer >> 48) as u32)?;
        let (run, size) = self.run_and_size(symbol);
        // One shift by all 64 bits would be too far.
        let value = (buffer << length >> 1 >> (63 - size)) as u32;
        Some((length + size, run, extend(value, size)))
    }

    /// The next symbol: zeros before a coefficient, and the coefficient. At most [`LOOK`] bits are passed, or else the bits
    /// are filled again: [`PER_FILL`] symbols may be read after they have been filled.
    #[inline(always)]
    fn next(&self, bits: &mut Bits<'_>) -> Option<(usize, i32)> {
        let symbol = self.symbols[bits.first(LOOK)];
        if symbol.bits == 0 {
            let (length, run, value) = self.read(bits.buffer)?;
            bits.pass(length);
            bits.fill();
            return Some((run, value));
        }
        bits.pass(u32::from(symbol.bits));
        Some((usize::from(symbol.run), i32::from(symbol.value)))
    }

    /// The next difference of first coefficients.
    #[inline(always)]
    pub(super) fn difference(&self, bits: &mut Bits<'_>) -> Option<i32> {
        bits.fill();
        self.next(bits).map(|(_, value)| value)
    }

    /// Reads the rest of a block after [`difference`](Self::difference); returns the sum of its coefficients up to number `last`, each times its `basis`.
    #[inline(always)]
    pub(super) fn block<const N: usize>(
        &self,
        bits: &mut Bits<'_>,
        first: i32,
        basis: &[[f32; N]; COEFFICIENTS],
        last: usize,
    ) -> Option<[f32; N]> {
        let mut sums = basis[0].map(|basis| basis * first as f32);
        let mut at = 1;
        let mut left = PER_FILL - 1;
        while at <= last {
            if left == 0 {
                bits.fill();
                left = PER_FILL;
            }
            left -= 1;
            let (run, value) = self.next(bits)?;
            at += run;
            let Some(basis) = basis.get(at) else {
                return Some(sums);
            };
            let value = value as f32;
            for lane in 0..N {
                sums[lane] += basis[lane] * value;
            }
            at += 1;
        }
        self.pass_rest(bits, at)?;
        Some(sums)
    }

    /// Passes over the coefficients from number `at` to the end of the block.
    #[inline(always)]
    fn pass_rest(&self, bits: &mut Bits<'_>, mut at: usize) -> Option<()> {
        while at < COEFFICIENTS {
            bits.fill();
            // As many as can be looked up before the bits have to be filled again.
            for _ in 0..56 / SKIP {
                let passed = self.passed[bits.first(SKIP)];
                let coefficients = passed.coefficients();
                if at + coefficients >= COEFFICIENTS {
                    if passed.bits() > 0 && coefficients >= COEFFICIENTS && at + coefficients < 2 * COEFFICIENTS {
                        bits.pass(passed.bits());
                        return Some(());
                    }
                    // A long code, or the block may end between the codes.
                    bits.fill();
                    at += self.next(bits)?.0 + 1;
                    break;
                }
                bits.pass(passed.bits());
                at += coefficients;
            }
        }
        Some(())
    }
}

/// A value of `size` bits with its sign (ITU T.81, F.2.2.1).
fn extend(value: u32, size: u32) -> i32 {
    if size > 0 && value >> (size - 1) == 0 {
        value as i32 - (1 << size) + 1
    } else {
        value as i32
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// Codes `0` for sixteen zeros, `10` for the end of the block, `110` for a coefficient of one bit.
    fn short_codes() -> Huffman {
        let counts = [1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        Huffman::new(&counts, &[0xf0, 0x00, 0x01], Code::Ac).unwrap()
    }

    #[test]
    fn what_is_passed_over_together_is_what_the_codes_say_one_by_one() {
        let huffman = short_codes();
        let mut ended = 0;
        for first in 0..1_u32 << SKIP {
            let passed = huffman.passed[first as usize];
            if passed.bits() == 0 {
                assert_eq!(passed.coefficients(), Passed::UNKNOWN.coefficients());
                continue;
            }
            // The same bits, read as a person would.
            let bit = |at: u32| first >> (SKIP - 1 - at) & 1;
            let (mut at, mut coefficients, mut ends) = (0, 0, false);
            while at < passed.bits() {
                assert!(!ends, "{first:b}: nothing is passed behind the end");
                match (bit(at), at + 1 < SKIP && bit(at + 1) == 1) {
                    (0, _) => (at, coefficients) = (at + 1, coefficients + 16),
                    (_, false) => (at, ends) = (at + 2, true),
                    (_, true) => (at, coefficients) = (at + 4, coefficients + 1),
                }
            }
            assert_eq!(at, passed.bits(), "{first:b}: whole codes");
            assert!(coefficients < COEFFICIENTS, "{first:b}: more than a block holds");
            let expected = coefficients + if ends { COEFFICIENTS } else { 0 };
            assert_eq!(passed.coefficients(), expected, "{first:b}");
            ended += usize::from(ends);
        }
        assert!(ended > 1000, "{ended}");
    }
}
