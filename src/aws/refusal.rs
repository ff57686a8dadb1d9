//! When S3 no longer takes the keys: their keeper hears of it and looks for others.
//!
//! Keys can be withdrawn, rotated, or replaced before their time. Every other denial (policy, bucket,
//! key) says nothing about them and is left alone.

use aws_sdk_s3::config::interceptors::FinalizerInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::{BoxError, ProvideErrorMetadata as _};
use aws_sdk_s3::operation::get_object::GetObjectError;
use aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint;

use super::keeper::Kept;

/// Listens to a client's answers.
#[derive(Debug)]
pub(super) struct HearRefusals(pub(super) Kept);

#[dyn_dispatch_hint]
impl Intercept for HearRefusals {
    fn name(&self) -> &'static str {
        "HearRefusals"
    }

    fn read_after_attempt(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let error = match context.output_or_error() {
            Some(Err(error)) => error.as_operation_error(),
            _ => None,
        };
        let code = error
            .and_then(|error| error.downcast_ref::<GetObjectError>())
            .and_then(|error| error.code());
        if code.is_some_and(is_about_keys) {
            self.0.refused();
        }
        Ok(())
    }
}

/// Source: "Error responses", Amazon S3 API Reference.
fn is_about_keys(code: &str) -> bool {
    matches!(
        code,
        "ExpiredToken" | "TokenRefreshRequired" | "InvalidAccessKeyId" | "InvalidToken"
    )
}
