//! JSON as members write it, and what every answer has in common.

use std::io;

use hyper::{Method, StatusCode};
use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

/// One line, `, ` and `: ` as separators, everything outside ASCII escaped: scripts in the field compare such lines.
pub fn to_text(value: &impl Serialize) -> String {
    let mut bytes = Vec::with_capacity(256);
    let mut serializer = Serializer::with_formatter(&mut bytes, Spaced);
    match value.serialize(&mut serializer) {
        Ok(()) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => "null".to_owned(),
    }
}

struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }

    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut plain_from = 0;
        for (at, c) in fragment.char_indices().filter(|(_, c)| !c.is_ascii()) {
            writer.write_all(&fragment.as_bytes()[plain_from..at])?;
            plain_from = at + c.len_utf8();
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
        }
        writer.write_all(&fragment.as_bytes()[plain_from..])
    }
}

/// An answer before it is put into HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status code.
    pub status: StatusCode,
    /// Body and what belongs to it.
    pub shape: Shape,
    /// Headers of this answer alone.
    pub headers: Vec<(&'static str, String)>,
}

/// The three shapes that answers have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A body with its type; the configured extra headers are added.
    Full {
        /// `Content-Type`.
        content_type: &'static str,
        /// Body.
        body: String,
    },
    /// A status line.
    StatusOnly,
    /// A small HTML page, as an HTTP server writes of its own accord.
    ErrorPage {
        /// The reason phrase, also shown in the page.
        reason: String,
    },
}

impl Answer {
    /// A message for people.
    pub fn text(status: StatusCode, message: impl Into<String>) -> Self {
        Self::full(status, "text/html", message.into())
    }

    /// A JSON document.
    pub fn json(status: StatusCode, value: &impl Serialize) -> Self {
        Self::full(status, "application/json", to_text(value))
    }

    /// Any body.
    pub fn full(status: StatusCode, content_type: &'static str, body: String) -> Self {
        Self { status, shape: Shape::Full { content_type, body }, headers: Vec::new() }
    }

    /// Only a status line.
    pub fn status_only(status: StatusCode) -> Self {
        Self { status, shape: Shape::StatusOnly, headers: Vec::new() }
    }

    /// An error page with the standard reason.
    pub fn error_page(status: StatusCode) -> Self {
        let reason = status.canonical_reason().unwrap_or("Unknown").to_owned();
        Self { status, shape: Shape::ErrorPage { reason }, headers: Vec::new() }
    }

    /// No handler for this method. Patroni's tools look for the words of this page.
    pub fn unsupported(method: &Method) -> Self {
        let reason = format!("Unsupported method ('{method}')");
        let status = StatusCode::NOT_IMPLEMENTED;
        Self { status, shape: Shape::ErrorPage { reason }, headers: Vec::new() }
    }

    /// With one more header.
    pub fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// `Content-Type` and body; `None` for a bare status line.
    pub fn content(&self) -> Option<(&'static str, String)> {
        match &self.shape {
            Shape::Full { content_type, body } => Some((content_type, body.clone())),
            Shape::StatusOnly => None,
            Shape::ErrorPage { reason } => Some(("text/html;charset=utf-8", error_page(self.status, reason))),
        }
    }
}

fn error_page(status: StatusCode, reason: &str) -> String {
    let reason = reason.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let explanation = match status.as_u16() {
        400 => "Bad request syntax or unsupported method",
        408 => "The request did not arrive in time",
        409 => "Request conflict",
        411 => "Client must specify Content-Length",
        413 => "The request body is too long",
        501 => "Server does not support this operation",
        502 => "Invalid responses from another server/proxy",
        503 => "The server cannot process the request due to a high load",
        _ => "The server could not answer the request",
    };
    let code = status.as_u16();
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>Error response</title></head>\n\
         <body>\n<h1>Error response</h1>\n<p>Error code: {code}</p>\n<p>Message: {reason}.</p>\n\
         <p>Error code explanation: {code} - {explanation}.</p>\n</body>\n</html>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn spacing_and_escapes() {
        let value = json!({"a": [1, "x\"\n"], "ä€𐍈": {"b": null, "c": 1.5}, "e": {}, "f": []});
        assert_eq!(
            to_text(&value),
            r#"{"a": [1, "x\"\n"], "\u00e4\u20ac\ud800\udf48": {"b": null, "c": 1.5}, "e": {}, "f": []}"#
        );
    }

    #[test]
    fn error_pages_say_what_tools_look_for() {
        let (kind, page) = Answer::unsupported(&Method::POST).content().unwrap();
        assert_eq!(kind, "text/html;charset=utf-8");
        for words in ["Unsupported method ('POST').", "Server does not support this operation", "Error code: 501"] {
            assert!(page.contains(words), "{page}");
        }
        assert!(error_page(StatusCode::BAD_REQUEST, "<b>").contains("&lt;b&gt;"));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn every_text_survives_as_ascii(text in "\\PC*") {
            let written = to_text(&text);
            prop_assert!(written.is_ascii());
            prop_assert_eq!(serde_json::from_str::<String>(&written).unwrap(), text);
        }
    }
}
