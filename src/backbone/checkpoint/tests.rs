//! Tests of the checkpoint reader, on bytes PyTorch wrote and on bytes nobody should write.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::Write as _;
use std::path::Path;

use proptest::prelude::*;

use super::*;

/// `torch.save(OrderedDict([("module.w", arange(6.).reshape(2, 3).t()), ("module.n", tensor(7)),
/// ("module.h", tensor([1.5, -2.0]).half())]), f, _use_new_zipfile_serialization=False)` of PyTorch 2.15.
const LEGACY: &str = "80028a0a6cfc9c46f9206aa850192e80024de9032e80027d710028581000000070726f746f636f6c5f76657273696f6e71014de90358\
     0d0000006c6974746c655f656e6469616e710288580a000000747970655f73697a657371037d710428580500000073686f727471054b\
     025803000000696e7471064b0458040000006c6f6e6771074b0475752e800263636f6c6c656374696f6e730a4f726465726564446963\
     740a7100295271012858080000006d6f64756c652e77710263746f7263682e5f7574696c730a5f72656275696c645f74656e736f725f\
     76320a71032828580700000073746f72616765710463746f7263680a466c6f617453746f726167650a7105580e000000393438353433\
     32323133353530347106580300000063707571074b064e747108514b004b034b028671094b014b0386710a8968002952710b74710c52\
     710d58080000006d6f64756c652e6e710e68032828680463746f7263680a4c6f6e6753746f726167650a710f580e0000003934383534\
     333232313334323038711068074b014e747111514b0029298968002952711274711352711458080000006d6f64756c652e6871156803\
     2828680463746f7263680a48616c6653746f726167650a7116580e0000003934383534333232313334333532711768074b024e747118\
     514b004b028571194b0185711a8968002952711b74711c52711d752e80025d710028580e000000393438353433323231333432303871\
     01580e00000039343835343332323133343335327102580e00000039343835343332323133353530347103652e010000000000000007\
     000000000000000200000000000000003e00c00600000000000000000000000000803f0000004000004040000080400000a040";

/// `data.pkl` of the same saved as zip archive by `torch.save({"state_dict": …, "epoch": 3, "lr": 0.5}, f)`.
const DATA_PICKLE: &str = "80027d710028580a00000073746174655f64696374710163636f6c6c656374696f6e730a4f726465726564446963740a710229527103\
     2858080000006d6f64756c652e77710463746f7263682e5f7574696c730a5f72656275696c645f74656e736f725f76320a7105282858\
     0700000073746f72616765710663746f7263680a466c6f617453746f726167650a71075801000000307108580300000063707571094b\
     0674710a514b004b034b0286710b4b014b0386710c8968022952710d74710e52710f58080000006d6f64756c652e6e71106805282868\
     0663746f7263680a4c6f6e6753746f726167650a7111580100000031711268094b01747113514b002929896802295271147471155271\
     1658080000006d6f64756c652e68711768052828680663746f7263680a48616c6653746f726167650a7118580100000032711968094b\
     0274711a514b004b0285711b4b0185711c8968022952711d74711e52711f75580500000065706f636871204b0358020000006c727121\
     473fe0000000000000752e";

/// What both of them hold: the transposed matrix is stored as it was before, and the integer is left out.
fn expected() -> Vec<(String, Tensor)> {
    vec![
        (
            "w".to_owned(),
            Tensor {
                shape: vec![3, 2],
                data: vec![0.0, 3.0, 1.0, 4.0, 2.0, 5.0],
            },
        ),
        (
            "h".to_owned(),
            Tensor {
                shape: vec![2],
                data: vec![1.5, -2.0],
            },
        ),
    ]
}

fn from_hex(hex: &str) -> Vec<u8> {
    (0..hex.len())
        .step_by(2)
        .map(|start| u8::from_str_radix(&hex[start..start + 2], 16).unwrap())
        .collect()
}

fn archive(entries: &[(&str, &[u8])], method: zip::CompressionMethod) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().compression_method(method);
    for (name, bytes) in entries {
        writer.start_file(*name, options).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn numbers() -> Vec<u8> {
    (0..6).flat_map(|value| (value as f32).to_le_bytes()).collect()
}

fn good_archive(method: zip::CompressionMethod) -> Vec<u8> {
    let entries: [(&str, &[u8]); 5] = [
        ("archive/data.pkl", &from_hex(DATA_PICKLE)),
        ("archive/byteorder", b"little"),
        ("archive/data/0", &numbers()),
        ("archive/data/1", &7_u64.to_le_bytes()),
        ("archive/data/2", &[0x00, 0x3e, 0x00, 0xc0]),
    ];
    archive(&entries, method)
}

fn message(bytes: &[u8]) -> String {
    parse_checkpoint(bytes, Path::new("some.pt")).unwrap_err().to_string()
}

/// A file in the older format around an object list and its storages.
fn legacy(object_list: &[u8], keys: &[&str], storages: &[u8]) -> Vec<u8> {
    let mut bytes = from_hex("80028a0a6cfc9c46f9206aa850192e80024de9032e80027d2e");
    bytes.extend(object_list);
    bytes.extend(b"\x80\x02](");
    for key in keys {
        bytes.push(b'X');
        bytes.extend((key.len() as u32).to_le_bytes());
        bytes.extend(key.as_bytes());
    }
    bytes.extend(b"e.");
    bytes.extend(storages);
    bytes
}

/// The object list `{"w": tensor}` with a f32 storage `k` of `length` numbers.
fn one_tensor(length: i32, offset: i32, shape: &[i32], strides: &[i32]) -> Vec<u8> {
    let int = |value: i32| [&b"J"[..], &value.to_le_bytes()].concat();
    let tuple = |values: &[i32]| {
        let items: Vec<u8> = values.iter().flat_map(|&value| int(value)).collect();
        [b"(", &items[..], b"t"].concat()
    };
    [
        b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n",
        &b"X\x01\x00\x00\x00kX\x03\x00\x00\x00cpu"[..],
        &int(length),
        b"tQ",
        &int(offset),
        &tuple(shape),
        &tuple(strides),
        b"\x89NtRs.",
    ]
    .concat()
}

fn one_tensor_file(offset: i32, shape: &[i32], strides: &[i32]) -> Vec<u8> {
    let storage = [&6_u64.to_le_bytes()[..], &numbers()].concat();
    legacy(&one_tensor(6, offset, shape, strides), &["k"], &storage)
}

#[test]
fn files_of_torch_save_are_read() {
    let path = Path::new("some.pt");
    assert_eq!(parse_checkpoint(&from_hex(LEGACY), path).unwrap().entries, expected());
    for method in [zip::CompressionMethod::Stored, zip::CompressionMethod::Deflated] {
        assert_eq!(
            parse_checkpoint(&good_archive(method), path).unwrap().entries,
            expected()
        );
    }
}

#[test]
fn offsets_and_strides_are_followed() {
    let read = |offset, shape: &[i32], strides: &[i32]| {
        parse_checkpoint(&one_tensor_file(offset, shape, strides), Path::new("f"))
            .map(|state| state.entries[0].1.clone())
    };
    assert_eq!(
        read(1, &[2, 2], &[3, 1]).unwrap(),
        Tensor {
            shape: vec![2, 2],
            data: vec![1.0, 2.0, 4.0, 5.0]
        }
    );
    assert_eq!(
        read(0, &[2, 1, 3], &[1, i32::MAX, 2]).unwrap().data,
        [0.0, 2.0, 4.0, 1.0, 3.0, 5.0]
    );
    assert_eq!(
        read(5, &[], &[]).unwrap(),
        Tensor {
            shape: vec![],
            data: vec![5.0]
        }
    );
    assert_eq!(read(9, &[0, i32::MAX, i32::MAX], &[1, 1, 1]).unwrap().data, [0.0; 0]);
    for (offset, shape, strides) in [
        (6, [1, 1], [1, 1]),
        (1, [2, 3], [3, 1]),
        (0, [i32::MAX, i32::MAX], [i32::MAX, i32::MAX]),
    ] {
        let error = read(offset, &shape, &strides).unwrap_err().to_string();
        assert!(error.contains("the tensor `w` reaches beyond its storage"), "{error}");
    }
    for (offset, shape, strides) in [(-1, [1, 1], [1, 1]), (0, [-1, 1], [1, 1]), (0, [1, 2], [1, -1])] {
        let error = read(offset, &shape, &strides).unwrap_err().to_string();
        assert!(error.contains("a tensor that can't be understood"), "{error}");
    }
}

#[test]
fn a_small_file_can_claim_no_large_memory() {
    // Stride 0 makes many elements of one number.
    let error = message(&one_tensor_file(0, &[i32::MAX, 2], &[0, 0]));
    assert!(error.contains("more than 16 times the size of the file"), "{error}");

    let huge = one_tensor(i32::MAX, 0, &[1], &[1]);
    let error = message(&legacy(
        &huge,
        &["k"],
        &[&0x7fff_ffff_u64.to_le_bytes()[..], &[0; 16]].concat(),
    ));
    assert!(error.contains("the numbers of storage `k` are missing"), "{error}");
    let bytes = archive(
        &[("a/data.pkl", &huge), ("a/data/k", &[0; 16])],
        zip::CompressionMethod::Stored,
    );
    assert!(message(&bytes).contains("more than 16 times the size of the file"));

    let bomb = vec![0; 17 << 20];
    let bytes = archive(&[("a/data.pkl", &bomb)], zip::CompressionMethod::Deflated);
    assert!(bytes.len() < 100_000);
    assert!(message(&bytes).contains("that is no state dict"));
}

#[test]
fn functions_are_refused_by_name() {
    // pickle.dumps of an object whose __reduce__ is (os.system, ("true",)), protocols 2 and 4.
    let second = from_hex("800263706f7369780a73797374656d0a710058040000007472756571018571025271032e");
    let fourth = from_hex("8004951f000000000000008c05706f736978948c0673797374656d9493948c047472756594859452942e");
    for object_list in [&second, &fourth] {
        let bytes = archive(&[("a/data.pkl", object_list)], zip::CompressionMethod::Stored);
        for bytes in [bytes, legacy(object_list, &[], &[])] {
            let error = parse_checkpoint(&bytes, Path::new("some.pt")).unwrap_err();
            assert_eq!(
                error.to_string(),
                "cannot read the checkpoint `some.pt`: it names `posix.system`, which is no part of a state dict \
                 (nothing of the file was run)"
            );
            assert!(error.hint().unwrap().contains("torch.save(model.state_dict(), path)"));
        }
    }
    for (module, name) in [
        ("torch", "load"),
        ("builtins", "eval"),
        ("torch", "QInt8Storage"),
        ("a\x1b[31m", "b"),
    ] {
        let error = Pickle::read(format!("c{module}\n{name}\n.").as_bytes()).unwrap_err();
        assert!(
            matches!(&error, PickleError::Global(name) if !name.contains('\x1b')),
            "{error}"
        );
    }
}

#[test]
fn instructions_beyond_a_state_dict_are_refused() {
    // INST, OBJ, NEWOBJ, EXT1, PERSID, and the integers of protocol 0.
    for opcode in [b'i', b'o', 0x81, 0x82, b'P', b'I'] {
        let error = Pickle::read(&[0x80, 2, opcode, b'\n', b'.']).unwrap_err();
        assert_eq!(error, PickleError::Instruction { opcode, offset: 2 });
    }
    for nonsense in [
        "",
        ".",
        "0.",
        "t.",
        "(.",
        "N(.",
        "NNs.",
        "}(Nu.",
        "]Nb.",
        "NQ.",
        "NNR.",
        "ccollections\nOrderedDict\n]R.",
    ] {
        assert!(Pickle::read(nonsense.as_bytes()).is_err(), "{nonsense}");
    }
}

#[test]
fn deep_nesting_takes_no_stack() {
    let deep = [b"]".repeat(200_000), b"a".repeat(199_999), b".".to_vec()].concat();
    let pickle = Pickle::read(&deep).unwrap();
    assert_eq!(pickle.length, deep.len());
    let deep = [b"N".to_vec(), b"\x85".repeat(500_000), b".".to_vec()].concat();
    assert!(Pickle::read(&deep).is_ok());
    // A list that holds itself.
    assert!(Pickle::read(b"]q\x00h\x00a.").is_ok());
    let endless = b"N".repeat(1_500_000);
    assert_eq!(Pickle::read(&endless).unwrap_err(), PickleError::TooLong);
}

#[test]
fn what_is_no_state_dict_is_said() {
    assert!(message(b"").contains("neither a zip archive nor an older file"));
    assert!(message(b"<html>").contains("neither a zip archive nor an older file"));
    assert!(message(&legacy(b"N.", &[], &[])).contains("it holds no state dict"));
    assert!(message(&legacy(b"}U\x01aNs.", &[], &[])).contains("its entry `a` is no tensor"));
    assert!(message(&archive(&[("a/b", b"c")], zip::CompressionMethod::Stored)).contains("has 0 files named data.pkl"));
    let big = archive(
        &[("a/data.pkl", b"}."), ("a/byteorder", b"big")],
        zip::CompressionMethod::Stored,
    );
    assert!(message(&big).contains("big-endian"));
    let missing = archive(
        &[("a/data.pkl", &from_hex(DATA_PICKLE))],
        zip::CompressionMethod::Stored,
    );
    assert!(message(&missing).contains("the numbers of storage `0` are missing"));
}

#[test]
fn every_truncation_is_an_error() {
    for bytes in [from_hex(LEGACY), good_archive(zip::CompressionMethod::Stored)] {
        for length in 0..bytes.len() {
            assert!(
                parse_checkpoint(&bytes[..length], Path::new("f")).is_err(),
                "{length} of {}",
                bytes.len()
            );
        }
    }
}

#[test]
fn halves_become_what_ieee_754_says() {
    let half = |bits: u16| {
        let storage = tensor::StorageRef {
            element: ElementType::F16,
            key: "k",
            length: 1,
        };
        let tensor = tensor::TensorRef {
            storage,
            offset: 0,
            shape: vec![],
            strides: vec![],
        };
        tensor.to_f32(&bits.to_le_bytes()).unwrap()[0]
    };
    // Sign, exponent, and fraction straight from the standard, in f64.
    for bits in 0..=u16::MAX {
        let (sign, exponent, fraction) = (bits >> 15, i32::from(bits >> 10 & 31), f64::from(bits & 1023));
        let magnitude = match exponent {
            0 => fraction / 1024.0 * 2.0_f64.powi(-14),
            31 if fraction > 0.0 => f64::NAN,
            31 => f64::INFINITY,
            _ => (1.0 + fraction / 1024.0) * 2.0_f64.powi(exponent - 15),
        };
        let value = if sign == 1 { -magnitude } else { magnitude };
        let got = half(bits);
        assert!(f64::from(got) == value && got.is_sign_negative() == (sign == 1) || value.is_nan() && got.is_nan());
    }
}

proptest! {
    #[test]
    fn random_object_lists_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Pickle::read(&bytes);
        let _ = parse_checkpoint(&legacy(&bytes, &["k"], &[0; 64]), Path::new("f"));
    }

    #[test]
    fn flipped_bits_never_panic(flips in prop::collection::vec((any::<prop::sample::Index>(), 0..8_u8), 1..6)) {
        for mut bytes in [from_hex(LEGACY), good_archive(zip::CompressionMethod::Deflated)] {
            for (index, bit) in &flips {
                let index = index.index(bytes.len());
                bytes[index] ^= 1 << bit;
            }
            let _ = parse_checkpoint(&bytes, Path::new("f"));
        }
        let mut object_list = from_hex(DATA_PICKLE);
        for (index, bit) in &flips {
            let index = index.index(object_list.len());
            object_list[index] ^= 1 << bit;
        }
        let entries: [(&str, &[u8]); 3] = [("data.pkl", &object_list), ("data/0", &numbers()), ("data/2", &[0; 4])];
        let _ = parse_checkpoint(&archive(&entries, zip::CompressionMethod::Stored), Path::new("f"));
    }
}

#[test]
fn the_seeds_are_what_is_written() {
    use crate::hostile::{check_encoded_seed, check_seed};
    check_seed("checkpoint", "legacy.pth", &from_hex(LEGACY));
    check_encoded_seed(
        "checkpoint",
        "stored.pth",
        &good_archive(zip::CompressionMethod::Stored),
    );
    check_encoded_seed(
        "checkpoint",
        "deflated.pth",
        &good_archive(zip::CompressionMethod::Deflated),
    );
}
