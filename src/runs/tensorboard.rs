//! The event file that TensorBoard reads: scalars by epoch.
//!
//! A file is a sequence of TFRecords: length u64, masked CRC-32C of those 8 bytes, data, masked CRC-32C of the data, all
//! integers little-endian (TensorFlow's `tensorflow/core/lib/io/record_writer.h`). The data are `Event` messages
//! (`event.proto`, `summary.proto`), of which the fields used here are written out below: TensorFlow never renumbers
//! them, and reading is TensorBoard's business.
//!
//! An event carries a time of day. Epochs are not timed one by one, so theirs are spread evenly from the beginning of the
//! training to its end. So these files, unlike the head, differ from run to run.

use std::time::{SystemTime, UNIX_EPOCH};

use crc::{CRC_32_ISCSI, Crc};
use prost::Message;

use crate::head::EpochRecord;

/// CRC-32C (Castagnoli), which iSCSI brought into use.
const CRC_32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);
/// What is added to a rotated CRC, so that the CRC of data with a CRC in it stays a good one.
const MASK: u32 = 0xa282_ead8;
/// What a file begins with.
const FILE_VERSION: &str = "brain.Event:2";

/// One record of an event file (`tensorflow.Event`).
#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    /// The epoch.
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
}

/// The values of one step (`tensorflow.Summary`).
#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Value>,
}

/// One scalar (`tensorflow.Summary.Value`).
#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    /// Optional, because it is one of a `oneof` there: a zero is written too.
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

/// The bytes of an event file with the curves of a training that went on from `began` to `ended`.
///
/// Tags: `loss/train`, `accuracy/train`, `lr`, and where there is validation `loss/val`, `accuracy/val`.
pub(super) fn events(history: &[EpochRecord], began: SystemTime, ended: SystemTime) -> Vec<u8> {
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
    let (began, ended) = (seconds(began), seconds(ended));
    let mut bytes = Vec::with_capacity(256 * (history.len() + 1));
    let first = Event {
        wall_time: began,
        file_version: Some(FILE_VERSION.to_owned()),
        ..Event::default()
    };
    write_record(&first, &mut bytes);
    for (index, record) in history.iter().enumerate() {
        let scalars = [
            ("loss/train", Some(record.train_loss)),
            ("loss/val", record.val_loss),
            ("accuracy/train", Some(record.train_accuracy)),
            ("accuracy/val", record.val_accuracy),
            ("lr", Some(record.learning_rate)),
        ];
        let value = |(tag, value): (&str, Option<f64>)| Value {
            tag: tag.to_owned(),
            simple_value: value.map(|value| value as f32),
        };
        let values = scalars.into_iter().filter(|(_, value)| value.is_some()).map(value);
        let event = Event {
            wall_time: began + (ended - began) * (index + 1) as f64 / history.len() as f64,
            step: record.epoch as i64,
            summary: Some(Summary {
                value: values.collect(),
            }),
            file_version: None,
        };
        write_record(&event, &mut bytes);
    }
    bytes
}

fn write_record(event: &Event, bytes: &mut Vec<u8>) {
    let data = event.encode_to_vec();
    let length = (data.len() as u64).to_le_bytes();
    bytes.extend(length);
    bytes.extend(masked_crc(&length).to_le_bytes());
    bytes.extend(&data);
    bytes.extend(masked_crc(&data).to_le_bytes());
}

fn masked_crc(data: &[u8]) -> u32 {
    CRC_32C.checksum(data).rotate_right(15).wrapping_add(MASK)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn checksums_are_castagnolis() {
        // RFC 3720, B.4, and the check value of the CRC catalogues.
        assert_eq!(CRC_32C.checksum(b"123456789"), 0xe306_9283);
        assert_eq!(CRC_32C.checksum(&[0; 32]), 0x8a91_36aa);
        assert_eq!(CRC_32C.checksum(&[0xff; 32]), 0x62a8_ab43);
        let ascending: Vec<u8> = (0..32).collect();
        assert_eq!(CRC_32C.checksum(&ascending), 0x46dd_794e);
    }

    #[test]
    fn a_file_of_no_epoch_is_the_version_alone() {
        let time = UNIX_EPOCH + Duration::from_millis(1500);
        let bytes = events(&[], time, time);
        // Field 1, f64 1.5; field 3, 13 bytes.
        let mut data = vec![9];
        data.extend(1.5_f64.to_le_bytes());
        data.extend([0x1a, 13]);
        data.extend(b"brain.Event:2");
        assert_eq!(bytes[..8], (data.len() as u64).to_le_bytes());
        assert_eq!(bytes[12..bytes.len() - 4], data);
    }
}
