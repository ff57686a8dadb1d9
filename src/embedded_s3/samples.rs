//! The sample tiles: embedded when the build packed them (`build_samples.rs`), else read from the
//! package's own folder.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use bytes::Bytes;

/// Objects by key, in a pack that was made at build time.
pub(super) type Pack = BTreeMap<&'static str, Bytes>;

/// The embedded tiles, if there are any.
pub(super) fn embedded() -> Option<&'static Pack> {
    #[cfg(tilekeep_samples)]
    const PACK: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/samples.pack"));
    #[cfg(not(tilekeep_samples))]
    const PACK: &[u8] = &[];
    static OBJECTS: OnceLock<Option<Pack>> = OnceLock::new();
    OBJECTS.get_or_init(|| read(PACK)).as_ref()
}

/// Where the tiles are in the sources, for a build that packed none. One that did has no path of the
/// machine that built it inside.
#[allow(
    clippy::unnecessary_wraps,
    reason = "which of the two it is depends on the build"
)]
pub(super) fn folder() -> Option<std::path::PathBuf> {
    #[cfg(tilekeep_samples)]
    return None;
    #[cfg(not(tilekeep_samples))]
    Some(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tiles-sample"))
}

/// Reads a pack; `None` if it is none.
fn read(pack: &'static [u8]) -> Option<Pack> {
    let mut rest = pack.strip_prefix(b"TKPACK1\n")?;
    let count = u32::from_le_bytes(take(&mut rest)?);
    let mut index = Vec::new();
    for _ in 0..count {
        let length = u16::from_le_bytes(take(&mut rest)?);
        let (key, after) = rest.split_at_checked(length.into())?;
        rest = after;
        let offset = u64::from_le_bytes(take(&mut rest)?);
        let length = u32::from_le_bytes(take(&mut rest)?);
        let range = usize::try_from(offset).ok()?..;
        index.push((std::str::from_utf8(key).ok()?, range.start, length as usize));
    }
    let bodies = rest;
    let objects = index.into_iter().map(|(key, start, length)| {
        let body = bodies.get(start..start.checked_add(length)?)?;
        Some((key, Bytes::from_static(body)))
    });
    objects.collect()
}

fn take<const N: usize>(rest: &mut &'static [u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pack_is_read_back() {
        const PACK: &[u8] = b"TKPACK1\n\x02\0\0\0\
            \x01\0a\0\0\0\0\0\0\0\0\x03\0\0\0\
            \x03\0b/c\x01\0\0\0\0\0\0\0\x02\0\0\0xyz";
        let pack = read(PACK).unwrap();
        assert_eq!(pack.get("a").unwrap(), "xyz");
        assert_eq!(pack.get("b/c").unwrap(), "yz");
        assert_eq!(pack.len(), 2);
    }

    #[test]
    fn what_the_build_packed_is_there() {
        assert_eq!(
            embedded().is_some_and(|pack| !pack.is_empty()),
            cfg!(tilekeep_samples)
        );
    }

    #[test]
    fn a_broken_pack_is_none() {
        for pack in [
            &b""[..],
            b"TKPACK1\n",
            b"TKPACK1\n\x01\0\0\0\x01\0a\x05\0\0\0\0\0\0\0\x03\0\0\0xyz",
        ] {
            assert!(read(pack).is_none());
        }
    }
}
