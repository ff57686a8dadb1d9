//! A `GetObject`'s response, read for what is wanted of it.
//!
//! Invariant: where it is read here, it says what the SDK's own reading would say. Errors, and successes with
//! anything odd in a field that is wanted, are left to the SDK.

use aws_sdk_s3::operation::get_object::{GetObject, GetObjectOutput};
use aws_sdk_s3::primitives::{ByteStream, DateTime, DateTimeFormat, SdkBody};
use aws_smithy_runtime_api::client::interceptors::context::{Error, Output};
use aws_smithy_runtime_api::client::orchestrator::{HttpResponse, OrchestratorError};
use aws_smithy_runtime_api::client::runtime_plugin::RuntimePlugin as _;
use aws_smithy_runtime_api::client::ser_de::{DeserializeResponse, SharedResponseDeserializer};
use aws_smithy_types::config_bag::{ConfigBag, FrozenLayer, Layer};

/// Reads successes itself, and leaves the rest to the SDK.
#[derive(Debug, Clone)]
pub(super) struct Brief {
    /// What the SDK would put into a request's configuration.
    sdk: FrozenLayer,
}

impl Brief {
    pub(super) fn new() -> Self {
        let sdk = GetObject::new()
            .config()
            .unwrap_or_else(|| Layer::new("none").freeze());
        Self { sdk }
    }

    fn sdk(&self) -> Result<&SharedResponseDeserializer, OrchestratorError<Error>> {
        let sdk = self.sdk.load::<SharedResponseDeserializer>();
        sdk.ok_or_else(|| OrchestratorError::other("the SDK has no reading of a GetObject"))
    }
}

impl DeserializeResponse for Brief {
    fn deserialize_streaming_with_config(
        &self,
        response: &mut HttpResponse,
        config: &ConfigBag,
    ) -> Option<Result<Output, OrchestratorError<Error>>> {
        match read(response) {
            Ok(output) => Some(Ok(Output::erase(output))),
            Err(Odd) => match self.sdk() {
                Ok(sdk) => sdk.deserialize_streaming_with_config(response, config),
                Err(error) => Some(Err(error)),
            },
        }
    }

    fn deserialize_nonstreaming_with_config(
        &self,
        response: &HttpResponse,
        config: &ConfigBag,
    ) -> Result<Output, OrchestratorError<Error>> {
        self.sdk()?
            .deserialize_nonstreaming_with_config(response, config)
    }
}

/// Something that the SDK should read: the response is as it was.
struct Odd;

fn read(response: &mut HttpResponse) -> Result<GetObjectOutput, Odd> {
    if !response.status().is_success() {
        return Err(Odd);
    }
    let date = |text| DateTime::from_str(text, DateTimeFormat::HttpDate).map_err(|_| Odd);
    let number = |text: &str| text.parse().map_err(|_| Odd);
    let text = |name| Ok(field(response, name)?.map(str::to_owned));
    let output = GetObjectOutput::builder()
        .set_e_tag(text("etag")?)
        .set_content_encoding(text("content-encoding")?)
        .set_content_range(text("content-range")?)
        .set_last_modified(field(response, "last-modified")?.map(date).transpose()?)
        .set_content_length(field(response, "content-length")?.map(number).transpose()?);
    let body = std::mem::replace(response.body_mut(), SdkBody::taken());
    Ok(output.body(ByteStream::new(body)).build())
}

/// A field that is there at most once, as text.
fn field<'a>(response: &'a HttpResponse, name: &'static str) -> Result<Option<&'a str>, Odd> {
    let mut values = response.headers().get_all_bytes(name);
    let first = values.next().map(str::from_utf8).transpose();
    match values.next() {
        None => first.map_err(|_| Odd),
        Some(_) => Err(Odd),
    }
}

#[cfg(test)]
mod tests {
    use aws_smithy_runtime_api::http::StatusCode;

    use super::*;

    fn response(status: u16, fields: &[(&'static str, &'static str)]) -> HttpResponse {
        let status = StatusCode::try_from(status).unwrap();
        let mut response = HttpResponse::new(status, SdkBody::from("tile"));
        for (name, value) in fields {
            response.headers_mut().append(*name, *value);
        }
        response
    }

    #[test]
    fn what_is_wanted_of_a_response_is_read() {
        let fields = [
            ("ETag", "\"abc\""),
            ("Last-Modified", "Sun, 01 Nov 2026 00:00:00 GMT"),
            ("Content-Length", "4"),
            ("Content-Encoding", "gzip"),
            ("x-amz-object-lock-mode", "whatever"),
        ];
        let output = read(&mut response(200, &fields)).ok().unwrap();
        assert_eq!(output.e_tag(), Some("\"abc\""));
        assert_eq!(output.content_length(), Some(4));
        assert_eq!(output.content_encoding(), Some("gzip"));
        assert_eq!(output.last_modified().unwrap().secs(), 1_793_491_200);
        assert_eq!(output.body.bytes(), Some(&b"tile"[..]));
    }

    #[test]
    fn what_is_odd_is_left_to_the_sdk_with_its_body() {
        let odd = [
            ("Last-Modified", "yesterday"),
            ("Content-Length", "many"),
            ("ETag", "\"a\""),
        ];
        for (name, value) in odd {
            let mut answer = response(200, &[("ETag", "\"abc\""), (name, value)]);
            assert!(read(&mut answer).is_err(), "{name}: {value}");
            assert_eq!(answer.body().bytes(), Some(&b"tile"[..]));
        }
        assert!(read(&mut response(404, &[])).is_err());
    }
}
