//! A value together with the text that it was written as.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// A parsed value that remembers its text, so that the defaulted object shows what was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Written<T> {
    /// As in the manifest.
    pub text: String,
    /// What it means.
    pub value: T,
}

impl<T: FromStr> Written<T> {
    /// Parses `text`.
    ///
    /// # Errors
    /// Those of `T`.
    pub fn parse(text: &str) -> Result<Self, T::Err> {
        Ok(Self { text: text.to_owned(), value: text.parse()? })
    }
}

impl<T: fmt::Display> From<T> for Written<T> {
    fn from(value: T) -> Self {
        Self { text: value.to_string(), value }
    }
}

impl<T> Serialize for Written<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}
