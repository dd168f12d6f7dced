//! Requests and answers as JSON: what a record of calls holds, and what is compared and answered when it is replayed.
//!
//! Lists of bytes become `{"$text": …}` where they are UTF-8 and `{"$base64": …}` where not; in requests, which are only ever
//! compared, long ones become `{"$sha256": …, "bytes": n}`. Floats become `{"$f64": …}`, so that not a bit of them is lost.
//! Secrets are blotted out byte by byte before anything is encoded: their length stays, so that offsets and digests that a
//! plugin makes of what it was answered come out the same.

use std::cell::Cell;
use std::fmt::Display;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::DeserializeOwned;
use serde::ser::{self, Impossible, Serialize, Serializer};
use serde_json::{Map, Number, Value, json};
use sha2::{Digest, Sha256};

use crate::results::redact::Redactor;

/// Requests of more bytes than these are kept as a digest.
const LONGEST_REQUEST: usize = 1024;

const TEXT: &str = "$text";
const BASE64: &str = "$base64";
const FLOAT: &str = "$f64";
const SHA256: &str = "$sha256";

/// What cannot be a body.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BodyError(String);

impl ser::Error for BodyError {
    fn custom<T: Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

/// Turns values into bodies, and knows whether a secret was among them.
#[derive(Debug)]
pub struct Writer<'a> {
    redactor: &'a Redactor,
    digests: bool,
    masked: Cell<bool>,
}

impl<'a> Writer<'a> {
    /// For requests: long bytes become digests.
    #[must_use]
    pub fn of_requests(redactor: &'a Redactor) -> Self {
        Self { redactor, digests: true, masked: Cell::new(false) }
    }

    /// For answers and arguments, which are needed as a whole.
    #[must_use]
    pub fn of_answers(redactor: &'a Redactor) -> Self {
        Self { redactor, digests: false, masked: Cell::new(false) }
    }

    /// One value.
    ///
    /// # Errors
    /// It has a shape that no interface has.
    pub fn body<T: Serialize + ?Sized>(&self, value: &T) -> Result<Value, BodyError> {
        Ok(match value.serialize(self)? {
            Piece::Byte(byte) => Value::from(byte),
            Piece::Json(value) => value,
        })
    }

    /// Whether a secret was blotted out.
    #[must_use]
    pub fn masked(&self) -> bool {
        self.masked.get()
    }

    fn text(&self, text: &str) -> String {
        let mut bytes = text.as_bytes().to_vec();
        if self.redactor.blot(&mut bytes, false) {
            self.masked.set(true);
        }
        // Values are whole texts, and what stands for them is one.
        String::from_utf8(bytes).unwrap_or_default()
    }

    fn bytes(&self, mut bytes: Vec<u8>) -> Value {
        if self.redactor.blot(&mut bytes, true) {
            self.masked.set(true);
        }
        if self.digests && bytes.len() > LONGEST_REQUEST {
            return json!({SHA256: hex::encode(Sha256::digest(&bytes)), "bytes": bytes.len()});
        }
        match String::from_utf8(bytes) {
            Ok(text) => json!({ TEXT: text }),
            Err(other) => json!({ BASE64: STANDARD.encode(other.as_bytes()) }),
        }
    }
}

/// A body as the value that it was made from.
///
/// # Errors
/// It is not of that type.
pub fn read<T: DeserializeOwned>(body: Value) -> Result<T, BodyError> {
    serde_json::from_value(restored(body)?).map_err(ser::Error::custom)
}

fn restored(body: Value) -> Result<Value, BodyError> {
    let numbers = |bytes: &[u8]| Value::Array(bytes.iter().map(|byte| Value::from(*byte)).collect());
    Ok(match body {
        Value::Array(items) => Value::Array(items.into_iter().map(restored).collect::<Result<_, _>>()?),
        Value::Object(members) => {
            let text = |name: &str| members.get(name).and_then(Value::as_str);
            if let Some(text) = text(TEXT) {
                return Ok(numbers(text.as_bytes()));
            }
            if let Some(text) = text(BASE64) {
                return STANDARD.decode(text).map(|bytes| numbers(&bytes)).map_err(ser::Error::custom);
            }
            if let Some(text) = text(FLOAT) {
                let number: f64 = text.parse().map_err(<BodyError as ser::Error>::custom)?;
                return Ok(Number::from_f64(number).map_or(Value::Null, Value::Number));
            }
            let members = members.into_iter().map(|(name, member)| Ok((name, restored(member)?)));
            Value::Object(members.collect::<Result<_, BodyError>>()?)
        }
        other => other,
    })
}

/// A value on its way: single bytes are kept apart until it is known whether they are a list.
pub enum Piece {
    /// One byte.
    Byte(u8),
    /// Anything else.
    Json(Value),
}

impl<'a> Serializer for &'a Writer<'_> {
    type Ok = Piece;
    type Error = BodyError;
    type SerializeSeq = List<'a>;
    type SerializeTuple = List<'a>;
    type SerializeTupleStruct = Impossible<Piece, BodyError>;
    type SerializeTupleVariant = Impossible<Piece, BodyError>;
    type SerializeMap = Impossible<Piece, BodyError>;
    type SerializeStruct = Record<'a>;
    type SerializeStructVariant = Impossible<Piece, BodyError>;

    fn serialize_bool(self, value: bool) -> Result<Piece, BodyError> {
        Ok(Piece::Json(Value::Bool(value)))
    }
    fn serialize_i8(self, value: i8) -> Result<Piece, BodyError> {
        self.serialize_i64(value.into())
    }
    fn serialize_i16(self, value: i16) -> Result<Piece, BodyError> {
        self.serialize_i64(value.into())
    }
    fn serialize_i32(self, value: i32) -> Result<Piece, BodyError> {
        self.serialize_i64(value.into())
    }
    fn serialize_i64(self, value: i64) -> Result<Piece, BodyError> {
        Ok(Piece::Json(Value::from(value)))
    }
    fn serialize_u8(self, value: u8) -> Result<Piece, BodyError> {
        Ok(Piece::Byte(value))
    }
    fn serialize_u16(self, value: u16) -> Result<Piece, BodyError> {
        self.serialize_u64(value.into())
    }
    fn serialize_u32(self, value: u32) -> Result<Piece, BodyError> {
        self.serialize_u64(value.into())
    }
    fn serialize_u64(self, value: u64) -> Result<Piece, BodyError> {
        Ok(Piece::Json(Value::from(value)))
    }
    fn serialize_f32(self, value: f32) -> Result<Piece, BodyError> {
        self.serialize_f64(value.into())
    }
    fn serialize_f64(self, value: f64) -> Result<Piece, BodyError> {
        // The shortest text that reads as the same number again.
        Ok(Piece::Json(json!({ FLOAT: value.to_string() })))
    }
    fn serialize_char(self, value: char) -> Result<Piece, BodyError> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }
    fn serialize_str(self, value: &str) -> Result<Piece, BodyError> {
        Ok(Piece::Json(Value::String(self.text(value))))
    }
    fn serialize_bytes(self, value: &[u8]) -> Result<Piece, BodyError> {
        Ok(Piece::Json(self.bytes(value.to_vec())))
    }
    fn serialize_none(self) -> Result<Piece, BodyError> {
        Ok(Piece::Json(Value::Null))
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Piece, BodyError> {
        value.serialize(self)
    }
    fn serialize_unit(self) -> Result<Piece, BodyError> {
        Ok(Piece::Json(Value::Null))
    }
    fn serialize_unit_struct(self, _: &'static str) -> Result<Piece, BodyError> {
        self.serialize_unit()
    }
    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<Piece, BodyError> {
        Ok(Piece::Json(Value::String(variant.to_owned())))
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<Piece, BodyError> {
        value.serialize(self)
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<Piece, BodyError> {
        Ok(Piece::Json(Value::Object(Map::from_iter([(variant.to_owned(), self.body(value)?)]))))
    }
    fn serialize_seq(self, _: Option<usize>) -> Result<List<'a>, BodyError> {
        Ok(List { writer: self, bytes: Vec::new(), items: Vec::new() })
    }
    fn serialize_tuple(self, length: usize) -> Result<List<'a>, BodyError> {
        self.serialize_seq(Some(length))
    }
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Record<'a>, BodyError> {
        Ok(Record { writer: self, members: Map::new() })
    }
    fn serialize_tuple_struct(self, name: &'static str, _: usize) -> Result<Self::SerializeTupleStruct, BodyError> {
        Err(BodyError(format!("`{name}` is of no shape that an interface has")))
    }
    fn serialize_tuple_variant(
        self,
        name: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, BodyError> {
        Err(BodyError(format!("`{name}` is of no shape that an interface has")))
    }
    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, BodyError> {
        Err(BodyError("no interface has maps".to_owned()))
    }
    fn serialize_struct_variant(
        self,
        name: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, BodyError> {
        Err(BodyError(format!("`{name}` is of no shape that an interface has")))
    }
}

/// A list, of bytes or of anything else.
pub struct List<'a> {
    writer: &'a Writer<'a>,
    bytes: Vec<u8>,
    items: Vec<Value>,
}

impl List<'_> {
    fn push<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), BodyError> {
        match value.serialize(self.writer)? {
            Piece::Byte(byte) => self.bytes.push(byte),
            Piece::Json(value) => self.items.push(value),
        }
        Ok(())
    }

    fn whole(self) -> Piece {
        Piece::Json(if self.bytes.is_empty() { Value::Array(self.items) } else { self.writer.bytes(self.bytes) })
    }
}

impl ser::SerializeSeq for List<'_> {
    type Ok = Piece;
    type Error = BodyError;
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), BodyError> {
        self.push(value)
    }
    fn end(self) -> Result<Piece, BodyError> {
        Ok(self.whole())
    }
}

impl ser::SerializeTuple for List<'_> {
    type Ok = Piece;
    type Error = BodyError;
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), BodyError> {
        self.push(value)
    }
    fn end(self) -> Result<Piece, BodyError> {
        Ok(self.whole())
    }
}

/// A record.
pub struct Record<'a> {
    writer: &'a Writer<'a>,
    members: Map<String, Value>,
}

impl ser::SerializeStruct for Record<'_> {
    type Ok = Piece;
    type Error = BodyError;
    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), BodyError> {
        self.members.insert(name.to_owned(), self.writer.body(value)?);
        Ok(())
    }
    fn end(self) -> Result<Piece, BodyError> {
        Ok(Piece::Json(Value::Object(self.members)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use maddock_bindings::api::types::OutputStream;
    use maddock_bindings::api::{docker, process};
    use maddock_bindings::target::exports::maddock::plugin::target::{Cause, Ending, JobOptions};
    use proptest::prelude::*;

    fn there_and_back<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T) {
        let none = Redactor::default();
        let body = Writer::of_answers(&none).body(value).unwrap();
        let text = serde_json::to_string(&body).unwrap();
        assert_eq!(&read::<T>(serde_json::from_str(&text).unwrap()).unwrap(), value, "{text}");
    }

    proptest! {
        #[test]
        fn bytes_come_back_as_they_were(bytes in prop::collection::vec(any::<u8>(), 0..200), text in ".{0,50}") {
            there_and_back(&process::Event::Output((OutputStream::Stderr, bytes)));
            there_and_back(&process::Event::Output((OutputStream::Stdout, text.into_bytes())));
        }

        #[test]
        fn floats_come_back_to_the_last_bit(bits in any::<u64>()) {
            let number = f64::from_bits(bits);
            prop_assume!(number.is_finite());
            let body = Writer::of_answers(&Redactor::default()).body(&Some(number)).unwrap();
            let back: Option<f64> = read(serde_json::from_str(&body.to_string()).unwrap()).unwrap();
            prop_assert_eq!(back.map(f64::to_bits), Some(bits));
        }

        #[test]
        fn no_secret_is_left_and_the_length_stays(before in "[ab ]{0,20}", after in "[ab ]{0,20}") {
            let redactor = Redactor::new(["hunter2-hunter2"]);
            let writer = Writer::of_answers(&redactor);
            let text = format!("{before}hunter2-hunter2{after}");
            let shown = writer.body(&text).unwrap();
            prop_assert!(writer.masked() && !shown.to_string().contains("hunter2"));
            prop_assert_eq!(shown.as_str().unwrap().len(), text.len());
        }
    }

    #[test]
    fn records_variants_flags_and_numbers_keep_their_shape() {
        there_and_back(&docker::ContainerEvent::Exited(-1));
        there_and_back(&docker::ContainerEvent::Timeout);
        there_and_back(&vec![0_u32, 1, 255]);
        there_and_back(&u64::MAX);
        there_and_back(&(JobOptions::DETACH | JobOptions::KEEP_ALIVE));
        let ending = Ending {
            cause: Cause::Exited(3),
            message: "x".into(),
            duration: Some(0.1),
            nodes: vec![],
            log_complete: true,
        };
        let body = Writer::of_answers(&Redactor::default()).body(&ending).unwrap();
        let back: Ending = read(body.clone()).unwrap();
        assert_eq!(Writer::of_answers(&Redactor::default()).body(&back).unwrap(), body);
    }

    #[test]
    fn a_secret_that_is_cut_in_two_is_blotted_out_at_both_edges() {
        let redactor = Redactor::new(["hunter2-hunter2"]);
        let writer = Writer::of_answers(&redactor);
        assert_eq!(writer.body(b"login hunter2-h".as_slice()).unwrap(), json!({TEXT: "login *********"}));
        assert_eq!(writer.body(b"unter2 done".as_slice()).unwrap(), json!({TEXT: "****** done"}));
        assert_eq!(writer.body(b"ter2-hun".as_slice()).unwrap(), json!({TEXT: "********"}));
        assert_eq!(writer.body(b"r2 done, h".as_slice()).unwrap(), json!({TEXT: "r2 done, h"}));
    }

    #[test]
    fn long_bytes_of_a_request_are_kept_as_a_digest() {
        let none = Redactor::default();
        let body = Writer::of_requests(&none).body(&vec![7_u8; 2000]).unwrap();
        assert_eq!(body["bytes"], 2000);
        assert_ne!(body, Writer::of_requests(&none).body(&vec![8_u8; 2000]).unwrap());
    }
}
