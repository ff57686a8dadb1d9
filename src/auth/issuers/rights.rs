//! What a foreign token's person may do: the configuration's grants, and of the token's own claims
//! those that the configuration trusts by name. Any other claim, whatever it says, is not even read.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::super::claims::is_quota;
use super::IssuerError;
use crate::auth::Grants;
use crate::tile::Bounds;

/// A claim that can carry a right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClaimName {
    /// Names of tilesets.
    Tilesets,
    /// Scopes.
    Scope,
    /// The deepest zoom.
    Maxzoom,
    /// The area.
    Bounds,
    /// The quota class.
    Quota,
}

impl ClaimName {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Tilesets,
        Self::Scope,
        Self::Maxzoom,
        Self::Bounds,
        Self::Quota,
    ];

    /// As in a token.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tilesets => "tilesets",
            Self::Scope => "scope",
            Self::Maxzoom => "maxzoom",
            Self::Bounds => "bounds",
            Self::Quota => "quota",
        }
    }
}

/// What an issuer's people may do.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rights {
    /// Without a word from the token.
    pub grants: Grants,
    /// The claims that may say otherwise: more or less, the issuer is trusted with them.
    pub trusted: Vec<ClaimName>,
}

impl Rights {
    /// The grants of somebody whose verified token has these claims. A trusted claim that is missing
    /// or null says nothing; one that cannot be read refuses the token, because what it meant to
    /// withhold is not known.
    pub(super) fn of(&self, claims: &Map<String, Value>) -> Result<Grants, IssuerError> {
        let mut grants = self.grants.clone();
        for &name in &self.trusted {
            let Some(value) = claims.get(name.name()).filter(|value| !value.is_null()) else {
                continue;
            };
            let bad = IssuerError::BadClaim(name);
            match name {
                ClaimName::Tilesets => grants.tilesets = read(value).ok_or(bad)?,
                ClaimName::Scope => grants.scope = Some(read(value).ok_or(bad)?),
                ClaimName::Maxzoom => grants.maxzoom = Some(read(value).ok_or(bad)?),
                ClaimName::Bounds => {
                    let degrees = read(value).ok_or(bad)?;
                    grants.bounds = Some(Bounds::new(degrees).map_err(|_| bad)?);
                }
                ClaimName::Quota => {
                    let class = read::<String>(value).filter(|class| is_quota(class));
                    grants.quota = Some(class.ok_or(bad)?);
                }
            }
        }
        Ok(grants)
    }
}

fn read<T: DeserializeOwned>(value: &Value) -> Option<T> {
    T::deserialize(value).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rights(trusted: &[ClaimName]) -> Rights {
        Rights {
            grants: Grants {
                tilesets: vec!["world".to_owned()],
                scope: Some("tiles".to_owned()),
                maxzoom: Some(8),
                ..Grants::default()
            },
            trusted: trusted.to_vec(),
        }
    }

    fn greedy() -> Map<String, Value> {
        let claims = json!({
            "tilesets": ["*"], "scope": "tiles sign credentials explain", "maxzoom": 22,
            "bounds": [-10, 40, 10, 50], "quota": "unlimited",
        });
        claims.as_object().unwrap().clone()
    }

    #[test]
    fn a_claim_that_is_not_trusted_grants_nothing_and_harms_nothing() {
        let none = rights(&[]);
        assert_eq!(none.of(&greedy()).unwrap(), none.grants);
        for name in ClaimName::ALL {
            let mut rubbish = Map::new();
            rubbish.insert(name.name().to_owned(), json!({"not": "readable"}));
            assert_eq!(none.of(&rubbish).unwrap(), none.grants);
            let trusting = rights(&[name]);
            assert_eq!(
                trusting.of(&rubbish).unwrap_err(),
                IssuerError::BadClaim(name)
            );
        }
    }

    #[test]
    fn each_trusted_claim_overrides_its_own_grant_alone() {
        for name in ClaimName::ALL {
            let rights = rights(&[name]);
            let (got, given) = (rights.of(&greedy()).unwrap(), &rights.grants);
            let changed = [
                got.tilesets != given.tilesets,
                got.scope != given.scope,
                got.maxzoom != given.maxzoom,
                got.bounds != given.bounds,
                got.quota != given.quota,
            ];
            for (other, changed) in ClaimName::ALL.into_iter().zip(changed) {
                assert_eq!(changed, other == name, "{name:?} {other:?}");
            }
        }
    }

    #[test]
    fn a_trusted_claim_may_also_withhold_and_a_null_says_nothing() {
        let rights = rights(&ClaimName::ALL);
        let claims = json!({"tilesets": [], "scope": "", "maxzoom": null});
        let got = rights.of(claims.as_object().unwrap()).unwrap();
        assert!(got.tilesets.is_empty());
        assert_eq!((got.scope.as_deref(), got.maxzoom), (Some(""), Some(8)));
    }

    #[test]
    fn a_trusted_claim_out_of_bounds_refuses() {
        let rights = rights(&ClaimName::ALL);
        for claims in [
            json!({"bounds": [0, 0, 1]}),
            json!({"bounds": [0, 2, 1, 1]}),
            json!({"bounds": [0, 0, 400, 1]}),
            json!({"quota": ""}),
            json!({"quota": "a\nb"}),
            json!({"maxzoom": -1}),
            json!({"maxzoom": 1.5}),
            json!({"tilesets": "*"}),
            json!({"tilesets": [1]}),
            json!({"scope": ["tiles"]}),
        ] {
            assert!(rights.of(claims.as_object().unwrap()).is_err(), "{claims}");
        }
    }
}
