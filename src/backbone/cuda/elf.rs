//! Which libraries a shared object of Linux says it needs, without loading it.
//!
//! ONNX Runtime's loader names the first library that is missing, and nothing at all where there is no driver; the file
//! itself names all of them, with the major versions it was built for. System V ABI, chapters 4 and 5; 64 bits, little
//! endian.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// Program header types and dynamic tags.
const LOAD: u32 = 1;
const DYNAMIC: u32 = 2;
const NULL: u64 = 0;
const NEEDED: u64 = 1;
const STRING_TABLE: u64 = 5;
const STRING_TABLE_LENGTH: u64 = 10;
/// More than any library's dynamic section and its names.
const LARGEST_PART: u64 = 16 << 20;

/// The names in the `DT_NEEDED` entries of `path`, in order; `None` if it is no such file or damaged.
pub(super) fn needed(path: &Path) -> Option<Vec<String>> {
    let mut file = File::open(path).ok()?;
    let mut read = |offset: u64, length: u64| -> Option<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(length).ok().filter(|_| length <= LARGEST_PART)?];
        file.seek(SeekFrom::Start(offset)).ok()?;
        file.read_exact(&mut bytes).ok()?;
        Some(bytes)
    };
    let header = read(0, 64)?;
    // 64 bits, little endian.
    if !header.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (size, count) = (u64::from(short(&header, 54)?), u64::from(short(&header, 56)?));
    let headers = read(long(&header, 32)?, size.checked_mul(count)?)?;
    let headers: Vec<&[u8]> = headers
        .chunks_exact(usize::try_from(size).ok().filter(|&size| size >= 56)?)
        .collect();
    let of_type = |wanted: u32| headers.iter().filter(move |header| word(header, 0) == Some(wanted));
    let dynamic = of_type(DYNAMIC).next()?;
    let dynamic = read(long(dynamic, 8)?, long(dynamic, 32)?)?;
    let entries: Vec<(u64, u64)> = dynamic
        .chunks_exact(16)
        .filter_map(|entry| Some((long(entry, 0)?, long(entry, 8)?)))
        .take_while(|(tag, _)| *tag != NULL)
        .collect();
    let value = |wanted| entries.iter().find(|(tag, _)| *tag == wanted).map(|(_, value)| *value);
    let address = value(STRING_TABLE)?;
    // The table is given by its place in memory; where that lies in the file is in the headers.
    let offset = of_type(LOAD).find_map(|header| {
        let (offset, start, length) = (long(header, 8)?, long(header, 16)?, long(header, 32)?);
        let inside = address.checked_sub(start).filter(|inside| *inside < length)?;
        offset.checked_add(inside)
    })?;
    let names = read(offset, value(STRING_TABLE_LENGTH)?)?;
    let name = |at: u64| {
        let rest = names.get(usize::try_from(at).ok()?..)?;
        let end = rest.iter().position(|&byte| byte == 0)?;
        String::from_utf8(rest[..end].to_vec()).ok()
    };
    let needed = entries.iter().filter(|(tag, _)| *tag == NEEDED);
    needed.map(|(_, at)| name(*at)).collect()
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn this_program_names_the_c_library() {
        if cfg!(all(
            target_os = "linux",
            target_pointer_width = "64",
            target_env = "gnu"
        )) {
            let names = needed(&std::env::current_exe().unwrap()).unwrap();
            assert!(names.iter().any(|name| name == "libc.so.6"), "{names:?}");
            assert!(names.iter().all(|name| name.contains(".so")), "{names:?}");
        }
    }

    #[test]
    fn what_is_no_library_or_cut_short_names_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("library.so");
        assert_eq!(needed(&path), None);
        let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        for length in [0, 5, 63, 64, 200, 1000] {
            std::fs::write(&path, &program[..length]).unwrap();
            assert_eq!(needed(&path), None, "{length}");
        }
        // A header that asks for everything there could be.
        let mut damaged = program[..64].to_vec();
        damaged[32..64].fill(0xff);
        std::fs::write(&path, &damaged).unwrap();
        assert_eq!(needed(&path), None);
    }
}
