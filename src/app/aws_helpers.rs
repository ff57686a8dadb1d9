//! Who signs URLs and hands out credentials, tileset by tileset.

use super::origin::read_place;
use crate::aws::presign::{Helpers, Signer, Signers};
use crate::aws::vending::Vending;
use crate::aws::{AssumeRole, Aws, AwsError};
use crate::config::{self, Config};
use crate::tile::Delivery;

/// For every tileset: the same role, and the same keys, as read it.
pub(super) async fn helpers(
    config: &Config,
    aws: &Aws,
    signer: impl Fn(Option<&config::AssumeRole>) -> Result<Signer, AwsError>,
    role: impl Fn(&config::AssumeRole) -> AssumeRole,
) -> Result<Helpers, AwsError> {
    let (mut signers, mut vending) = (Signers::default(), Vending::new(aws));
    let mut redirects_to = Vec::new();
    for tileset in &config.tilesets {
        let own = tileset.assume_role.as_ref();
        let (name, place) = (tileset.tileset.name(), tileset.tileset.place());
        let signer = signer(own)?;
        if tileset.tileset.delivery() == Delivery::Redirect {
            redirects_to.extend(signer.origin(&place.bucket).await);
        }
        // An archive's tiles are no objects of their own.
        if place.key.archive().is_none() {
            signers.add(name, signer);
        }
        let all = config.tilesets.iter().map(|t| &t.tileset);
        let places = all.map(|t| (t.name(), read_place(t.place())));
        vending.offer(
            aws,
            name,
            own.map(&role).as_ref(),
            &read_place(place),
            places,
        );
    }
    redirects_to.sort();
    redirects_to.dedup();
    Ok(Helpers {
        signers,
        vending,
        redirects_to,
    })
}
