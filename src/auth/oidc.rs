//! Sign-in at an identity provider: OpenID Connect, authorization code flow with PKCE.
//!
//! Invariant: a log-in ends in the browser in which it began (state), with the ID token that was made
//! for it (nonce), from the provider that is configured (issuer, audience, its keys), redeemed by who
//! asked for it (PKCE). What has to be remembered meanwhile is sealed into a cookie: clients grow no
//! table here, and any node can finish what another began.
//!
//! The `openidconnect` crate would bring the `rsa` crate (RUSTSEC-2023-0071); `oauth2` makes the requests,
//! and ID tokens are verified like every other issuer's. Left out on purpose: UserInfo (the ID token says
//! enough), refresh tokens (the session is ours), log-out at the provider.

mod provider;
#[cfg(test)]
mod tests;
mod transaction;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use oauth2::basic::{
    BasicErrorResponse, BasicErrorResponseType, BasicRevocationErrorResponse,
    BasicTokenIntrospectionResponse, BasicTokenType,
};
use oauth2::{
    AsyncHttpClient, AuthType, AuthUrl, AuthorizationCode, Client, ClientId, ClientSecret,
    CsrfToken, EndpointNotSet, EndpointSet, ExtraTokenFields, HttpRequest, HttpResponse,
    PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, RequestTokenError, Scope,
    StandardRevocableToken, StandardTokenResponse, TokenUrl,
};
use serde::{Deserialize, Serialize};

use self::provider::Metadata;
use self::transaction::Sealer;
pub use self::transaction::Transaction;
use super::issuers::{Keys, Kind, Published, Unavailable, Verifier};
use super::{
    Fetch, FetchError, Fetching, Identity, IssuerError, KeyRing, NoRandomness, Rights, Secret,
};
use crate::clock::Timestamp;

/// The cookie of a log-in under way.
pub const LOGIN_COOKIE: &str = "tilekeep_login";

/// How long somebody may take at the provider.
pub const TRANSACTION_LIFE: Duration = Duration::from_mins(10);

/// The provider as configured.
#[derive(Debug, Clone)]
pub struct OidcSettings {
    /// Its name for itself, exactly; its discovery document is below this address.
    pub issuer: String,
    /// Our name at the provider, and `aud` of its ID tokens.
    pub client_id: String,
    /// What we prove it with; `None` for a public client.
    pub client_secret: Option<Secret>,
    /// What is asked for; `openid` is always among it.
    pub scopes: Vec<String>,
    /// What its people may do here.
    pub rights: Rights,
    /// How old a log-in at the provider may be: the longest session.
    pub max_age: Duration,
}

/// Why nobody was signed in. The page tells the person what to do, the log the [`label`].
///
/// [`label`]: OidcError::label
#[derive(Debug, thiserror::Error)]
pub enum OidcError {
    /// The provider does not answer.
    #[error("the identity provider cannot be reached")]
    Unreachable {
        /// When to try again.
        retry_after: Duration,
    },
    /// The provider did not take the code: used, expired, or another's.
    #[error("the identity provider did not take the code")]
    CodeRefused,
    /// The provider does not take us for the client that is configured, or not the request.
    #[error("the identity provider refuses this server: {0}")]
    ClientRefused(&'static str),
    /// An answer that is not what the protocol says.
    #[error("the identity provider's answer cannot be read: {0}")]
    BadAnswer(&'static str),
    /// The answer came from another provider (RFC 9207).
    #[error("the answer is another identity provider's")]
    WrongProvider,
    /// The ID token is not acceptable.
    #[error("the ID token is refused: {0}")]
    IdToken(#[from] IssuerError),
    /// No randomness.
    #[error(transparent)]
    Random(#[from] NoRandomness),
}

impl OidcError {
    /// The word for metrics and logs.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "unreachable",
            Self::CodeRefused => "code_refused",
            Self::ClientRefused(_) => "client_refused",
            Self::BadAnswer(_) => "bad_answer",
            Self::WrongProvider => "wrong_provider",
            Self::IdToken(error) => error.label(),
            Self::Random(_) => "no_randomness",
        }
    }
}

impl From<Unavailable> for OidcError {
    fn from(Unavailable { retry_after }: Unavailable) -> Self {
        Self::Unreachable { retry_after }
    }
}

/// A log-in that has begun.
pub struct Started {
    /// Where the browser goes.
    pub url: String,
    /// What it brings back, for a cookie: letters, digits, `-` and `_`.
    pub sealed: String,
}

/// What the provider sent the browser back with.
#[derive(Debug, Clone, Copy)]
pub struct Returned<'a> {
    /// The code.
    pub code: &'a str,
    /// Who says so, where the provider does (RFC 9207).
    pub issuer: Option<&'a str>,
}

/// The provider, and what is known of it.
pub struct Oidc {
    settings: OidcSettings,
    fetch: Arc<dyn Fetch>,
    metadata: Arc<Published<Metadata>>,
    /// Verifies with the keys at the address that the metadata named last.
    verifier: Mutex<Option<Arc<Verifier>>>,
    sealer: Sealer,
}

/// `None` at the time of the log-in is no ID token.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct IdTokenField {
    id_token: Option<String>,
}

impl ExtraTokenFields for IdTokenField {}

type OidcClient = Client<
    BasicErrorResponse,
    StandardTokenResponse<IdTokenField, BasicTokenType>,
    BasicTokenIntrospectionResponse,
    StandardRevocableToken,
    BasicRevocationErrorResponse,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointSet,
>;

impl Oidc {
    /// A provider that nobody has asked yet. What is remembered of a log-in is sealed with keys that are
    /// derived from the session keys.
    pub fn new(
        settings: OidcSettings,
        keys: &KeyRing,
        fetch: &Arc<dyn Fetch>,
    ) -> Result<Self, NoRandomness> {
        let issuer = settings.issuer.clone();
        let url = provider::discovery_url(&issuer);
        let read = Box::new(move |json: &[u8]| Metadata::parse(json, &issuer));
        Ok(Self {
            sealer: Sealer::new(keys, &settings.issuer, &settings.client_id)?,
            metadata: Arc::new(Published::new("discovery document", url, fetch, read)),
            verifier: Mutex::default(),
            fetch: Arc::clone(fetch),
            settings,
        })
    }

    /// The provider's name for itself.
    pub fn issuer(&self) -> &str {
        &self.settings.issuer
    }

    /// Begins a log-in that comes back to `redirect_uri` and goes on to `next`.
    pub async fn start(
        &self,
        redirect_uri: &str,
        next: &str,
        now: Timestamp,
    ) -> Result<Started, OidcError> {
        let metadata = self.metadata.get(now).await?;
        let transaction = Transaction::new(next, now + TRANSACTION_LIFE)?;
        let client = self.client(&metadata, redirect_uri)?;
        let verifier = PkceCodeVerifier::new(transaction.verifier.clone());
        let state = transaction.state.clone();
        let scopes = self
            .settings
            .scopes
            .iter()
            .filter(|scope| *scope != "openid");
        let (url, _) = client
            .authorize_url(|| CsrfToken::new(state))
            .add_scope(Scope::new("openid".to_owned()))
            .add_scopes(scopes.map(|scope| Scope::new(scope.clone())))
            .add_extra_param("nonce", transaction.nonce.clone())
            // Else who logged in there longer ago than a session may last could not get in at all.
            .add_extra_param("max_age", self.settings.max_age.as_secs().to_string())
            .set_pkce_challenge(PkceCodeChallenge::from_code_verifier_sha256(&verifier))
            .url();
        Ok(Started {
            url: url.to_string(),
            sealed: self.sealer.seal(&transaction)?,
        })
    }

    /// The log-in that one of these cookies remembers, if it is the one that this state belongs to.
    pub fn resume<'c>(
        &self,
        cookies: impl IntoIterator<Item = &'c str>,
        state: &str,
        now: Timestamp,
    ) -> Option<Transaction> {
        cookies
            .into_iter()
            .filter_map(|cookie| self.sealer.open(cookie))
            .find(|transaction| transaction.is_for(state, now))
    }

    /// Redeems the code for an ID token, and says who it speaks of.
    pub async fn finish(
        &self,
        transaction: Transaction,
        returned: Returned<'_>,
        redirect_uri: &str,
        now: Timestamp,
    ) -> Result<Identity, OidcError> {
        let metadata = self.metadata.get(now).await?;
        // RFC 9207 §2.4: one that is not promised may be missing and never wrong.
        let right_provider = match returned.issuer {
            Some(issuer) => issuer == self.settings.issuer,
            None => !metadata.names_itself,
        };
        if !right_provider {
            return Err(OidcError::WrongProvider);
        }
        let client = self.client(&metadata, redirect_uri)?;
        let code = AuthorizationCode::new(returned.code.to_owned());
        let verifier = PkceCodeVerifier::new(transaction.verifier);
        let way = Way(Arc::clone(&self.fetch));
        let id_token = redeem(client, code, verifier, &way).await?;
        self.check_id_token(&id_token, &transaction.nonce, &metadata, now)
            .await
    }

    /// OpenID Connect Core §3.1.3.7.
    async fn check_id_token(
        &self,
        token: &str,
        nonce: &str,
        metadata: &Metadata,
        now: Timestamp,
    ) -> Result<Identity, OidcError> {
        let verifier = self.verifier(metadata);
        let claims = verifier.verify(token, Kind::IdToken, now).await?;
        if claims.nonce.as_deref() != Some(nonce) {
            return Err(IssuerError::WrongNonce.into());
        }
        // Steps 3 to 5: nobody else may be meant too, unless the token says that it was made for us.
        let ours = match claims.azp.as_deref() {
            Some(azp) => azp == self.settings.client_id,
            None => claims.audiences().len() == 1,
        };
        if !ours {
            return Err(IssuerError::WrongAudience.into());
        }
        Ok(claims.identity(&self.settings.rights, now)?)
    }

    fn verifier(&self, metadata: &Metadata) -> Arc<Verifier> {
        let mut verifier = self.verifier.lock().unwrap_or_else(PoisonError::into_inner);
        match &*verifier {
            Some(known) if known.keys.url() == Some(&metadata.jwks_uri) => Arc::clone(known),
            _ => {
                let new = Arc::new(Verifier {
                    issuer: self.settings.issuer.clone(),
                    audience: self.settings.client_id.clone(),
                    keys: Keys::published(metadata.jwks_uri.clone(), &self.fetch),
                });
                *verifier = Some(Arc::clone(&new));
                new
            }
        }
    }

    fn client(&self, metadata: &Metadata, redirect_uri: &str) -> Result<OidcClient, OidcError> {
        let bad = |_| OidcError::BadAnswer("an address in the discovery document");
        let own = |_| OidcError::BadAnswer("this server's own address");
        let mut client = Client::new(ClientId::new(self.settings.client_id.clone()));
        if let Some(secret) = &self.settings.client_secret {
            let secret = String::from_utf8_lossy(secret.expose()).into_owned();
            client = client
                .set_client_secret(ClientSecret::new(secret))
                .set_auth_type(if metadata.secret_in_body {
                    AuthType::RequestBody
                } else {
                    AuthType::BasicAuth
                });
        }
        let authorization = metadata.authorization_endpoint.clone();
        Ok(client
            .set_redirect_uri(RedirectUrl::new(redirect_uri.to_owned()).map_err(own)?)
            .set_auth_uri(AuthUrl::new(authorization).map_err(bad)?)
            .set_token_uri(TokenUrl::new(metadata.token_endpoint.clone()).map_err(bad)?))
    }
}

/// The way out, as `oauth2` takes it.
struct Way(Arc<dyn Fetch>);

impl AsyncHttpClient<'_> for Way {
    type Error = FetchError;
    type Future = Fetching<HttpResponse>;

    fn call(&self, request: HttpRequest) -> Self::Future {
        self.0.send(request)
    }
}

/// Redeems a code for an ID token; the other tokens are dropped.
async fn redeem(
    client: OidcClient,
    code: AuthorizationCode,
    verifier: PkceCodeVerifier,
    way: &Way,
) -> Result<String, OidcError> {
    let answer = client
        .exchange_code(code)
        .set_pkce_verifier(verifier)
        .request_async(way)
        .await
        .map_err(refused)?;
    let id_token = answer.extra_fields().id_token.clone();
    id_token.ok_or(OidcError::BadAnswer("there is no ID token in it"))
}

/// What the token endpoint's refusal means. Its own words stay out: they may repeat what was sent.
fn refused(error: RequestTokenError<FetchError, BasicErrorResponse>) -> OidcError {
    match error {
        RequestTokenError::ServerResponse(answer) => match answer.error() {
            BasicErrorResponseType::InvalidGrant => OidcError::CodeRefused,
            BasicErrorResponseType::InvalidClient => OidcError::ClientRefused("invalid_client"),
            BasicErrorResponseType::UnauthorizedClient => {
                OidcError::ClientRefused("unauthorized_client")
            }
            BasicErrorResponseType::InvalidRequest => OidcError::ClientRefused("invalid_request"),
            BasicErrorResponseType::InvalidScope => OidcError::ClientRefused("invalid_scope"),
            BasicErrorResponseType::UnsupportedGrantType => {
                OidcError::ClientRefused("unsupported_grant_type")
            }
            BasicErrorResponseType::Extension(_) => OidcError::ClientRefused("another error"),
        },
        RequestTokenError::Request(error) => {
            tracing::warn!(%error, "the identity provider's token endpoint cannot be used");
            OidcError::Unreachable {
                retry_after: Duration::from_secs(5),
            }
        }
        RequestTokenError::Parse(..) => OidcError::BadAnswer("it is no token answer"),
        RequestTokenError::Other(_) => OidcError::BadAnswer("it is empty, or could not be asked"),
    }
}
