//! A pickle reader that runs nothing: it knows the instructions and the handful of names a state dict is made of.
//!
//! Python's own unpickler calls whatever function the file names. This one has no function to call: a name is either in
//! the list of [`Global`] or the file is refused. Every object lies in one flat list and refers to others by index, so
//! no nesting, however deep, can exhaust the stack, neither while reading nor while dropping. The instructions are done
//! by [`machine`](super::machine), what the tensors hold is left to [`tensor`](super::tensor), and where their bytes lie
//! in the file to [`checkpoint`](super).

use super::machine::Machine;
use super::tensor::{ElementType, StorageRef, TensorRef};

/// More instructions than any state dict has: MobileNetV2 takes 11 thousand. Bounds time and memory.
pub(super) const MAX_INSTRUCTIONS: u32 = 1_000_000;

/// Why a pickle was refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PickleError {
    /// The bytes end before the pickle does.
    #[error("it ends in the middle of its object list: the file is truncated")]
    Truncated,
    /// A function or class outside the list.
    #[error("it names `{0}`, which is no part of a state dict (nothing of the file was run)")]
    Global(String),
    /// An instruction outside the list.
    #[error("it has the pickle instruction {opcode:#04x} at byte {offset}, which is no part of a state dict")]
    Instruction {
        /// The instruction.
        opcode: u8,
        /// Where it stands, from the start of its pickle.
        offset: usize,
    },
    /// Instructions that make no sense together.
    #[error("it is damaged: {what} at byte {offset} of its object list")]
    Damaged {
        /// What was found.
        what: &'static str,
        /// Where, from the start of its pickle.
        offset: usize,
    },
    /// More instructions than a state dict has.
    #[error("its object list has more than {MAX_INSTRUCTIONS} instructions: that is no state dict")]
    TooLong,
}

/// A function or class a state dict may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Global {
    /// `collections.OrderedDict`
    OrderedDict,
    /// `torch._utils._rebuild_tensor`, written before 0.4, and `_rebuild_tensor_v2`, written since
    RebuildTensor,
    /// `torch._utils._rebuild_parameter`
    RebuildParameter,
    /// `torch.FloatStorage` and its siblings
    Storage(ElementType),
}

impl Global {
    pub(super) fn find(module: &str, name: &str) -> Result<Self, PickleError> {
        match (module, name) {
            ("collections", "OrderedDict") => Some(Self::OrderedDict),
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Some(Self::RebuildTensor),
            ("torch._utils", "_rebuild_parameter") => Some(Self::RebuildParameter),
            ("torch", _) => ElementType::of_storage(name).map(Self::Storage),
            _ => None,
        }
        .ok_or_else(|| {
            // A hostile name must not flood or steer a terminal.
            let name: String = format!("{module}.{name}")
                .chars()
                .take(80)
                .flat_map(char::escape_debug)
                .collect();
            PickleError::Global(name)
        })
    }
}

/// Anything the virtual machine can hold; cheap to copy because objects are referred to by index.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Value<'a> {
    /// `None`
    None,
    /// `True` or `False`
    Bool(bool),
    /// An integer of up to 64 bits.
    Int(i64),
    /// A longer integer, two's complement, little endian.
    Long(&'a [u8]),
    /// A float; none is needed, but optimiser states have them.
    Float,
    /// A `str`
    Text(&'a str),
    /// A `bytes`; as with floats, its content is never needed.
    Bytes,
    /// A name from the list.
    Global(Global),
    /// An index into [`Pickle::objects`].
    Object(usize),
}

/// What a [`Value::Object`] refers to.
#[derive(Debug)]
pub(crate) enum Object<'a> {
    /// A `list`
    List(Vec<Value<'a>>),
    /// A `tuple`
    Tuple(Vec<Value<'a>>),
    /// A `dict` or `OrderedDict`, in the order of writing; a later pair replaces an earlier one with its key.
    Dict(Vec<(Value<'a>, Value<'a>)>),
    /// A run of numbers elsewhere in the file.
    Storage(StorageRef<'a>),
    /// A view of a storage.
    Tensor(TensorRef<'a>),
}

/// One pickle, read.
#[derive(Debug)]
pub(crate) struct Pickle<'a> {
    /// What the pickle is.
    pub(crate) root: Value<'a>,
    /// All objects.
    objects: Vec<Object<'a>>,
    /// How many bytes the pickle took.
    pub(crate) length: usize,
}

impl<'a> Pickle<'a> {
    /// Reads the pickle that `bytes` begins with; what follows it is ignored.
    ///
    /// # Errors
    /// A [`PickleError`] for anything a state dict doesn't have.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, PickleError> {
        let mut machine = Machine::new(bytes);
        let root = machine.run()?;
        Ok(Self {
            root,
            length: machine.position(),
            objects: machine.into_objects(),
        })
    }

    /// The object behind `value`, if it is one.
    pub(crate) fn object(&self, value: Value<'a>) -> Option<&Object<'a>> {
        match value {
            Value::Object(index) => self.objects.get(index),
            _ => None,
        }
    }

    /// All storages the pickle names.
    pub(crate) fn storages(&self) -> impl Iterator<Item = StorageRef<'a>> {
        self.objects.iter().filter_map(|object| match object {
            Object::Storage(storage) => Some(*storage),
            _ => None,
        })
    }
}
