//! What a checkpoint says about a tensor, and the copy of its numbers to contiguous f32.

/// The types of numbers a checkpoint can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ElementType {
    /// `torch.DoubleStorage`
    F64,
    /// `torch.FloatStorage`
    F32,
    /// `torch.HalfStorage`
    F16,
    /// `torch.BFloat16Storage`
    Bf16,
    /// An integer or bool of that many bytes; no network here has any, so their values are never read.
    Integer(u8),
}

impl ElementType {
    /// The type behind the name of a storage class of the module `torch`.
    pub(super) fn of_storage(name: &str) -> Option<Self> {
        Some(match name {
            "DoubleStorage" => Self::F64,
            "FloatStorage" => Self::F32,
            "HalfStorage" => Self::F16,
            "BFloat16Storage" => Self::Bf16,
            "LongStorage" => Self::Integer(8),
            "IntStorage" => Self::Integer(4),
            "ShortStorage" => Self::Integer(2),
            "CharStorage" | "ByteStorage" | "BoolStorage" => Self::Integer(1),
            _ => return None,
        })
    }

    /// The size of one number.
    pub(super) fn bytes(self) -> u64 {
        match self {
            Self::F64 => 8,
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Integer(bytes) => bytes.into(),
        }
    }
}

/// A run of numbers somewhere in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StorageRef<'a> {
    /// The type of its numbers.
    pub(crate) element: ElementType,
    /// Its name in the file.
    pub(crate) key: &'a str,
    /// How many numbers it has.
    pub(crate) length: u64,
}

impl StorageRef<'_> {
    /// Its size, if that can be said in 64 bits.
    pub(super) fn bytes(&self) -> Option<u64> {
        self.length.checked_mul(self.element.bytes())
    }
}

/// A view of a storage: element `[i, j, …]` is number `offset + i * strides[0] + j * strides[1] + …`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TensorRef<'a> {
    /// Where its numbers are.
    pub(crate) storage: StorageRef<'a>,
    /// The storage's number the tensor begins with.
    pub(crate) offset: u64,
    /// The length of each axis.
    pub(crate) shape: Vec<u64>,
    /// The step of each axis, in numbers.
    pub(crate) strides: Vec<u64>,
}

impl TensorRef<'_> {
    /// How many elements the tensor has.
    ///
    /// `None` if it reaches beyond its storage. It may have more elements than its storage has numbers, where a stride
    /// is small: who copies it bounds the memory.
    pub(super) fn elements(&self) -> Option<u64> {
        let count = self
            .shape
            .iter()
            .try_fold(1_u64, |product, &length| product.checked_mul(length))?;
        if count == 0 {
            return Some(0);
        }
        let last = self
            .shape
            .iter()
            .zip(&self.strides)
            .try_fold(self.offset, |last, (&length, &stride)| {
                last.checked_add((length - 1).checked_mul(stride)?)
            })?;
        (last < self.storage.length).then_some(count)
    }

    /// Copies the tensor to contiguous row-major f32; f64 is rounded to the nearest.
    ///
    /// `bytes` is the whole storage, little endian. `None` if the tensor reaches beyond it or holds integers.
    pub(super) fn to_f32(&self, bytes: &[u8]) -> Option<Vec<f32>> {
        let count = usize::try_from(self.elements()?).ok()?;
        let size = usize::try_from(self.storage.element.bytes()).ok()?;
        let number: fn(&[u8]) -> Option<f32> = match self.storage.element {
            ElementType::F64 => |bytes| Some(f64::from_le_bytes(bytes.try_into().ok()?) as f32),
            ElementType::F32 => |bytes| Some(f32::from_le_bytes(bytes.try_into().ok()?)),
            ElementType::F16 => |bytes| Some(f16_to_f32(u16::from_le_bytes(bytes.try_into().ok()?))),
            ElementType::Bf16 => |bytes| {
                Some(f32::from_bits(
                    u32::from(u16::from_le_bytes(bytes.try_into().ok()?)) << 16,
                ))
            },
            ElementType::Integer(_) => return None,
        };
        let mut data = Vec::with_capacity(count);
        let mut index = vec![0_u64; self.shape.len()];
        let mut position = self.offset;
        while data.len() < count {
            let start = usize::try_from(position).ok()?.checked_mul(size)?;
            data.push(number(bytes.get(start..start.checked_add(size)?)?)?);
            // Like an odometer, the last axis turns fastest. An axis of length 1 may have any stride, so what is added
            // and taken away again may wrap; where a number is read, `elements` has checked that the position is right.
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                position = position.wrapping_add(self.strides[axis]);
                if index[axis] < self.shape[axis] {
                    break;
                }
                position = position.wrapping_sub(self.strides[axis].wrapping_mul(self.shape[axis]));
                index[axis] = 0;
            }
        }
        Some(data)
    }
}

/// IEEE 754 binary16 to binary32; exact.
fn f16_to_f32(half: u16) -> f32 {
    let sign = u32::from(half >> 15) << 31;
    let exponent = u32::from(half >> 10) & 0x1f;
    let fraction = u32::from(half) & 0x3ff;
    let magnitude = match exponent {
        // Zero and subnormals: fraction * 2^-24.
        0 => (fraction as f32 * 2.0_f32.powi(-24)).to_bits(),
        0x1f => 0x7f80_0000 | (fraction << 13),
        _ => ((exponent + 112) << 23) | (fraction << 13),
    };
    f32::from_bits(sign | magnitude)
}
