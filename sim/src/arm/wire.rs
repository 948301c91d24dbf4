//! Requests and replies as Azure Resource Manager speaks them.

use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A request that has been read whole.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) method: String,
    /// The path as it was sent.
    pub(super) path: String,
    pub(super) query: BTreeMap<String, String>,
    /// Header names are in lower case.
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: Vec<u8>,
    /// Where the caller found this server: what links begin with.
    pub(super) base: String,
}

impl Request {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The body as JSON; an empty one is an empty object.
    pub(super) fn json(&self) -> Result<Value, Reply> {
        if self.body.is_empty() {
            return Ok(json!({}));
        }
        match serde_json::from_slice(&self.body) {
            Ok(body @ Value::Object(_)) => match misshapen(&body) {
                None => Ok(body),
                Some(field) => {
                    let what = format!("The value of parameter {field} is invalid.");
                    Err(Reply::error_at(400, "InvalidParameter", &field, &what))
                }
            },
            Ok(_) => Err(Reply::error(400, "InvalidRequestContent", "The request content is not an object.")),
            Err(error) => {
                let what = format!("The request content was invalid and could not be deserialized: '{error}'.");
                Err(Reply::error(400, "InvalidRequestContent", &what))
            }
        }
    }
}

/// What is answered.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    /// `None` is an empty body.
    pub(super) body: Option<Value>,
}

impl Reply {
    pub(super) fn new(status: u16, body: Value) -> Self {
        Self { status, headers: Vec::new(), body: Some(body) }
    }

    pub(super) fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: None }
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn error(status: u16, code: &str, message: &str) -> Self {
        Self::new(status, json!({ "error": { "code": code, "message": message } }))
    }

    pub(super) fn error_at(status: u16, code: &str, target: &str, message: &str) -> Self {
        Self::new(status, json!({ "error": { "code": code, "message": message, "target": target } }))
    }
}

/// An error that an operation ends with: code and message.
pub(super) type Failure = (String, String);

/// Fields that are objects wherever they stand, or null.
const OBJECTS: &[&str] = &[
    "creationData",
    "hardwareProfile",
    "imageReference",
    "linuxConfiguration",
    "managedDisk",
    "networkProfile",
    "osDisk",
    "osProfile",
    "properties",
    "sku",
    "ssh",
    "storageProfile",
    "tags",
    "virtualMachine",
];

/// Fields that are lists of objects wherever they stand, or null.
const LISTS: &[&str] = &[
    "dataDisks",
    "dataDisksToAttach",
    "dataDisksToDetach",
    "ipConfigurations",
    "networkInterfaceConfigurations",
    "networkInterfaces",
    "publicKeys",
];

/// The first field that is not of the shape that it always has.
fn misshapen(value: &Value) -> Option<String> {
    match value {
        Value::Object(fields) => fields.iter().find_map(|(name, value)| {
            // A published image's is a word.
            let word = name == "sku" && fields.contains_key("publisher") && value.is_string();
            let object = OBJECTS.contains(&name.as_str()) && !value.is_object() && !word;
            let objects = |items: &Vec<Value>| items.iter().all(Value::is_object);
            let list = LISTS.contains(&name.as_str()) && !value.as_array().is_some_and(objects);
            if (object || list) && !value.is_null() { Some(name.clone()) } else { misshapen(value) }
        }),
        Value::Array(items) => items.iter().find_map(misshapen),
        _ => None,
    }
}

/// Splits a query string. What cannot be decoded is taken as it is.
pub(super) fn query(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name).to_ascii_lowercase(), decoded(value))
        })
        .collect()
}

/// Undoes percent encoding.
pub(super) fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = (*first == b'%').then(|| after.get(..2)).flatten();
        let byte =
            escaped.and_then(|hex| std::str::from_utf8(hex).ok()).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match byte {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(if *first == b'+' { b' ' } else { *first });
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Lays `patch` over `base`, object by object: a null or absent field leaves what is there.
pub(super) fn merge(base: &mut Value, patch: &Value) {
    match (base, patch) {
        (Value::Object(base), Value::Object(patch)) => {
            for (name, value) in patch.iter().filter(|(_, value)| !value.is_null()) {
                match base.get_mut(name) {
                    Some(old) if old.is_object() && value.is_object() => merge(old, value),
                    _ => drop(base.insert(name.clone(), without_nulls(value))),
                }
            }
        }
        (base, patch) => *base = patch.clone(),
    }
}

/// Clients send read-only fields as null, which the service ignores.
pub(super) fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(name, value)| (name.clone(), without_nulls(value))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(without_nulls).collect()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_encoding_is_undone_and_broken_ones_are_kept() {
        assert_eq!(decoded("a%20b+c%2Fd"), "a b c/d");
        assert_eq!(decoded("100%"), "100%");
        assert_eq!(decoded("%zz%4"), "%zz%4");
    }

    #[test]
    fn a_patch_leaves_what_it_does_not_name() {
        let mut base = json!({"a": {"b": 1, "c": 2}, "d": [1]});
        merge(&mut base, &json!({"a": {"b": 3, "x": null}, "d": [2, 3], "e": null}));
        assert_eq!(base, json!({"a": {"b": 3, "c": 2}, "d": [2, 3]}));
    }
}
