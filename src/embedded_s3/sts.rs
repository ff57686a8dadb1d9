//! STS on the same endpoint: `AssumeRole` and `GetCallerIdentity`, query protocol, XML answers.
//!
//! s3s verifies the signature (service `sts`); the token, the role and the policies are checked here.
//! Source: AWS Security Token Service API Reference.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{Extensions, HeaderMap, Method, StatusCode, Uri, header};
use http_body_util::{BodyExt, Limited};
use s3s::dto::{Timestamp, TimestampFormat};
use s3s::route::S3Route;
use s3s::{Body, S3Request, S3Response, S3Result, s3_error};

use super::RoleSettings;
use super::access::{Scope, refuse};
use super::form::{self, xml};
use super::keyring::{ACCOUNT, Keyring, Principal};
use super::policy::Policy;

/// The longest form that is read.
const MAX_FORM: usize = 16 << 10;
/// The longest session policy (AWS: 2,048 characters as plain text).
const MAX_POLICY: usize = 2048;
const XMLNS: &str = "https://sts.amazonaws.com/doc/2011-06-15/";

/// A role, with its policy read.
#[derive(Debug)]
pub(super) struct Role {
    pub(super) settings: RoleSettings,
    pub(super) policy: Option<Arc<Policy>>,
}

/// The route.
pub(super) struct Sts {
    pub(super) keyring: Arc<Keyring>,
    pub(super) roles: Arc<[Role]>,
    pub(super) calls: Arc<AtomicU64>,
}

/// Whether a request is meant for STS: S3 has no `POST /`.
pub(super) fn is_sts(method: &Method, uri: &Uri) -> bool {
    method == Method::POST && uri.path() == "/"
}

/// A refusal: status, code, message.
type Refusal = (StatusCode, &'static str, String);

#[async_trait::async_trait]
impl S3Route for Sts {
    fn is_match(&self, method: &Method, uri: &Uri, _: &HeaderMap, _: &mut Extensions) -> bool {
        is_sts(method, uri)
    }

    async fn call(&self, req: S3Request<Body>) -> S3Result<S3Response<Body>> {
        let access_key = req.credentials.as_ref().map(|c| c.access_key.as_str());
        let scope = Scope::of(&req.headers, &req.uri).filter(|scope| scope.service == "sts");
        let (Some(access_key), Some(scope)) = (access_key, scope) else {
            return Err(s3_error!(
                SignatureDoesNotMatch,
                "Credential should be scoped to service 'sts'."
            ));
        };
        let caller = self
            .keyring
            .principal(access_key, scope.token.as_deref())
            .map_err(refuse)?;
        let form = Limited::new(req.input, MAX_FORM).collect().await;
        let form = form.map_err(|_| s3_error!(InvalidRequest, "The form cannot be read."))?;
        let form = Form(form::parse(&form.to_bytes()));
        let answer = match form.get("Action") {
            Some("AssumeRole") => {
                self.calls.fetch_add(1, Ordering::Relaxed);
                self.assume_role(&caller, &form)
            }
            Some("GetCallerIdentity") => Ok(caller_identity(&caller)),
            other => Err((
                StatusCode::BAD_REQUEST,
                "InvalidAction",
                format!("Could not find operation {}", other.unwrap_or_default()),
            )),
        };
        let (status, body) = match answer {
            Ok(body) => (StatusCode::OK, body),
            Err((status, code, message)) => (status, error(code, &message)),
        };
        Ok(xml_response(status, body))
    }
}

impl Sts {
    fn assume_role(&self, caller: &Principal, form: &Form) -> Result<String, Refusal> {
        let invalid = |message: String| (StatusCode::BAD_REQUEST, "ValidationError", message);
        let arn = form.get("RoleArn").unwrap_or_default();
        let session = form.get("RoleSessionName").unwrap_or_default();
        let valid = |c: char| c.is_ascii_alphanumeric() || "+=,.@-_".contains(c);
        if !(2..=64).contains(&session.len()) || !session.chars().all(valid) {
            let message = "'roleSessionName' must match [\\w+=,.@-]{2,64}";
            return Err(invalid(message.into()));
        }
        let not_authorized = || {
            let message = format!(
                "User: {} is not authorized to perform: sts:AssumeRole on resource: {arn}",
                caller.arn
            );
            (StatusCode::FORBIDDEN, "AccessDenied", message)
        };
        // AWS does not tell a role that is missing from one that may not be assumed.
        let role = self.roles.iter().find(|role| role.settings.arn == arn);
        let role = role.ok_or_else(not_authorized)?;
        if !caller.may("sts:AssumeRole", arn) {
            return Err(not_authorized());
        }
        if role.settings.external_id.is_some()
            && role.settings.external_id.as_deref() != form.get("ExternalId")
        {
            return Err(not_authorized());
        }
        let seconds: u64 = match form.get("DurationSeconds") {
            None => 3600,
            Some(text) => text
                .parse()
                .map_err(|_| invalid("'durationSeconds' is no number".into()))?,
        };
        let duration = Duration::from_secs(seconds);
        if !(900..=43_200).contains(&seconds) || duration > role.settings.max_duration {
            return Err(invalid(
                "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."
                    .into(),
            ));
        }
        if caller.temporary && seconds > 3600 {
            return Err(invalid(
                "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining".into(),
            ));
        }
        let mut policies: Vec<Arc<Policy>> = role.policy.iter().cloned().collect();
        if let Some(document) = form.get("Policy") {
            if document.chars().count() > MAX_POLICY {
                let message =
                    format!("Packed policy consumes more than the {MAX_POLICY} characters allowed");
                return Err((StatusCode::BAD_REQUEST, "PackedPolicyTooLarge", message));
            }
            let policy = Policy::parse(document).map_err(|error| {
                (
                    StatusCode::BAD_REQUEST,
                    "MalformedPolicyDocument",
                    error.to_string(),
                )
            })?;
            policies.push(Arc::new(policy));
        }
        if let Some(unknown) = form.unknown(&[
            "Action",
            "Version",
            "RoleArn",
            "RoleSessionName",
            "ExternalId",
            "DurationSeconds",
            "Policy",
        ]) {
            return Err(invalid(format!(
                "'{unknown}' is not supported by this endpoint"
            )));
        }
        let name = arn.rsplit('/').next().unwrap_or_default();
        let user = format!("arn:aws:sts::{ACCOUNT}:assumed-role/{name}/{session}");
        let user_id = format!("AROATILEKEEP:{session}");
        let principal = Principal {
            arn: user.clone(),
            user_id: user_id.clone(),
            temporary: true,
            policies,
        };
        let (keys, expires) = self.keyring.issue_temporary(principal, duration);
        Ok(format!(
            "<AssumeRoleResponse xmlns=\"{XMLNS}\"><AssumeRoleResult>\
             <AssumedRoleUser><Arn>{}</Arn><AssumedRoleId>{}</AssumedRoleId></AssumedRoleUser>\
             <Credentials><AccessKeyId>{}</AccessKeyId><SecretAccessKey>{}</SecretAccessKey>\
             <SessionToken>{}</SessionToken><Expiration>{}</Expiration></Credentials>\
             </AssumeRoleResult></AssumeRoleResponse>",
            xml(&user),
            xml(&user_id),
            keys.access_key_id,
            keys.secret_access_key,
            keys.session_token.unwrap_or_default(),
            date_time(&expires.to_system_time().into()),
        ))
    }
}

fn caller_identity(caller: &Principal) -> String {
    format!(
        "<GetCallerIdentityResponse xmlns=\"{XMLNS}\"><GetCallerIdentityResult>\
         <Arn>{}</Arn><UserId>{}</UserId><Account>{ACCOUNT}</Account>\
         </GetCallerIdentityResult></GetCallerIdentityResponse>",
        xml(&caller.arn),
        xml(&caller.user_id),
    )
}

fn date_time(at: &Timestamp) -> String {
    let mut text = Vec::new();
    // Writing to a Vec cannot fail, and every time here is one that RFC 3339 can say.
    let _ = at.format(TimestampFormat::DateTime, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// STS's shape of an error.
pub(super) fn error(code: &str, message: &str) -> String {
    format!(
        "<ErrorResponse xmlns=\"{XMLNS}\"><Error><Type>Sender</Type><Code>{}</Code>\
         <Message>{}</Message></Error></ErrorResponse>",
        xml(code),
        xml(message),
    )
}

/// STS's words for an error that s3s found in S3's.
pub(super) fn translate(s3_code: &str) -> (StatusCode, &'static str) {
    match s3_code {
        "InvalidAccessKeyId" | "InvalidToken" => (StatusCode::FORBIDDEN, "InvalidClientTokenId"),
        "ExpiredToken" => (StatusCode::FORBIDDEN, "ExpiredToken"),
        "RequestTimeTooSkewed" | "SignatureDoesNotMatch" => {
            (StatusCode::FORBIDDEN, "SignatureDoesNotMatch")
        }
        "AccessDenied" => (StatusCode::FORBIDDEN, "MissingAuthenticationToken"),
        _ => (StatusCode::BAD_REQUEST, "ValidationError"),
    }
}

fn xml_response(status: StatusCode, body: String) -> S3Response<Body> {
    let mut response = S3Response::new(Body::from(body));
    response.status = Some(status);
    let content_type = header::HeaderValue::from_static("text/xml");
    response.headers.insert(header::CONTENT_TYPE, content_type);
    response
}

struct Form(Vec<(String, String)>);

impl Form {
    fn get(&self, name: &str) -> Option<&str> {
        let pair = self.0.iter().find(|(key, _)| key == name);
        pair.map(|(_, value)| value.as_str())
    }

    fn unknown(&self, known: &[&str]) -> Option<&str> {
        let mut names = self.0.iter().map(|(key, _)| key.as_str());
        names.find(|name| !known.contains(name))
    }
}
