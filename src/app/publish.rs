//! What `tilekeep publish` works with: a tileset's bucket, to be written to.

use super::origin::{aws_settings, role};
use crate::aws::upload::Uploader;
use crate::aws::{Aws, AwsError, CredentialSource};
use crate::config::{Config, TilesetConfig};

/// The tileset's bucket, with the configuration's credentials and roles. Their session is not narrowed:
/// whoever publishes writes.
pub async fn uploader(config: &Config, tileset: &TilesetConfig) -> Result<Uploader, AwsError> {
    let aws = Aws::load(aws_settings(config), CredentialSource::Chain).await?;
    let own = tileset.assume_role.as_ref().map(role);
    Uploader::new(&aws, own.as_ref(), &tileset.tileset.place().bucket)
}
