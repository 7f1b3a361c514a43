//! The instructions of a pickle, done one after the other; see [`pickle`](super::pickle).
//!
//! They are documented in CPython's `Lib/pickletools.py`. Each one takes time and memory in proportion to the bytes and
//! stack entries it consumes, so the whole is linear in the file.

use std::collections::HashMap;

use super::pickle::{Global, MAX_INSTRUCTIONS, Object, PickleError, Value};
use super::tensor::{StorageRef, TensorRef};

/// More axes than any weight has. Bounds what one instruction can copy.
const MAX_AXES: usize = 16;
/// The newest protocol there is (since CPython 3.8).
const MAX_PROTOCOL: u8 = 5;

/// The stack machine a pickle is a program for.
pub(super) struct Machine<'a> {
    bytes: &'a [u8],
    position: usize,
    /// Where the current instruction begins, for messages.
    offset: usize,
    stack: Vec<Value<'a>>,
    /// The stack's height at each open mark.
    marks: Vec<usize>,
    memo: HashMap<u32, Value<'a>>,
    objects: Vec<Object<'a>>,
}

impl<'a> Machine<'a> {
    /// A machine at the start of `bytes`.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            position: 0,
            offset: 0,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            objects: Vec::new(),
        }
    }

    /// Runs to the end of the pickle and returns what it is.
    pub(super) fn run(&mut self) -> Result<Value<'a>, PickleError> {
        for _ in 0..MAX_INSTRUCTIONS {
            self.offset = self.position;
            let [opcode] = self.array()?;
            if opcode == b'.' {
                return self.pop();
            }
            self.step(opcode)?;
        }
        Err(PickleError::TooLong)
    }

    /// How many bytes were read.
    pub(super) fn position(&self) -> usize {
        self.position
    }

    /// The objects made, by index.
    pub(super) fn into_objects(self) -> Vec<Object<'a>> {
        self.objects
    }

    /// Does one instruction; the comments give the names of `pickletools`.
    fn step(&mut self, opcode: u8) -> Result<(), PickleError> {
        match opcode {
            // PROTO
            0x80 => {
                let [protocol] = self.array()?;
                if protocol > MAX_PROTOCOL {
                    return Err(self.damaged("an unknown pickle protocol"));
                }
            }
            // FRAME: only tells how far to read ahead
            0x95 => {
                self.take(8)?;
            }
            b'(' => self.marks.push(self.stack.len()),
            // POP takes a mark if that is on top
            b'0' => {
                if self.marks.last() == Some(&self.stack.len()) {
                    self.marks.pop();
                } else {
                    self.pop()?;
                }
            }
            // POP_MARK
            b'1' => {
                self.pop_mark()?;
            }
            // DUP
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }
            b'N' => self.stack.push(Value::None),
            0x88 => self.stack.push(Value::Bool(true)),
            0x89 => self.stack.push(Value::Bool(false)),
            // BININT, BININT1, BININT2, LONG1, LONG4
            b'J' => {
                let value = i32::from_le_bytes(self.array()?);
                self.stack.push(Value::Int(value.into()));
            }
            b'K' => {
                let [value] = self.array()?;
                self.stack.push(Value::Int(value.into()));
            }
            b'M' => {
                let value = u16::from_le_bytes(self.array()?);
                self.stack.push(Value::Int(value.into()));
            }
            0x8a => {
                let [length] = self.array()?;
                self.long(length.into())?;
            }
            0x8b => {
                let length = self.length4()?;
                self.long(length)?;
            }
            // BINFLOAT
            b'G' => {
                self.take(8)?;
                self.stack.push(Value::Float);
            }
            // BINUNICODE, SHORT_BINUNICODE, BINUNICODE8; SHORT_BINSTRING, BINSTRING are Python 2's str
            b'X' | b'T' => {
                let length = self.length4()?;
                self.text(length)?;
            }
            0x8c | b'U' => {
                let [length] = self.array()?;
                self.text(length.into())?;
            }
            0x8d => {
                let length = self.length8()?;
                self.text(length)?;
            }
            // SHORT_BINBYTES, BINBYTES, BINBYTES8
            b'C' => {
                let [length] = self.array()?;
                self.take(length.into())?;
                self.stack.push(Value::Bytes);
            }
            b'B' => {
                let length = self.length4()?;
                self.take(length)?;
                self.stack.push(Value::Bytes);
            }
            0x8e => {
                let length = self.length8()?;
                self.take(length)?;
                self.stack.push(Value::Bytes);
            }
            // EMPTY_LIST, LIST, APPEND, APPENDS
            b']' => self.push(Object::List(Vec::new())),
            b'l' => {
                let items = self.pop_mark()?;
                self.push(Object::List(items));
            }
            b'a' => {
                let item = self.pop()?;
                self.extend_list(vec![item])?;
            }
            b'e' => {
                let items = self.pop_mark()?;
                self.extend_list(items)?;
            }
            // EMPTY_TUPLE, TUPLE, TUPLE1, TUPLE2, TUPLE3
            b')' => self.push(Object::Tuple(Vec::new())),
            b't' => {
                let items = self.pop_mark()?;
                self.push(Object::Tuple(items));
            }
            0x85..=0x87 => {
                let count = usize::from(opcode - 0x84);
                let mut items = Vec::with_capacity(count);
                for _ in 0..count {
                    items.push(self.pop()?);
                }
                items.reverse();
                self.push(Object::Tuple(items));
            }
            // EMPTY_DICT, DICT, SETITEM, SETITEMS
            b'}' => self.push(Object::Dict(Vec::new())),
            b'd' => {
                let items = self.pop_mark()?;
                self.push(Object::Dict(Vec::new()));
                self.extend_dict(&items)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.extend_dict(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.extend_dict(&items)?;
            }
            // BINPUT, LONG_BINPUT, MEMOIZE
            b'q' => {
                let [index] = self.array()?;
                self.memoize(index.into())?;
            }
            b'r' => {
                let index = u32::from_le_bytes(self.array()?);
                self.memoize(index)?;
            }
            0x94 => {
                let index = u32::try_from(self.memo.len()).map_err(|_| PickleError::TooLong)?;
                self.memoize(index)?;
            }
            // BINGET, LONG_BINGET
            b'h' => {
                let [index] = self.array()?;
                self.recall(index.into())?;
            }
            b'j' => {
                let index = u32::from_le_bytes(self.array()?);
                self.recall(index)?;
            }
            // GLOBAL, STACK_GLOBAL
            b'c' => {
                let module = self.line()?;
                let name = self.line()?;
                self.stack.push(Value::Global(Global::find(module, name)?));
            }
            0x93 => {
                let name = self.pop()?;
                let module = self.pop()?;
                let (Value::Text(module), Value::Text(name)) = (module, name) else {
                    return Err(self.damaged("a name that is no text"));
                };
                self.stack.push(Value::Global(Global::find(module, name)?));
            }
            // BINPERSID, REDUCE, BUILD
            b'Q' => self.storage()?,
            b'R' => self.reduce()?,
            b'b' => {
                // The only state is an OrderedDict's `_metadata`, versions of modules: not needed.
                self.pop()?;
                let target = self.top()?;
                if !matches!(self.object(target), Some(Object::Dict(_))) {
                    return Err(self.damaged("a state for something that has none"));
                }
            }
            _ => {
                return Err(PickleError::Instruction {
                    opcode,
                    offset: self.offset,
                });
            }
        }
        Ok(())
    }

    /// The persistent id `("storage", torch.FloatStorage, key, device, length[, view])`.
    fn storage(&mut self) -> Result<(), PickleError> {
        let id = self.pop()?;
        let storage = match self.object(id) {
            Some(Object::Tuple(items)) => match items[..] {
                [
                    Value::Text("storage"),
                    Value::Global(Global::Storage(element)),
                    Value::Text(key),
                    Value::Text(_),
                    Value::Int(length),
                ]
                | [
                    Value::Text("storage"),
                    Value::Global(Global::Storage(element)),
                    Value::Text(key),
                    Value::Text(_),
                    Value::Int(length),
                    Value::None,
                ] => u64::try_from(length)
                    .ok()
                    .map(|length| StorageRef { element, key, length }),
                _ => None,
            },
            _ => None,
        };
        let storage = storage.ok_or_else(|| self.damaged("a storage that can't be understood"))?;
        self.push(Object::Storage(storage));
        Ok(())
    }

    /// A call of one of the known functions.
    fn reduce(&mut self) -> Result<(), PickleError> {
        let arguments = self.pop()?;
        let function = self.pop()?;
        let Some(Object::Tuple(arguments)) = self.object(arguments) else {
            return Err(self.damaged("a call without arguments"));
        };
        match (function, &arguments[..]) {
            (Value::Global(Global::OrderedDict), []) => self.push(Object::Dict(Vec::new())),
            (Value::Global(Global::RebuildTensor), &[storage, Value::Int(offset), shape, strides, ..]) => {
                let tensor = self.tensor(storage, offset, shape, strides);
                let tensor = tensor.ok_or_else(|| self.damaged("a tensor that can't be understood"))?;
                self.push(Object::Tensor(tensor));
            }
            (Value::Global(Global::RebuildParameter), &[tensor, ..])
                if matches!(self.object(tensor), Some(Object::Tensor(_))) =>
            {
                self.stack.push(tensor);
            }
            _ => return Err(self.damaged("a call with wrong arguments")),
        }
        Ok(())
    }

    fn tensor(&self, storage: Value<'a>, offset: i64, shape: Value<'a>, strides: Value<'a>) -> Option<TensorRef<'a>> {
        let Some(Object::Storage(storage)) = self.object(storage) else {
            return None;
        };
        let axes = |value| match self.object(value) {
            Some(Object::Tuple(items)) if items.len() <= MAX_AXES => items
                .iter()
                .map(|item| match item {
                    Value::Int(value) => u64::try_from(*value).ok(),
                    _ => None,
                })
                .collect::<Option<Vec<u64>>>(),
            _ => None,
        };
        let (shape, strides) = (axes(shape)?, axes(strides)?);
        (shape.len() == strides.len()).then_some(TensorRef {
            storage: *storage,
            offset: u64::try_from(offset).ok()?,
            shape,
            strides,
        })
    }

    fn object(&self, value: Value<'a>) -> Option<&Object<'a>> {
        match value {
            Value::Object(index) => self.objects.get(index),
            _ => None,
        }
    }

    fn push(&mut self, object: Object<'a>) {
        self.stack.push(Value::Object(self.objects.len()));
        self.objects.push(object);
    }

    /// The height below which the open mark forbids to take.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Result<Value<'a>, PickleError> {
        match self.stack.last() {
            Some(&value) if self.stack.len() > self.floor() => Ok(value),
            _ => Err(self.damaged("an empty stack")),
        }
    }

    fn pop(&mut self) -> Result<Value<'a>, PickleError> {
        let value = self.top()?;
        self.stack.pop();
        Ok(value)
    }

    fn pop_mark(&mut self) -> Result<Vec<Value<'a>>, PickleError> {
        let mark = self.marks.pop().ok_or_else(|| self.damaged("a missing mark"))?;
        Ok(self.stack.split_off(mark))
    }

    fn extend_list(&mut self, items: Vec<Value<'a>>) -> Result<(), PickleError> {
        if let Value::Object(index) = self.top()?
            && let Some(Object::List(list)) = self.objects.get_mut(index)
        {
            list.extend(items);
            return Ok(());
        }
        Err(self.damaged("an item for something that is no list"))
    }

    fn extend_dict(&mut self, items: &[Value<'a>]) -> Result<(), PickleError> {
        let (pairs, []) = items.as_chunks::<2>() else {
            return Err(self.damaged("a key without value"));
        };
        if let Value::Object(index) = self.top()?
            && let Some(Object::Dict(dict)) = self.objects.get_mut(index)
        {
            dict.extend(pairs.iter().map(|&[key, value]| (key, value)));
            return Ok(());
        }
        Err(self.damaged("a pair for something that is no dict"))
    }

    fn memoize(&mut self, index: u32) -> Result<(), PickleError> {
        let top = self.top()?;
        self.memo.insert(index, top);
        Ok(())
    }

    fn recall(&mut self, index: u32) -> Result<(), PickleError> {
        let value = *self.memo.get(&index).ok_or_else(|| self.damaged("an unknown memo"))?;
        self.stack.push(value);
        Ok(())
    }

    fn long(&mut self, length: usize) -> Result<(), PickleError> {
        let bytes = self.take(length)?;
        let value = match bytes.last() {
            _ if length > 8 => Value::Long(bytes),
            None => Value::Int(0),
            Some(&last) => {
                let mut padded = if last >= 0x80 { [0xff; 8] } else { [0; 8] };
                padded[..length].copy_from_slice(bytes);
                Value::Int(i64::from_le_bytes(padded))
            }
        };
        self.stack.push(value);
        Ok(())
    }

    fn text(&mut self, length: usize) -> Result<(), PickleError> {
        let bytes = self.take(length)?;
        let text = str::from_utf8(bytes).map_err(|_| self.damaged("a text that is not UTF-8"))?;
        self.stack.push(Value::Text(text));
        Ok(())
    }

    fn line(&mut self) -> Result<&'a str, PickleError> {
        let rest = &self.bytes[self.position..];
        let length = rest
            .iter()
            .position(|&byte| byte == b'\n')
            .ok_or(PickleError::Truncated)?;
        self.position += length + 1;
        str::from_utf8(&rest[..length]).map_err(|_| self.damaged("a name that is not UTF-8"))
    }

    fn length4(&mut self) -> Result<usize, PickleError> {
        let length = u32::from_le_bytes(self.array()?);
        usize::try_from(length).map_err(|_| PickleError::Truncated)
    }

    fn length8(&mut self) -> Result<usize, PickleError> {
        let length = u64::from_le_bytes(self.array()?);
        usize::try_from(length).map_err(|_| PickleError::Truncated)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], PickleError> {
        let rest = &self.bytes[self.position..];
        let array = *rest.first_chunk().ok_or(PickleError::Truncated)?;
        self.position += N;
        Ok(array)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], PickleError> {
        let rest = &self.bytes[self.position..];
        let taken = rest.get(..length).ok_or(PickleError::Truncated)?;
        self.position += length;
        Ok(taken)
    }

    fn damaged(&self, what: &'static str) -> PickleError {
        PickleError::Damaged {
            what,
            offset: self.offset,
        }
    }
}
