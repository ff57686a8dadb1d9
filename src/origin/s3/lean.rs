//! What the SDK works out anew for every request, worked out once.
//!
//! Invariant: nothing here changes what is asked, where, or with whose signature; it is remembered instead of
//! repeated. Measured (`cargo bench --bench miss`), not guessed: a `GetObject` of some kilobytes is a matter of
//! microseconds, of which S3's endpoint rules, its choice of a signature and the SDK's story about itself took a
//! good part.
//!
//! - The endpoint: the rules are evaluated twice a request (once to choose a signature), and the SDK's own memory
//!   of one result is keyed by everything, the object's key too, which no rule looks at. Here it is a bucket's.
//! - The signature's kind, which follows from the endpoint.
//! - The response's head: of the forty fields that the SDK looks for, the five that are wanted (`brief`).
//! - Headers that describe the SDK and the attempt (`x-amz-user-agent`, `amz-sdk-invocation-id`, `amz-sdk-request`):
//!   composed, sorted and signed for each request, read by nobody; one constant `User-Agent` takes their place, by
//!   which an operator finds us in the bucket's access log.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use aws_runtime::invocation_id::InvocationIdInterceptor;
use aws_runtime::request_info::RequestInfoInterceptor;
use aws_runtime::user_agent::UserAgentInterceptor;
use aws_sdk_s3::config::auth::{
    DefaultAuthSchemeResolver, Params as AuthParams, ResolveAuthScheme,
};
use aws_sdk_s3::config::endpoint::{DefaultResolver, Params, ResolveEndpoint};
use aws_sdk_s3::config::interceptors::{
    BeforeSerializationInterceptorContextRef, BeforeTransmitInterceptorContextMut,
};
use aws_sdk_s3::config::{Builder, ConfigBag, Intercept, RuntimeComponents, SharedInterceptor};
use aws_sdk_s3::error::BoxError;
use aws_smithy_runtime_api::client::auth::{AuthSchemeOption, AuthSchemeOptionsFuture};
use aws_smithy_runtime_api::client::endpoint::{EndpointFuture, EndpointResolverParams};
use aws_smithy_runtime_api::client::interceptors::{disable_interceptor, dyn_dispatch_hint};
use aws_smithy_runtime_api::client::ser_de::SharedResponseDeserializer;
use aws_smithy_types::endpoint::Endpoint;

use super::brief::Brief;

/// Who asks.
const USER_AGENT: &str = concat!("tilekeep/", env!("CARGO_PKG_VERSION"), " aws-sdk-rust");

/// A client's configuration, for a client that asks for objects alone.
pub(super) fn lean(config: Builder) -> Builder {
    let mut config = config
        .endpoint_resolver(Endpoints::default())
        .auth_scheme_resolver(Signatures::default());
    config.push_interceptor(SharedInterceptor::permanent(Plain(Brief::new())));
    config
}

/// Something that follows from a bucket's name, in a client whose configuration stays as it is. There are as many
/// as the configuration has buckets.
#[derive(Debug)]
struct ByBucket<T>(RwLock<HashMap<Box<str>, T>>);

impl<T> Default for ByBucket<T> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<T: Clone> ByBucket<T> {
    fn get(&self, bucket: &str) -> Option<T> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.get(bucket).cloned()
    }

    fn keep(&self, bucket: &str, value: &T) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(bucket.into(), value.clone());
    }
}

/// Where buckets are.
#[derive(Debug, Default)]
struct Endpoints {
    rules: DefaultResolver,
    known: ByBucket<Endpoint>,
}

impl ResolveEndpoint for Endpoints {
    fn resolve_endpoint<'a>(&'a self, params: &'a Params) -> EndpointFuture<'a> {
        let Some(bucket) = params.bucket() else {
            return ResolveEndpoint::resolve_endpoint(&self.rules, params);
        };
        if let Some(endpoint) = self.known.get(bucket) {
            return EndpointFuture::ready(Ok(endpoint));
        }
        EndpointFuture::new(async move {
            let endpoint = ResolveEndpoint::resolve_endpoint(&self.rules, params).await?;
            self.known.keep(bucket, &endpoint);
            Ok(endpoint)
        })
    }
}

/// How requests to buckets are signed.
#[derive(Debug, Default)]
struct Signatures {
    rules: DefaultAuthSchemeResolver,
    known: ByBucket<Vec<AuthSchemeOption>>,
}

impl ResolveAuthScheme for Signatures {
    fn resolve_auth_scheme<'a>(
        &'a self,
        params: &'a AuthParams,
        config: &'a ConfigBag,
        components: &'a RuntimeComponents,
    ) -> AuthSchemeOptionsFuture<'a> {
        let asked = config.load::<EndpointResolverParams>();
        let bucket = asked.and_then(|asked| asked.get::<Params>()?.bucket());
        let Some(bucket) = bucket else {
            return self.rules.resolve_auth_scheme(params, config, components);
        };
        if let Some(options) = self.known.get(bucket) {
            return AuthSchemeOptionsFuture::ready(Ok(options));
        }
        AuthSchemeOptionsFuture::new(async move {
            let options = self.rules.resolve_auth_scheme(params, config, components);
            let options = options.await?;
            self.known.keep(bucket, &options);
            Ok(options)
        })
    }
}

/// Says who asks in one constant line, and reads no more of an answer than is wanted.
#[derive(Debug)]
struct Plain(Brief);

#[dyn_dispatch_hint]
impl Intercept for Plain {
    fn name(&self) -> &'static str {
        "Plain"
    }

    fn read_before_execution(
        &self,
        _: &BeforeSerializationInterceptorContextRef<'_>,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        const WHY: &str = "nobody reads what it would tell";
        let state = config.interceptor_state();
        state.store_put(disable_interceptor::<UserAgentInterceptor>(WHY));
        state.store_put(disable_interceptor::<InvocationIdInterceptor>(WHY));
        state.store_put(disable_interceptor::<RequestInfoInterceptor>(WHY));
        state.store_put(SharedResponseDeserializer::new(self.0.clone()));
        Ok(())
    }

    fn modify_before_transmit(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let headers = context.request_mut().headers_mut();
        headers.insert("user-agent", USER_AGENT);
        Ok(())
    }
}
